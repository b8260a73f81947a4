"""053: a chain over data and noise level, whose states are a short way from clean data."""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, control
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.metrics import energy_distance
from sfumato.noise import EDM
from sfumato.sample.steps.denoising_mcmc import DenoisingMCMC, ExactLevels, descend, log_levels
from sfumato.sample.steps.step import Stream
from sfumato.seeds import noise

DIM, VARIANCE = 32, 0.15
PROCESS = EDM(20.0)
LEVELS = 200
TIMES = log_levels(PROCESS, LEVELS, 0.05, 20.0)
CLOCK = torch.tensor(TIMES, dtype=torch.float64)
CHAINS = 400


@functools.cache
def _world() -> GaussianMixture:
    means = 0.6 * noise(8, 6, (DIM,), dtype=torch.float64).draw(0)
    return GaussianMixture(None, means, [SpectralCovariance.isotropic(DIM, VARIANCE)] * 6)


def _vanilla(points: int, truth: Tensor, n: int = 1000) -> float:
    """Energy distance of Heun's method from the noisiest level in `2 (points - 1) + 1` evaluations."""
    x = PROCESS.prior_sample(noise(4, n, (DIM,), dtype=torch.float64).draw(0))
    top = torch.ones(n, dtype=torch.float64)
    return energy_distance(descend(_world().denoiser(PROCESS), x, top, TIMES[0], Stream.of(1, x), points), truth).value


@functools.cache
def _emitted() -> tuple[tuple[Tensor, Tensor], ...]:
    """States and their times: what 400 chains on 100 levels emit in 3 rounds, 4 sweeps apart, after 10 sweeps."""
    x = _world().sample(CHAINS, 7)
    stream = Stream.of(8, x)
    times = TIMES[:: LEVELS // 100]
    method = DenoisingMCMC(_world().denoiser(PROCESS), times, ExactLevels(_world(), PROCESS, times), kappa=0.1, variance=VARIANCE)
    chains = method.begin(x, stream, 0.5)
    for _ in range(10):
        chains = method.sweep(chains, stream)
    clock = torch.tensor(times, dtype=torch.float64)
    return tuple((state.x, clock[state.level]) for _, state in itertools.islice(method.blocks(chains, stream, 4), 3))


def _chained(points: int, truth: Tensor, from_top: bool = False) -> float:
    """Energy distance of what is emitted and carried down.

    Emissions of one chain are alike, those of one round are independent: the distance is the mean over rounds.
    """
    distances = []
    for x, t in _emitted():
        way = torch.ones_like(t) if from_top else t
        clean = descend(_world().denoiser(PROCESS), x, way, TIMES[0], Stream.of(8, x), points)
        distances.append(energy_distance(clean, truth).value)
    return statistics.fmean(distances)


def short_ways() -> Iterator[Check]:
    """Check 1: few evaluations from the chain's own level, against as many from pure noise."""
    truth = _world().sample(1000, 2)
    plain = [_vanilla(points, truth) for points in (3, 4, 6)]
    yield at_least(f"energy distance of Heun's method at 5 evaluations (at 7: {plain[1]:.3g})", plain[0], 0.5)
    quick, good, wrong = _chained(2, truth), _chained(3, truth), _chained(3, truth, from_top=True)
    started = statistics.fmean(float(PROCESS.ratio(t).mean()) for _, t in _emitted())
    yield at_most("energy distance of the chain at 4 + 3 evaluations", quick, 0.02)
    yield at_most("energy distance of the chain at 4 + 5 evaluations", good, 0.02)
    yield at_most("mean noise level it starts down from", started, 0.65)
    yield at_least(f"Heun's at 11 evaluations ({plain[2]:.3g}) over 3 times the chain's at 9", plain[2] / max(3 * good, 1e-12), 1.0)
    yield control(at_most("energy distance of the chain at 9 evaluations, carried down from the top level", wrong, 0.02))


def stationarity() -> Iterator[Check]:
    """Check 2: chains started from the exact joint law stay in it, if the moves are adjusted or small.

    Levels are dealt out evenly, so that their mean is exact at the start and the chains' drift is all that is left.
    """
    level = torch.arange(LEVELS)
    exact = (LEVELS - 1) / 2
    x = PROCESS.sample(_world().sample(LEVELS, 21), CLOCK[level], noise(22, LEVELS, (DIM,), dtype=torch.float64).draw(0))
    logits = ExactLevels(_world(), PROCESS, TIMES)
    for kappa, adjusted in ((0.4, True), (0.5, False)):
        method = DenoisingMCMC(_world().denoiser(PROCESS), TIMES, logits, kappa, VARIANCE, adjusted=adjusted)
        stream = Stream.of(9, x)
        chains = method.start(x, level)
        for _ in range(30):
            chains = method.sweep(chains, stream)
        rate = float(chains.accepted.double().mean()) / 30
        kind = f"adjusted, kappa {kappa:g}, acceptance {rate:.2f}" if adjusted else f"unadjusted, kappa {kappa:g}"
        check = at_most(f"shift of the mean level after 30 sweeps ({kind})", abs(float(chains.level.double().mean()) - exact), 5.0)
        yield check if adjusted else control(check)


@functools.cache
def _distances() -> tuple[list[float], list[float]]:
    truth = _world().sample(500, 2)
    return [_chained(points, truth) for points in (2, 3)], [_vanilla(points, truth, 500) for points in (3, 4, 5)]


def figure(ax: Any) -> None:
    """Energy distance to the data in 32 dimensions: states of the chain need few evaluations down to a sample, their four sweeps
    included, where a sampler that starts at pure noise is still far off.
    """
    chained, plain = _distances()
    ax.semilogy([4 + 3, 4 + 5], chained, "o-", color="C0", markersize=4, label="from the chain's states")
    ax.semilogy([5, 7, 9], plain, "s--", color="C1", markersize=4, label="Heun's method from pure noise")
    ax.set_xticks([5, 7, 9])
    ax.set_xlabel("evaluations a sample")
    ax.set_ylabel("energy distance to the data")
    ax.legend()


ROW = Row(
    id="053",
    slug="denoising-mcmc",
    title="Denoising MCMC for Accelerating Diffusion-Based Generative Models",
    authors="Beomsu Kim, Jong Chul Ye",
    year=2022,
    arxiv="2209.14593",
    claim=(
        "A Langevin-Gibbs chain over data and noise level stays near the data, so that each of its states needs only a few evaluations "
        "down to a sample; unadjusted, its Langevin step has to be small, or the levels drift up."
    ),
    reproduced="yes",
    checks=(short_ways, stationarity),
    figure=figure,
)
