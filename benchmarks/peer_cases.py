"""The samplers that figure 13 measures: what is claimed of each, and why some are not what they are called."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.peer_walks import Steps, Task, walk
from sfumato.integrations.aliases import Alias, Library
from sfumato.noise import ScalarProcess
from sfumato.sample import PRESETS, Program, Solver, run
from sfumato.seeds import noise


@dataclass(frozen=True)
class Case:
    """A published sampler.

    Arguments:
        sampler: whose, and its settings.
        claim: the order that its library or its paper states; None for one that states none.
        reason: why what is measured is not what is claimed.
        per_step: evaluations a step.
        to_zero: it can step to zero noise.
    """

    sampler: Alias
    claim: int | None
    reason: str = ""
    per_step: int = 1
    to_zero: bool = True

    @property
    def library(self) -> str:
        return self.sampler.library

    @property
    def name(self) -> str:
        return str(self.sampler).replace("sample_", "").replace("Scheduler", "").replace("Sampler", "")

    def walk(self, task: Task) -> Tensor:
        """See `peer_walks.walk`."""
        return walk(self.sampler, task)

    def evaluations(self, ratios: tuple[float, ...]) -> int:
        """How often the denoiser is asked on falling ratios."""
        asked: list[float] = []

        def answer(y: Tensor, k: float) -> Tensor:
            asked.append(k)
            return 0 * y

        self.walk(Task(ratios, torch.ones(1, 2), answer, Steps(noise(0, 1, (2,)), ratios)))
        return len(asked)


@dataclass(frozen=True)
class Ours:
    """A preset, with the face of a `Case`."""

    solver: Solver
    process: ScalarProcess
    reason: str = ""
    library: str = "sfumato"
    to_zero: bool = True

    @property
    def name(self) -> str:
        return self.solver.name

    @property
    def claim(self) -> int:
        return self.solver.order

    @property
    def per_step(self) -> int:
        program = self.program((*(2.0**-i for i in range(12)), 0.0))
        # a step to zero noise, or an answer asked anew there, may cost something else
        return math.ceil((program.evaluations - 1) / 12)

    def program(self, ratios: tuple[float, ...]) -> Program:
        """The table for falling ratios."""
        return self.solver.compile(self.process, [min(1.0, float(self.process.time_of_ratio(k))) for k in ratios])

    def evaluations(self, ratios: tuple[float, ...]) -> int:
        """As of a peer."""
        return self.program(ratios).evaluations

    def walk(self, task: Task) -> Tensor:
        """As of a peer."""
        process, program = self.process, self.program(task.ratios)
        first, last = (float(process.alpha(program.times[i])) for i in (0, -1))

        def denoise(x: Tensor, t: float) -> Tensor:
            return task.answer(x / float(process.alpha(t)), float(process.ratio(t)))

        return run(program, denoise, task.start * first) / last


@dataclass(frozen=True)
class _Tau:
    """SA-Solver's noise level, the same at all times."""

    level: int

    def __call__(self, t: object) -> int:
        return self.level

    def __repr__(self) -> str:
        return str(self.level)


def _of(library: Library, suffix: str) -> Callable[..., Case]:
    def case(name: str, claim: int | None, reason: str = "", *, per_step: int = 1, to_zero: bool = True, **settings: Any) -> Case:
        whole = f"sample_{name}" if library == "k-diffusion" else name + suffix
        return Case(Alias(library, whole, settings), claim, reason, per_step, to_zero)

    return case


_d, _k, _a = _of("diffusers", "Scheduler"), _of("k-diffusion", ""), _of("azula", "Sampler")
_MULTI, _SINGLE = "DPMSolverMultistep", "DPMSolverSinglestep"
_DRAWN = "the noise inside a step is not resolved: with noise, order 2 is the most"
_HALF = "the curvature has half the weight that the derivation gives it, in the authors' code and its copies"
_LOWER = "the last steps have a lower order, as shipped; with lower_order_final=False it has the order claimed"
_LAST = "the last step has order 1 where the number of evaluations is a multiple of 3"
_EQUAL = "Adams-Bashforth's constants for equal steps, on steps that are not equal in the ratio"

