"""Processes: how clean data becomes noise."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from sfumato.errors import ArgumentError
from sfumato.noise.interpolating import FlowMatching, Trigonometric
from sfumato.noise.process import Affine, Process, Time, as_time, over_events
from sfumato.noise.scalar import ScalarProcess
from sfumato.noise.table import BetaTable
from sfumato.noise.variance_exploding import EDM, VarianceExploding
from sfumato.noise.variance_preserving import Cosine, SubVariancePreserving, VariancePreserving

__all__ = [
    "EDM",
    "PROCESSES",
    "Affine",
    "BetaTable",
    "Cosine",
    "FlowMatching",
    "Process",
    "ScalarProcess",
    "SubVariancePreserving",
    "Time",
    "Trigonometric",
    "VarianceExploding",
    "VariancePreserving",
    "as_time",
    "over_events",
    "process_from_dict",
]

PROCESSES: dict[str, type[ScalarProcess]] = {
    p.kind: p for p in (VariancePreserving, SubVariancePreserving, Cosine, VarianceExploding, EDM, FlowMatching, Trigonometric, BetaTable)
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
