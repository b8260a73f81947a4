"""The law's part of figure 13: what samplers that draw noise make of a Gaussian, exactly, and whether a sample depends on its batch.

In a Gaussian world the answer is linear, so a sampler is a linear map of its start and of the pieces of its Brownian path. Run on unit
vectors it tells its coefficients, and the variance of what it draws follows without a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.order_table import steady
from benchmarks.peer_cases import Case, Ours
from benchmarks.peer_walks import Basis, Task, _sampling, walk
from sfumato.atlas.solvers.worlds import FIRST, LAST
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.integrations.aliases import Alias
from sfumato.metrics.rate import fit_rate
from sfumato.noise import EDM
from sfumato.sample import Ancestral, response, run
from sfumato.seeds import noise

VARIANCES = (2.0, 0.3, 0.02)
"""Of the Gaussian that laws are compared on; the middle one alone for weak orders."""
WEAK = (80, 112, 160)
"""Evaluations for the weak order."""
_EVENT, _BATCH, _SAMPLE = (3, 8, 8), 8, 5


def variances(case: Case | Ours, ratios: tuple[float, ...], of: Sequence[float] = VARIANCES) -> Tensor:
    """The exact variances of what is drawn, `(modes,)`, from the exact law at the first ratio."""
    spread = torch.tensor(of, dtype=torch.float64)
    first = spread + ratios[0] ** 2
    if isinstance(case, Ours):
        program = case.program(ratios)
        law = Gaussian(torch.zeros(len(of), dtype=torch.float64), SpectralCovariance.from_dense(torch.diag(spread)))
        levels = program.levels[0]
        return response(program, law).variance(float(levels[0]) ** 2 * first) / float(levels[-1]) ** 2
    start = torch.zeros(2 * len(ratios) - 1, len(of), dtype=torch.float64)
    start[0] = 1.0
    out = case.walk(Task(ratios, start, lambda y, k: spread / (spread + k**2) * y, Basis(ratios, len(of))))
    return out[0] ** 2 * first + (out[1:] ** 2).sum(0)


def law_error(case: Case | Ours, ratios: tuple[float, ...]) -> float:
    """The 2-Wasserstein distance to the law of clean data, relative to that law's size."""
    exact = torch.tensor(VARIANCES, dtype=torch.float64)
    away = variances(case, ratios).sqrt() - exact.sqrt()
    return math.sqrt(float((away**2).sum() / exact.sum()))


def weak_order(case: Case | Ours) -> dict[str, float]:
    """The slope of the relative error of the variance against evaluations, and that error with the most of them."""
    if isinstance(case, Ours):
        case = replace(case, solver=steady(case.solver))
    errors = []
    for n in WEAK:
        lam = torch.linspace(FIRST, LAST, n // case.per_step + 1, dtype=torch.float64)
        ratios = tuple(torch.exp(-lam).tolist())
        exact = VARIANCES[1] + ratios[-1] ** 2
        errors.append(abs(float(variances(case, ratios, VARIANCES[1:2])) / exact - 1))
    return {"order": fit_rate([1 / n for n in WEAK], errors).slope, "error": errors[-1]}


def seeds() -> list[dict[str, Any]]:
    """For every library and way of seeding: how far sample 5 of 8 is from itself alone and in a batch of 6 under the same seed.

    A library that cannot say "sample 5" starts alone with the seed of the batch, which is what its users do.
    """
    rows = []
    for library, name, way, drawn, draw in _WAYS:
        try:
            whole = draw(range(_BATCH))
            alone, fewer = draw(range(_SAMPLE, _SAMPLE + 1))[0], draw(range(_SAMPLE + 1))[_SAMPLE]
        except ImportError as missing:
            rows.append({"library": library, "sampler": name, "seeded": way, "noise": drawn, "absent": str(missing)})
            continue
        far = {"alone": float((whole[_SAMPLE] - alone).abs().max()), "in 6": float((whole[_SAMPLE] - fewer).abs().max())}
        rows.append({"library": library, "sampler": name, "seeded": way, "noise": drawn, **far})
    return rows


_RATIOS = (20.0, 8.0, 3.0, 1.0, 0.3, 0.0)


def _task(samples: range, generator: Any = None, ratios: tuple[float, ...] = _RATIOS) -> Task:
    """The starts of some samples; each is the same whatever the batch."""
    start = _RATIOS[0] * noise(7, len(samples), _EVENT, first=samples.start).draw(0)
    return Task(ratios, start, lambda y, k: y / (1 + k**2), None, generator)


def _global(sampler: Alias) -> Callable[[range], Tensor]:
    """Seeded by `torch.manual_seed`; the generator is put back."""

    def draw(samples: range) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return walk(sampler, _task(samples))

    return draw


def _generator(sampler: Alias) -> Callable[[range], Tensor]:
    return lambda samples: walk(sampler, _task(samples, torch.Generator().manual_seed(0)))


def _generators(sampler: Alias) -> Callable[[range], Tensor]:
    return lambda samples: walk(sampler, _task(samples, [torch.Generator().manual_seed(i) for i in samples]))


def _trees(samples: range) -> Tensor:
    """k-diffusion's Brownian trees, one seed a sample."""
    task = _task(samples)
    tree = _sampling().BrownianTreeNoiseSampler(task.start, 0.1, task.ratios[0], seed=list(samples))
    return walk(Alias("k-diffusion", "sample_dpmpp_2m_sde", {"noise_sampler": tree}), task)


def _own(samples: range) -> Tensor:
    task, top = _task(samples), _RATIOS[0]
    program = Ancestral(1.0, 2).compile(EDM(top), [k / top for k in task.ratios])
    return run(program, lambda y, t: task.answer(y, t * top), task.start, noise(0, len(samples), _EVENT, first=samples.start))


_TWO_M, _SDE = (Alias("diffusers", "DPMSolverMultistepScheduler", how) for how in ({}, {"algorithm_type": "sde-dpmsolver++"}))
_TREE = Alias("diffusers", "DPMSolverSDEScheduler", {"noise_sampler_seed": 0})
_EULER_A = Alias("diffusers", "EulerAncestralDiscreteScheduler")
_WAYS: tuple[tuple[str, str, str, bool, Callable[[range], Tensor]], ...] = (
    ("sfumato", "sde-dpm-solver++-2m", "one integer", True, _own),
    ("diffusers", "DPMSolverMultistep", "", False, _generator(_TWO_M)),
    ("diffusers", "DPMSolverMultistep, SDE", "one generator", True, _generator(_SDE)),
    ("diffusers", "DPMSolverMultistep, SDE", "a list of generators", True, _generators(_SDE)),
    ("diffusers", "EulerAncestralDiscrete", "a list of generators", True, _generators(_EULER_A)),
    ("diffusers", "DPMSolverSDE", "noise_sampler_seed", True, _global(_TREE)),
    ("k-diffusion", "dpmpp_2m", "", False, _global(Alias("k-diffusion", "sample_dpmpp_2m"))),
    ("k-diffusion", "euler_ancestral", "torch.manual_seed", True, _global(Alias("k-diffusion", "sample_euler_ancestral"))),
    ("k-diffusion", "dpmpp_2m_sde", "torch.manual_seed", True, _global(Alias("k-diffusion", "sample_dpmpp_2m_sde"))),
    ("k-diffusion", "dpmpp_2m_sde", "Brownian trees, a list of seeds", True, _trees),
    ("azula", "Euler", "", False, _global(Alias("azula", "EulerSampler"))),
    ("azula", "DDPM", "torch.manual_seed", True, _global(Alias("azula", "DDPMSampler"))),
)