FLOW: tuple[Case, ...] = (
    _d("EulerDiscrete", 1),
    _d(_MULTI, 2),
    _d(_MULTI, 3, _HALF, solver_order=3),
    _d(_MULTI, 2, algorithm_type="dpmsolver", to_zero=False),
    _d(_SINGLE, 2),
    _d(_SINGLE, 3, solver_order=3),
    _d("UniPCMultistep", 3, _LOWER),
    _d("UniPCMultistep", 3, to_zero=False, lower_order_final=False),
    _d("UniPCMultistep", 4, _LOWER, solver_order=3),
    _d("UniPCMultistep", 4, to_zero=False, solver_order=3, lower_order_final=False),
    _d("DEISMultistep", 2, to_zero=False),
    _d("DEISMultistep", 3, to_zero=False, solver_order=3),
    _d("HeunDiscrete", 2, per_step=2),
    _d("KDPM2Discrete", 2, per_step=2),
    _d("LMSDiscrete", 4),
    _d("IPNDM", 4, _EQUAL),
    _d("SASolver", 2, to_zero=False, tau_func=_Tau(0)),
    _k("euler", 1),
    _k("heun", 2, per_step=2),
    _k("dpm_2", 2, per_step=2),
    _k("dpm_fast", 3, _LAST, to_zero=False),
    _k("lms", 4),
    _k("dpmpp_2s_ancestral", 2, per_step=2, eta=0.0),
    _k("dpmpp_sde", 2, per_step=2, eta=0.0),
    _k("dpmpp_2m", 2),
    _k("dpmpp_2m_sde", 2, eta=0.0),
    _k("dpmpp_3m_sde", 3, _HALF, eta=0.0),
    _a("Euler", 1),
    _a("DDIM", 1),
    _a("Heun", 2, per_step=2, to_zero=False),
    _a("zAB", 3, to_zero=False, order=3),
    _a("vAB", 3, to_zero=False, order=3),
    _a("zEAB", 3, to_zero=False, order=3),
    _a("xEAB", 2, to_zero=False),
    _a("xEAB", 3, to_zero=False, order=3),
    _a("REAB", 2, "its step ends with sqrt(alpha_s^2 + sigma_t^2), where its own derivation has sigma_s", to_zero=False),
    _a("REAB", 3, "the same", to_zero=False, order=3),
)
"""Samplers that follow the probability flow."""

LAW: tuple[Case, ...] = (
    _d("EulerAncestralDiscrete", 1),
    _d(_MULTI, 1, solver_order=1, algorithm_type="sde-dpmsolver++"),
    _d(_MULTI, 2, algorithm_type="sde-dpmsolver++"),
    _d("DPMSolverSDE", 2, per_step=2),
    _d("SASolver", 2, to_zero=False, tau_func=_Tau(1)),
    _k("euler_ancestral", 1),
    _k("dpm_2_ancestral", 2, per_step=2),
    _k("dpmpp_2s_ancestral", 2, per_step=2),
    _k("dpmpp_sde", 2, per_step=2),
    _k("dpmpp_2m_sde", 2),
    _k("dpmpp_3m_sde", 3, f"{_HALF}; {_DRAWN}"),
    _a("DDPM", 1),
    _a("DDIM", 1, eta=0.5),
    _a("Ito", 1),
    _a("PC", None, per_step=2),
)
"""Samplers that draw noise on the way."""

LIBRARIES = ("diffusers", "k-diffusion", "azula")


def ours(process: ScalarProcess, *, deterministic: bool) -> list[Ours]:
    """Our presets."""
    return [Ours(solver, process) for solver in PRESETS.values() if solver.deterministic is deterministic]
