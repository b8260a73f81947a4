"""Samplers: tables, what compiles them, and what runs them."""

from __future__ import annotations

from sfumato.sample.exponential import Exponential
from sfumato.sample.fitted import fit_program
from sfumato.sample.gaussian_error import Response, response
from sfumato.sample.linearisation import Linearisation
from sfumato.sample.program import Program, Row
from sfumato.sample.reference import Trajectory, reference, reference_times
from sfumato.sample.run import Denoise, Draws, Event, Plan, run
from sfumato.sample.sampler import Sampler
from sfumato.sample.schedules import custom, karras, uniform_log_snr, uniform_time
from sfumato.sample.solver import Solver

__all__ = [
    "Denoise",
    "Draws",
    "Event",
    "Exponential",
    "Linearisation",
    "Plan",
    "Program",
    "Response",
    "Row",
    "Sampler",
    "Solver",
    "Trajectory",
    "custom",
    "fit_program",
    "karras",
    "reference",
    "reference_times",
    "response",
    "run",
    "uniform_log_snr",
    "uniform_time",
]
