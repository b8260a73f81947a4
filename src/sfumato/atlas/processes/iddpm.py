"""141: learned variances, a cosine schedule and steps drawn by their losses tighten DDPM's bound at few steps."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control, within
from sfumato.atlas.solvers.worlds import g4
from sfumato.data import digits
from sfumato.denoise import ResidualMLP, TwoHeaded
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.learn import HybridLoss, LossAwareSteps, chain_bound, fit_shares, step_bound
from sfumato.metrics import precision_recall
from sfumato.noise import BetaTable, cosine_table
from sfumato.sample import ReverseChain

_STEPS = (25, 50, 100, 400)
_GAPS = {
    "linear": {"beta": (0.834, 0.583, 0.386, 0.141), "best": (0.589, 0.420, 0.282, 0.103)},
    "cosine": {"beta": (0.600, 0.393, 0.241, 0.076), "best": (0.430, 0.285, 0.176, 0.055)},
}


@functools.cache
def _spectrum() -> Tensor:
    """The variances of all digits, with 1e-4 added."""
    data = digits()
    x = torch.cat([data.train, data.test]).double().flatten(1)
    return torch.linalg.eigvalsh(torch.cov(x.T)) + 1e-4


@functools.cache
def _chain(schedule: str, steps: int) -> tuple[ReverseChain, Tensor]:
    """A chain over nodes of 4,000, and the exact mean squared error of the Gaussian's denoiser at each."""
    table = BetaTable.linear(4000, 1e-4 / 4, 0.02 / 4) if schedule == "linear" else cosine_table(4000)
    chain, spectrum = ReverseChain.respaced(table, steps), _spectrum()
    alpha, sigma = (v[:, None] for v in table.levels(torch.tensor(chain.times[:-1], dtype=torch.float64)))
    return chain, (spectrum * sigma**2 / (alpha**2 * spectrum + sigma**2)).mean(1)


def _gap(schedule: str, steps: int, share: Tensor) -> float:
    """The bound less the entropy, bits per dimension."""
    chain, error = _chain(schedule, steps)
    alpha, sigma = chain.process.levels(chain.times[0])
    prior = 0.5 * float((alpha**2 * _spectrum() + sigma**2 - 1).mean() - 2 * sigma.log())
    entropy = 0.5 * float(torch.log(2 * math.pi * math.e * _spectrum()).mean())
    return (float(chain_bound(chain, error, share)) + prior - entropy) / math.log(2)


def _best(schedule: str, steps: int) -> Tensor:
    chain, error = _chain(schedule, steps)
    return (chain.best_log_variance(error) - chain.log_betatilde) / (chain.log_beta - chain.log_betatilde)


def gaps() -> Iterator[Check]:
    """Bound gaps of the digits' Gaussian, in closed form."""
    for schedule, figures in _GAPS.items():
        for i, steps in enumerate(_STEPS):
            ones = torch.ones(steps, dtype=torch.float64)
            yield close(f"gap, {schedule}, {steps} steps, beta", _gap(schedule, steps, ones), figures["beta"][i], absolute=6e-4)
            best = _gap(schedule, steps, _best(schedule, steps))
            yield close(f"gap, {schedule}, {steps} steps, best variances", best, figures["best"][i], absolute=6e-4)
        small = _gap(schedule, 25, torch.zeros(25, dtype=torch.float64))
        yield control(at_most(f"gap, {schedule}, 25 steps, betatilde alone", small, 0.834))
    for steps in _STEPS:
        ones = torch.ones(steps, dtype=torch.float64)
        yield at_most(f"cosine over linear, {steps} steps", _gap("cosine", steps, ones) / _gap("linear", steps, ones), 0.8)
    nodes = torch.arange(1, 1001, dtype=torch.float64) / 1000
    for name, table, share in (("linear", BetaTable.linear(1000), 0.327), ("cosine", cosine_table(1000), 0.065)):
        yield close(
            f"share of steps with alpha^2 < 0.01, {name}", float((table.alpha(nodes) ** 2 < 0.01).double().mean()), share, absolute=5e-4
        )


def learned() -> Iterator[Check]:
    """One share a step, by 300 steps of Adam on the bound."""
    for schedule, steps in (("linear", 25), ("cosine", 25), ("cosine", 100)):
        share = fit_shares(*_chain(schedule, steps))
        found, best = _gap(schedule, steps, share), _gap(schedule, steps, _best(schedule, steps))
        yield at_most(f"learned over best gap, {schedule}, {steps} steps", found / best, 1.02)
        if steps == 25:
            beta = _gap(schedule, steps, torch.ones(steps, dtype=torch.float64))
            yield at_most(f"learned over beta's gap, {schedule}, {steps} steps", found / beta, 0.8)


@functools.cache
def _trained() -> tuple[ReverseChain, TwoHeaded]:
    """A small two-headed network on G4, 250 steps of the hybrid loss."""
    chain = ReverseChain.respaced(BetaTable.linear(1000), 50)
    model = TwoHeaded(ResidualMLP((4,), 32, 1, seed=0), chain.process, 1.2)
    loss, generator = HybridLoss(chain), torch.Generator().manual_seed(0)
    data = g4().sample(4096, 0).float()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(250):
        clean = data[torch.randint(len(data), (128,), generator=generator)]
        step = torch.randint(chain.steps, (128,), generator=generator)
        optimizer.zero_grad()
        loss(clean, *_answers(chain, model, clean, step, generator), step).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return chain, model


