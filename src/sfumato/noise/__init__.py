"""Processes: how clean data becomes noise."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from sfumato.errors import ArgumentError
from sfumato.noise.general.complete_recipe import CompleteRecipe
from sfumato.noise.general.degradation import Blend, Blur, Degradation, Downsample, GaussianMask, PatchReplacement, Snow, snowflakes
from sfumato.noise.general.nonlinear import Increment, NonlinearSDE, coupled_angles, double_well, logistic, predator_prey, towards
from sfumato.noise.linear_family.backwards import Backwards
from sfumato.noise.linear_family.clock import Clock, ClockSDE
from sfumato.noise.linear_family.instances.bridges import Steered, agm, brownian_bridge, vp_bridge
from sfumato.noise.linear_family.instances.flexible import flexible, flexible_spectrum
from sfumato.noise.linear_family.instances.mean_reverting import ir_sde, ouve
from sfumato.noise.linear_family.instances.multivariate import alda, malda, mdm, mdm_two_clocks
from sfumato.noise.linear_family.instances.phase_space import blurred_cld, cld, psld
from sfumato.noise.linear_family.instances.pixel_times import pixel_times
from sfumato.noise.linear_family.instances.registry import LINEAR_SDES, linear_sde_from_dict
from sfumato.noise.linear_family.instances.spectral import blurring, function_space, heat
from sfumato.noise.linear_family.linear_law import Between, LinearLaw, Prior
from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.noise.linear_family.linear_views import LinearView, convert
from sfumato.noise.linear_family.magnus import GridSDE
from sfumato.noise.linear_family.marginal_table import TableSDE
from sfumato.noise.linear_family.operator import Operator
from sfumato.noise.linear_family.oracle import integrated_transition
from sfumato.noise.linear_family.path_bound import path_bound
from sfumato.noise.linear_family.pinned import Pinned
from sfumato.noise.linear_family.scalar_sde import ScalarSDE, linear
from sfumato.noise.process import Affine, Process, Time, as_time, over_events
from sfumato.noise.scalars.cosine_table import cosine_table
from sfumato.noise.scalars.exponential_step import ExponentialStep, exponential_step
from sfumato.noise.scalars.interpolating import FlowMatching, Trigonometric
from sfumato.noise.scalars.momentum_decay import MomentumDecay, damped_decay
from sfumato.noise.scalars.polar_table import PolarTable
from sfumato.noise.scalars.scalar import ScalarProcess
from sfumato.noise.scalars.table import BetaTable
from sfumato.noise.scalars.variance_exploding import EDM, VarianceExploding
from sfumato.noise.scalars.variance_preserving import Cosine, SubVariancePreserving, VariancePreserving

__all__ = [
    "EDM",
    "LINEAR_SDES",
    "PROCESSES",
    "Affine",
    "Backwards",
    "BetaTable",
    "Between",
    "Blend",
    "Blur",
    "Clock",
    "ClockSDE",
    "CompleteRecipe",
    "Cosine",
    "Degradation",
    "Downsample",
    "ExponentialStep",
    "FlowMatching",
    "GaussianMask",
    "GridSDE",
    "Increment",
    "LinearLaw",
    "LinearSDE",
    "LinearView",
    "MomentumDecay",
    "NonlinearSDE",
    "Operator",
    "PatchReplacement",
    "Pinned",
    "PolarTable",
    "Prior",
    "Process",
    "ScalarProcess",
    "ScalarSDE",
    "Snow",
    "Steered",
    "SubVariancePreserving",
    "TableSDE",
    "Time",
    "Trigonometric",
    "VarianceExploding",
    "VariancePreserving",
    "agm",
    "alda",
    "as_time",
    "blurred_cld",
    "blurring",
    "brownian_bridge",
    "cld",
    "convert",
    "cosine_table",
    "coupled_angles",
    "damped_decay",
    "double_well",
    "exponential_step",
    "flexible",
    "flexible_spectrum",
    "function_space",
    "heat",
    "integrated_transition",
    "ir_sde",
    "linear",
    "linear_sde_from_dict",
    "logistic",
    "malda",
    "mdm",
    "mdm_two_clocks",
    "ouve",
    "over_events",
    "path_bound",
    "pixel_times",
    "predator_prey",
    "process_from_dict",
    "psld",
    "snowflakes",
    "towards",
    "vp_bridge",
]

PROCESSES: dict[str, type[ScalarProcess]] = {
    p.kind: p
    for p in (
        VariancePreserving,
        SubVariancePreserving,
        Cosine,
        VarianceExploding,
        EDM,
        FlowMatching,
        Trigonometric,
        MomentumDecay,
        BetaTable,
    )
}
"""Every process that can be written down, by its `kind`."""


def process_from_dict(data: Any) -> ScalarProcess:
    """The process that `Process.to_dict` wrote down.

    Raises:
        ArgumentError: an unknown kind, or a parameter the kind does not have.
    """
    name = data.get("kind") if isinstance(data, dict) else data
    if not isinstance(name, str) or name not in PROCESSES:
        raise ArgumentError("process.kind", repr(name)[:60], f"one of {', '.join(PROCESSES)}")
    kind = PROCESSES[name]
    known = {f.name for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    unknown = set(data) - known - {"kind"}
    if unknown:
        raise ArgumentError("process", f"the keys {sorted(unknown)}", f"the keys {sorted(known)} of {kind.kind}")
    values = {key: value for key, value in data.items() if key != "kind"}
    if kind is BetaTable:
        if not isinstance(values.get("betas"), list):
            raise ArgumentError("process.betas", type(values.get("betas")).__name__, "a list of numbers")
        return BetaTable(tuple(_number("betas", v) for v in values["betas"]))
    return kind(**{key: _number(key, value) for key, value in values.items()})


def _number(key: str, value: Any) -> float:
    # JSON's integers have no largest, and its floats have NaN
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ArgumentError(f"process.{key}", repr(value)[:60], "a finite number")
    return float(value)
