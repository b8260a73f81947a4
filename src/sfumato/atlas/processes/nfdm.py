"""124: noising as a learned flow of noise given data: a bound without simulation, any volatility, straight generative paths."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.atlas.row import Check, Row, at_most, close, control
from sfumato.atlas.solvers.worlds import PROCESS, denoiser, g4
from sfumato.learn import FitSettings, descend
from sfumato.learn.forward.forward_flow import CouplingForward, ForwardFlow, NeuralAffine, ScalarForward
from sfumato.learn.forward.neural_flow_forward import KnotVolatility, conditional_path, flow_loss, generate_flow, generative_curvature
from sfumato.metrics import energy_distance
from sfumato.noise import FlowMatching
from sfumato.seeds import noise

_KNOTS = 16


class _WithoutScore(ScalarForward):
    """Reverse drifts whose score is forgotten."""

    def score(self, z: Tensor, t: Tensor, x: Tensor) -> Tensor:
        return torch.zeros_like(z)


class _Summed(NeuralAffine):
    """The classical bug: one gradient by the time, summed over the batch."""

    def velocity(self, z: Tensor, t: Tensor, x: Tensor) -> Tensor:
        with torch.enable_grad():
            u = t[:1].clone().requires_grad_()
            mean, log_scale = self.moments(x, u.expand(len(x)))
            rates = [torch.autograd.grad(v.sum(), u, retain_graph=True)[0] for v in (mean, log_scale)]
        return (rates[0] + rates[1] * (z - mean)).detach()


class _Bend(nn.Module):
    """A nonlinear network without weights."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x.flip(1) + t[:, None])


class _Gain(nn.Module):
    """A cubic of time, times the data or alone."""

    def __init__(self, on_data: bool) -> None:
        super().__init__()
        self.on_data, self.c = on_data, nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        powers = torch.stack([(t - 0.5) ** i for i in range(4)], 1)
        return (powers @ self.c)[:, None] * (x if self.on_data else torch.ones_like(x))


def _predict(flow: NeuralAffine, z: Tensor, t: Tensor) -> Tensor:
    """G4's exact posterior mean where `F = a(t) x + s(t) eps`: with a graph to `a` and `s`."""
    law = g4()
    mean, log_scale = flow.moments(torch.ones_like(z[:, :1]), t)
    spread = torch.stack([c.spectrum[0] for c in law.covariances])
    total = mean.square() * spread + torch.exp(2 * log_scale)
    away = z[:, None] - mean[..., None] * law.means
    share = torch.softmax(law.weights.log() - 0.5 * away.square().sum(-1) / total - total.log(), 1)
    return (share[..., None] * (law.means + (mean * spread / total)[..., None] * away)).sum(1)


def perfect() -> Iterator[Check]:
    """A prediction without error costs nothing, whatever the flow and the volatility."""
    generator = torch.Generator().manual_seed(0)
    x, eps = g4().sample(32, 0), torch.randn(32, 2, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.05, 0.95, 32, dtype=torch.float64)
    coupling = CouplingForward(2, 8, 0.1).double()
    with torch.no_grad():
        for p in coupling.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    flows: list[tuple[str, ForwardFlow]] = [("affine", NeuralAffine(_Bend(), _Bend(), 0.1)), ("coupling", coupling)]
    for name, flow in flows:
        for value in (0.1, 3.0):
            volatility = KnotVolatility(0.0, 1.0, 2, value)
            with torch.no_grad():
                loss = float(flow_loss(flow, lambda z, u: x, volatility, x, t, eps).max())
                wrong = float(flow_loss(flow, lambda z, u: 0.9 * x, volatility, x, t, eps).max())
            yield at_most(f"loss of the data themselves, {name}, g^2 = {value:g}", loss, 1e-20)
            yield control(at_most(f"loss of a tenth less, {name}, g^2 = {value:g}", wrong, 1e-20))


def volatility_learned() -> Iterator[Check]:
    """Fixed linear noising, the exact denoiser 10 percent off: the bound alone finds the diffusion's own volatility."""
    knots = torch.linspace(0.05, 0.95, _KNOTS, dtype=torch.float64)
    x, t = g4().sample(8 * _KNOTS, 1), knots.repeat(8)
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rate = (PROCESS.diffusion_squared(t) / (2 * PROCESS.sigma(t) ** 2)).detach()  # -lambda'
    belief = denoiser()

    def predictor(z: Tensor, u: Tensor) -> Tensor:
        return 1.1 * belief.denoise(z, u)

    error = (x - predictor(PROCESS.sample(x, t, eps), t)).square().sum(1)
    plain = (PROCESS.alpha(t) / PROCESS.sigma(t)) ** 2 * rate * error
    for flow, own in ((ScalarForward(PROCESS), True), (_WithoutScore(PROCESS), False)):
        volatility = KnotVolatility(0.05, 0.95, _KNOTS, 5.0)
        settings = FitSettings(120, learning_rate=0.2, warmup=3, ema_decay=0.9, clip=math.inf)
        descend(volatility, lambda _, f=flow, v=volatility: flow_loss(f, predictor, v, x, t, eps).sum(), settings)  # type: ignore[misc]
        with torch.no_grad():
            found = volatility(t) / (2 * PROCESS.sigma(t) ** 2)
            loss = flow_loss(flow, predictor, volatility, x, t, eps)
        off = at_most(
            f"largest relative error of u at {_KNOTS} knots{'' if own else ', without the score'}",
            float((found / rate - 1).abs().max()),
            0.05,
        )
        yield off if own else control(off)
        if own:
            yield close("learned loss over the diffusion's", float(loss.sum() / plain.sum()), 1.0, absolute=1e-3)
    half = flow_loss(ScalarForward(PROCESS), predictor, lambda u: PROCESS.diffusion_squared(u) / 2, x, t, eps)
    yield close("loss at half the variance, over the diffusion's", float(half.sum() / plain.sum()), 1.125, relative=1e-9)


