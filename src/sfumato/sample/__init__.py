"""Samplers: tables, what compiles them, and what runs them."""

from __future__ import annotations

from sfumato.sample.ancestral import Ancestral
from sfumato.sample.consistency import Consistency, consistency, measured_order
from sfumato.sample.exponential import Exponential
from sfumato.sample.fitted import fit_program
from sfumato.sample.gaussian_error import Response, response
from sfumato.sample.heun import Heun
from sfumato.sample.linearisation import Linearisation
from sfumato.sample.multistep import ddim, deis, dpm_solver, unipc
from sfumato.sample.presets import PRESETS
from sfumato.sample.program import Program, Row
from sfumato.sample.reference import Trajectory, reference, reference_times
from sfumato.sample.run import Denoise, Draws, Event, Plan, run
from sfumato.sample.sampler import Sampler
from sfumato.sample.schedules import custom, karras, uniform_log_snr, uniform_time
from sfumato.sample.singlestep import Singlestep
from sfumato.sample.skip import HybridSamples, SkipForecast, forecast_skip, hybrid_sample
from sfumato.sample.solver import Solver
from sfumato.sample.teleport import Teleported, teleport

__all__ = [
    "PRESETS",
    "Ancestral",
    "Consistency",
    "Denoise",
    "Draws",
    "Event",
    "Exponential",
    "Heun",
    "HybridSamples",
    "Linearisation",
    "Plan",
    "Program",
    "Response",
    "Row",
    "Sampler",
    "Singlestep",
    "SkipForecast",
    "Solver",
    "Teleported",
    "Trajectory",
    "consistency",
    "custom",
    "ddim",
    "deis",
    "dpm_solver",
    "fit_program",
    "forecast_skip",
    "hybrid_sample",
    "karras",
    "measured_order",
    "reference",
    "reference_times",
    "response",
    "run",
    "teleport",
    "uniform_log_snr",
    "uniform_time",
    "unipc",
]
