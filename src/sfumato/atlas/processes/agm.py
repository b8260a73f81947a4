"""017: position and velocity steered to data by an acceleration. Left out: images."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control
from sfumato.exact import GaussianMixture, PushedDenoiser, SpectralCovariance
from sfumato.metrics import energy_distance
from sfumato.noise import FlowMatching, agm
from sfumato.sample.linear.acceleration import Acceleration, AccelerationFlow, AccelerationSplitting
from sfumato.sample.linear.linear_program import LinearSolver, run_linear
from sfumato.seeds import Noise, noise
from sfumato.steer import follow_stroke

F64 = torch.float64
PROCESS = agm()
STRAIGHT = FlowMatching()


@functools.cache
def _ring() -> GaussianMixture:
    """Eight modes of variance 0.02 on a circle of radius 2."""
    angle = torch.arange(8, dtype=F64) * math.pi / 4
    return GaussianMixture([1 / 8] * 8, 2 * torch.stack([angle.cos(), angle.sin()], 1), [SpectralCovariance.isotropic(2, 0.02)] * 8)


def _belief() -> PushedDenoiser:
    return PushedDenoiser(_ring(), PROCESS)


def _draws(n: int) -> Noise:
    return noise(0, n, (2, 2), dtype=F64)


def formulas() -> Iterator[Check]:
    """The paper's polynomials and noise form of the acceleration, at `1 - t = 0.4`."""
    t, law = 0.6, PROCESS.marginal(0.6)
    s = 1 - t
    mean, root = law.phi.coef[0, :, 0], law.covariance.cholesky().coef[0]
    known = torch.tensor([s**2 * (s**2 - 4 * s + 6) / 3, 4 / 3 * s * (s**2 - 3 * s + 3)], dtype=F64)
    yield at_most("mean of position and velocity against polynomials", float((mean - known).abs().max()), 1e-12)
    data, e = torch.tensor([[1.3]], dtype=F64), torch.tensor([0.4, -0.7], dtype=F64)
    state = (mean * 1.3 + root @ e).reshape(1, 2, 1)
    (xx, _), (vx, vv) = root.tolist()
    sde = 4 * 1.3 * t**2 - 4 / t * ((xx / t + vx) * 0.4 - vv * 0.7)
    flow = sde - (3 * t) ** 2 / 2 * 0.7 / vv
    for name, eta, value in (("SDE", 1.0, sde), ("flow", 0.0, flow)):
        view = Acceleration(PROCESS, eta)
        found = view.of(data, state, t)
        yield at_most(f"{name}: acceleration against its noise form", abs(float(found) - value), 1e-12)
        yield at_most(f"{name}: the data from the acceleration", abs(float(view.data(found, state, t)) - 1.3), 1e-12)
    free = 3 / t**2 * (1.3 - float(state[0, 0])) - 3 / t * float(state[0, 1])
    yield control(at_most("control of a free end velocity (3 for 4): against the noise form", abs(free - sde), 1e-12))


def early_belief() -> Iterator[Check]:
    """How far the exact belief is from the data, against straight paths at the same time."""
    x1, g, n = _ring().sample(3000, 5), torch.Generator().manual_seed(0), 3000

    def straight(t: float, ratio: float) -> float:
        # any position alpha x_0 + sigma eps is one of a straight path, at the time of its noise-to-signal ratio
        x = STRAIGHT.sample(x1, u := ratio / (1 + ratio), torch.randn(n, 2, generator=g, dtype=F64))
        return float((_ring().posterior_mean(x, STRAIGHT, u) - x1).square().sum(1).mean())

    for s, limit in ((0.3, 0.5), (0.5, 0.2)):
        t = 1 - s
        m = PROCESS.sample(x1, t, torch.randn(n, 2, 2, generator=g, dtype=F64))
        own, base = float((_belief().denoise(m, t) - x1).square().sum(1).mean()), straight(t, t / s)
        yield at_most(f"squared error of the belief at {s} of the way, over straight paths'", own / base, limit)
    law = PROCESS.marginal(0.5)
    blind = straight(0.5, math.sqrt(float(law.covariance.coef[0, 0, 0])) / float(law.phi.coef[0, 0, 0]))
    yield control(at_most("position alone, without the velocity, at 0.5: the same", blind / straight(0.5, 1.0), 0.2))


def _times(nodes: int, end: float) -> list[float]:
    """Equal in the root of the way."""
    return [1 - s for s in torch.linspace(1e-5**0.5, end**0.5, nodes, dtype=F64).square().tolist()]


@functools.cache
def _answers(nodes: int, end: float, solver: LinearSolver) -> Tensor:
    """The belief at the end of a run: `nodes` evaluations in all."""
    times, draws = _times(nodes, end), _draws(4000)
    x = run_linear(solver.compile(PROCESS, times), _belief().denoise, PROCESS.prior_sample(draws.draw(0)), draws)
    return _belief().denoise(x, times[-1])