def marginals() -> Iterator[Check]:
    """The noising SDE of a nonlinear flow has that flow's marginals, for any volatility."""
    n, times = 1000, torch.linspace(0.0, 0.6, 61, dtype=torch.float64).tolist()
    x = torch.tensor([[0.7, -0.4]], dtype=torch.float64).expand(n, 2)
    draws = noise(0, n, (2,), dtype=torch.float64)
    first, last = (torch.full((n,), v, dtype=torch.float64) for v in (0.0, 0.6))
    for kind, values in ((NeuralAffine, (0.3, 2.0)), (_Summed, (0.3,))):
        flow = kind(_Bend(), _Bend(), 0.3)
        for value in values:
            start, expected = flow.place(draws.draw(1000), first, x), flow.place(draws.draw(1001), last, x)
            found = energy_distance(conditional_path(flow, x, start, times, (KnotVolatility(0.0, 1.0, 2, value), draws)), expected)
            name = f"energy distance over its standard error, g^2 = {value:g}"
            if kind is NeuralAffine:
                yield at_most(name, found.value / found.standard_error, 3)
            else:
                yield control(at_most(f"{name}, derivatives summed over the batch", found.value / found.standard_error, 3))


def _curvature(flow: NeuralAffine, generator: torch.Generator, n: int) -> Tensor:
    x, eps = g4().sample(n, generator), torch.randn(n, 2, generator=generator, dtype=torch.float64)
    t = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return generative_curvature(flow, lambda z, u: _predict(flow, z, u), flow.place(eps, t, x), t).mean()


def _ends(flow: NeuralAffine | None, steps: int) -> Tensor:
    z, times = noise(9, 2000, (2,), dtype=torch.float64).draw(0), torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
    if flow is not None:
        return generate_flow(flow, lambda y, u: _predict(flow, y, u), z, times)
    lines = g4().denoiser(FlowMatching())  # (x - D) / t is the velocity of straight lines
    for t in times[:-1]:
        z = z - (z - lines.denoise(z, t)) / (t * steps)
    return z


def straight() -> Iterator[Check]:
    """NFDM-OT: two cubics of time learned by the curvature of the generative paths, with the exact prediction."""
    law, flow = g4().sample(2000, 11), NeuralAffine(_Gain(True), _Gain(False))
    with torch.no_grad():
        before = float(_curvature(flow, torch.Generator().manual_seed(2), 128))
    distances: Sequence[float] = [energy_distance(_ends(f, 4), law).value for f in (flow, None)]
    settings = FitSettings(60, learning_rate=0.25, warmup=3, ema_decay=0.8)
    descend(flow, lambda g: _curvature(flow, g, 32), settings)
    with torch.no_grad():
        after = float(_curvature(flow, torch.Generator().manual_seed(2), 128))
    found = energy_distance(_ends(flow, 4), law).value
    yield at_most("curvature after the penalty, over before", after / before, 0.6)
    yield at_most("energy distance of 4 Euler steps, over that of straight-line flow matching", found / distances[1], 0.5)
    yield control(at_most("the same before the penalty", distances[0] / distances[1], 0.5))


_SHARES = [10 ** (0.05 * i - 1) for i in range(41)]


@functools.cache
def _by_volatility() -> dict[str, list[float]]:
    """The loss of an exact denoiser 10 percent off, by the variance of the generative noise over the diffusion's own."""
    x, t = g4().sample(160, 1), torch.linspace(0.05, 0.95, 20, dtype=torch.float64).repeat(8)
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(flow: ForwardFlow, share: float) -> float:
        found = flow_loss(flow, lambda z, u: 1.1 * denoiser().denoise(z, u), lambda u: share * PROCESS.diffusion_squared(u), x, t, eps)
        return float(found.sum().detach())

    own = loss(ScalarForward(PROCESS), 1.0)
    return {f.__name__: [loss(f(PROCESS), s) / own for s in _SHARES] for f in (ScalarForward, _WithoutScore)}


def figure(ax: Any) -> None:
    """The bound of a denoiser with errors by the volatility of the generative process, in units of the diffusion's own: the bound is least
    there, so it finds the volatility. With the score left out of the drift there is no such place.
    """
    for (_, values), colour, label in zip(_by_volatility().items(), ("C0", "C1"), ("bound", "without the score"), strict=True):
        ax.plot(_SHARES, values, color=colour, label=label)
    ax.axvline(1, color="grey", linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="volatility over the diffusion's", ylabel="loss over the diffusion's")
    ax.legend()


ROW = Row(
    id="124",
    slug="nfdm",
    title="Neural Flow Diffusion Models: Learnable Forward Process for Improved Diffusion Modelling",
    authors="Grigory Bartosh, Dmitry Vetrov, Christian A. Naesseth",
    year=2024,
    arxiv="2404.12940",
    claim="Any invertible map of noise given data is a noising whose bound needs no simulation; the bound finds the volatility, and a "
    "penalty on curvature makes four Euler steps better than those of straight-line flow matching (exact predictions, no image networks).",
    reproduced="partly",
    checks=(perfect, volatility_learned, marginals, straight),
    figure=figure,
)
