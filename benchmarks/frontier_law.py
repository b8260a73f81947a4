"""The law's half of figure 12: how far what a solver draws is from the law, for solvers that draw noise on the way.

In the Gaussian world of the same mean and covariance the 2-Wasserstein distance is exact (`sample.response`), relative to the root of the
trace; spacings are chosen by it. On the mixture itself it is the energy distance to as many exact draws, for a few budgets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sfumato.exact import GaussianMixture
from sfumato.metrics import energy_distance
from sfumato.sample import PRESETS, Program, Solver, response, run
from sfumato.seeds import noise
from sfumato.tune.candidates import SCHEDULES, Grid, Ground

BESIDE = ("ddim", "dpm-solver++-2m", "unipc-2-bh2")
"""Deterministic solvers to compare with."""
SAMPLED = (8, 15, 30)
"""Budgets at which the mixture is sampled."""
_SEED = 14


def measure_law(law: GaussianMixture, ground: Ground, grids: Sequence[Grid], budgets: Sequence[int], samples: int) -> dict[str, Any]:
    """By budget and solver: the exact error in the Gaussian world with the spacing it was got with, and the energy distance."""
    solvers = [s for name, s in PRESETS.items() if not s.deterministic or name in BESIDE]
    gaussian: dict[str, Any] = {}
    energy: dict[str, Any] = {}
    truth = law.sample(samples, _SEED)
    for n in budgets:
        gaussian[str(n)] = {}
        for solver in solvers:
            programs = most_steps(solver, ground, grids, n)
            errors = {told: law_error(program, ground) for told, program in programs.items()}
            told = min(errors, key=lambda told: errors[told])
            gaussian[str(n)][solver.name] = {"error": errors[told], "choice": told}
            if n in SAMPLED:
                distance = energy_distance(draw(programs[told], law, samples), truth)
                energy.setdefault(str(n), {})[solver.name] = {"value": distance.value, "standard_error": distance.standard_error}
    floor = energy_distance(law.sample(samples, _SEED + 1), truth)
    return {"gaussian": gaussian, "energy": energy, "floor": {"value": floor.value, "standard_error": floor.standard_error}}


def most_steps(solver: Solver, ground: Ground, grids: Sequence[Grid], n: int) -> dict[str, Program]:
    """A solver's programs of at most `n` evaluations and as many steps as that allows, by grid."""
    for steps in range(n, 0, -1):
        times = {str(grid): SCHEDULES[grid.schedule](ground, steps, grid.start, grid.end) for grid in grids}
        programs = {told: solver.compile(ground.process, way) for told, way in times.items()}
        if max(program.evaluations for program in programs.values()) <= n:
            return programs
    raise ValueError(f"{solver.name} makes no step with {n} evaluations")


def law_error(program: Program, ground: Ground) -> float:
    """The 2-Wasserstein distance in the Gaussian world, from the prior, over the root of the law's total variance."""
    distance = response(program, ground.law).w2(float(ground.process.prior_std) ** 2)
    return distance / math.sqrt(float(ground.law.covariance.trace()))


def draw(program: Program, law: GaussianMixture, n: int) -> torch.Tensor:
    """`n` samples of a program `(n, *event)`, with the law's own denoiser."""
    draws = noise(_SEED + 2, n, law.event_shape, dtype=torch.float64)
    with torch.no_grad():
        return run(program, law.denoiser(program.process).denoise, program.process.prior_sample(draws.draw(0)), draws)