def _answers(chain: ReverseChain, model: TwoHeaded, clean: Tensor, step: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    t = torch.tensor(chain.times, dtype=torch.float64)[step]
    answers: tuple[Tensor, Tensor] = model(chain.process.sample(clean, t, torch.randn(clean.shape, generator=generator)), t)
    return answers


@functools.cache
def _norms(hybrid: bool) -> Tensor:
    """The norms `(steps, 4)` of the trained network's gradients of the bound's terms or of the hybrid loss, one example each."""
    chain, model = _trained()
    generator, parameters = torch.Generator().manual_seed(1), list(model.parameters())
    clean = g4().sample(4 * chain.steps, 1).float()
    norms = []
    for i, x in enumerate(torch.split(clean, 1)):
        step = torch.tensor([i // 4])
        said, share = _answers(chain, model, x, step, generator)
        loss = HybridLoss(chain)(x, said, share, step) if hybrid else chain.steps * step_bound(chain, x, said, share, step)
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in torch.autograd.grad(loss.sum(), parameters))))
    return torch.tensor(norms, dtype=torch.float64).reshape(chain.steps, 4)


def _variance(norms: Tensor, p: Tensor) -> float:
    """Of the weighted norm of the gradient when steps are drawn with probabilities `p`."""
    k = len(p)
    return float((norms.square().mean(1) / (k**2 * p)).sum() - norms.mean() ** 2)


def importance() -> Iterator[Check]:
    """Gradient noise of the bound: steps drawn uniformly, by their losses, and beside the simple loss."""
    chain, model = _trained()
    sampler, generator = LossAwareSteps(chain.steps), torch.Generator().manual_seed(2)
    step = torch.arange(20 * chain.steps) % chain.steps
    clean = g4().sample(len(step), 2).float()
    with torch.no_grad():
        sampler.update(step, step_bound(chain, clean, *_answers(chain, model, clean, step, generator), step))
    p, bound, hybrid = sampler.probabilities, _norms(False), _norms(True)
    uniform = torch.full_like(p, 1 / len(p))
    yield at_least("variance of the gradient's norm, uniform over loss-aware steps", _variance(bound, uniform) / _variance(bound, p), 3)
    yield control(at_least("the same, steps drawn by other steps' losses", _variance(bound, uniform) / _variance(bound, p.flip(0)), 3))
    relative = [math.sqrt(_variance(v, uniform)) / float(v.mean()) for v in (hybrid, bound)]
    yield at_most("relative spread of the gradient's norm, hybrid over the bound alone", relative[0] / relative[1], 0.8)


def coverage() -> Iterator[Check]:
    """Precision and recall of samples whose faults are known."""
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = 4 * torch.stack([angles.cos(), angles.sin()], 1)
    ring = GaussianMixture(None, means, [SpectralCovariance.isotropic(2, 0.05)] * 8)
    half = GaussianMixture(None, means[::2], [SpectralCovariance.isotropic(2, 0.05)] * 4)
    real = ring.sample(2000, 0)
    same, dropped = precision_recall(real, ring.sample(2000, 1)), precision_recall(real, half.sample(2000, 1))
    yield within("recall with half of the modes", dropped.recall.value, 0.45, 0.55)
    yield at_least("precision with half of the modes", dropped.precision.value, 0.95)
    yield control(within("recall with all modes", same.recall.value, 0.45, 0.55))
    blurred = ring.sample(2000, 1) + 0.6 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    yield at_most("precision of blurred samples", precision_recall(real, blurred).precision.value, 0.6)


def figure(ax: Any) -> None:
    """How far DDPM's bound on the digits' Gaussian is above the entropy, by the number of steps, with exact denoisers: the cosine schedule
    comes nearer than the linear one, and the best variances, which can be learned, nearer still.
    """
    steps = (10, 25, 50, 100, 200, 400)
    for i, (schedule, best) in enumerate((("cosine", True), ("linear", False), ("cosine", False))):
        shares = [_best(schedule, n) if best else torch.ones(n, dtype=torch.float64) for n in steps]
        gaps = [_gap(schedule, n, share) for n, share in zip(steps, shares, strict=True)]
        ax.plot(steps, gaps, "o-", color=f"C{i}", label=f"{schedule}, {'best variances' if best else 'variance beta'}")
    ax.set(xscale="log", yscale="log", xlabel="steps", ylabel="bits per dimension above the entropy")
    ax.legend()


ROW = Row(
    id="141",
    slug="iddpm",
    title="Improved Denoising Diffusion Probabilistic Models",
    authors="Alex Nichol, Prafulla Dhariwal",
    year=2021,
    arxiv="2102.09672",
    claim="Learned variances and a cosine schedule tighten the bound at few steps, and drawing steps by their losses quiets the bound's "
    "gradient.",
    reproduced="yes",
    checks=(gaps, learned, importance, coverage),
    figure=figure,
)