def _straight_answers(steps: int) -> Tensor:
    x, belief = _draws(4000).draw(0)[:, 0], _ring().denoiser(STRAIGHT)
    for i in range(steps):
        x = x - belief.velocity(x, 1 - i / steps) / steps
    return x


def sampling() -> Iterator[Check]:
    """Early exit with 3 evaluations against Euler on straight paths; 50 evaluations against the data's own likelihood."""
    data = _ring().sample(4000, 5)
    base = energy_distance(_straight_answers(3), data).value
    flow = energy_distance(_answers(3, 0.4, AccelerationFlow(2)), data).value
    yield at_most("3 evaluations, exit at 0.4: energy distance over straight paths'", flow / base, 0.7)
    late = energy_distance(_answers(3, 0.05, AccelerationFlow(2)), data).value
    yield control(at_most("3 evaluations, exit at 0.05: the same", late / base, 0.7))
    nll = -float(_ring().log_prob(_answers(50, 0.95, AccelerationFlow(2))).mean())
    yield close("50 evaluations: negative log-likelihood of samples, nats", nll, -float(_ring().log_prob(data).mean()), absolute=0.1)
    few = -float(_ring().log_prob(_answers(5, 0.95, AccelerationFlow(1))).mean())
    yield control(close("5 evaluations: the same", few, -float(_ring().log_prob(data).mean()), absolute=0.1))
    sde = energy_distance(_answers(10, 0.7, AccelerationSplitting()), data).value
    yield at_most("SDE, 10 evaluations, exit at 0.7: energy distance", sde, 0.01)


def strokes() -> Iterator[Check]:
    """A stroke at one of the eight modes: the share of samples that end there, with velocities drawn in part of the steps."""
    n, aim = 500, torch.tensor([2.0, 0.0], dtype=F64)
    draws, times, stroke = _draws(n), _times(21, 0.9), aim.expand(n, 2)

    def hit(share: float) -> float:
        found = follow_stroke(_belief().denoise, PROCESS, times, draws, stroke, share)
        return float(((found - aim).norm(dim=1) < 0.7).to(F64).mean())

    yield at_least("velocities drawn in half of the steps: share in the mode (1/8 without)", hit(0.5), 0.3)
    yield control(at_least("in none: the same", hit(0.0), 0.3))
    known = torch.tensor([1.0, 0.0], dtype=F64)
    half = torch.tensor([math.sqrt(2), 0.0], dtype=F64).expand(n, 2)
    found = follow_stroke(_belief().denoise, PROCESS, times, draws, half, 1.0, known)
    yield at_most("inpainting: mean distance of the known coordinate", float((found[:, 0] - math.sqrt(2)).abs().mean()), 0.05)
    yield at_least(
        "inpainting: share of the other coordinate near +-1.41", float(((found[:, 1].abs() - 2**0.5).abs() < 0.4).to(F64).mean()), 0.5
    )


@functools.cache
def _early() -> tuple[list[float], list[float], list[float]]:
    """Shares of the way, and squared errors of the belief there: of the phase process, and of straight paths at the same time."""
    x1, shares = _ring().sample(1000, 5), [0.05 * i for i in range(1, 19)]
    eps, belief, own, straight = noise(0, 1000, (2, 2), dtype=F64).draw(0), _belief(), [], []
    for s in shares:
        own.append(float((belief.denoise(PROCESS.sample(x1, 1 - s, eps), 1 - s) - x1).square().sum(1).mean()))
        said = _ring().posterior_mean(STRAIGHT.sample(x1, 1 - s, eps[:, 0]), STRAIGHT, 1 - s)
        straight.append(float((said - x1).square().sum(1).mean()))
    return shares, own, straight


def figure(ax: Any) -> None:
    """How far the exact belief is from where a path will end, along the way from noise to a ring of eight modes. With a velocity that aims
    at the data it is right early, so the way may be cut short; on straight paths it becomes right late.
    """
    shares, own, straight = _early()
    ax.plot(shares, own, color="C0", label="position and velocity")
    ax.plot(shares, straight, color="C1", label="straight paths")
    ax.set(yscale="log", xlabel="share of the way", ylabel="squared error of the belief", ylim=(1e-3, 8))
    ax.legend()


ROW = Row(
    id="017",
    slug="agm",
    title="Generative Modeling with Phase Stochastic Bridges",
    authors="Tianrong Chen, Jiatao Gu, Laurent Dinh, Evangelos A. Theodorou, Joshua Susskind, Shuangfei Zhai",
    year=2023,
    arxiv="2310.07805",
    claim="A velocity that aims at the data tells early where a path ends, so that few evaluations and an early exit give samples: true "
    "for 3 evaluations on a ring of modes; from 5 on, Euler on straight paths is as good.",
    reproduced="partly",
    checks=(formulas, early_belief, sampling, strokes),
    figure=figure,
)
