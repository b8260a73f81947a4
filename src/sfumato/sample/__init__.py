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
from sfumato.sample.solver import Solver

__all__ = [
    "PRESETS",
    "Ancestral",
    "Consistency",
    "Denoise",
    "Draws",
    "Event",
    "Exponential",
    "Heun",
    "Linearisation",
    "Plan",
    "Program",
    "Response",
    "Row",
    "Sampler",
    "Singlestep",
    "Solver",
    "Trajectory",
    "consistency",
    "custom",
    "ddim",
    "deis",
    "dpm_solver",
    "fit_program",
    "karras",
    "measured_order",
    "reference",
    "reference_times",
    "response",
    "run",
    "uniform_log_snr",
    "uniform_time",
    "unipc",
]
