"""085: a depth-dependent encoder of the data inside the diffusion, and what it does to the bound."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control
from sfumato.learn import FitSettings, descend
from sfumato.learn.forward.encoded_forward import EncodedForward, levels
from sfumato.learn.forward.forward_flow import Field

_LOW, _HIGH = -6.0, 6.0
_FIGURES = {50: 76.42, 200: 76.475, 1000: 76.487, 5000: 76.4895}
_SIGNS = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
"""Data and noise of one standard deviation each way: averages over them are exact, for all is linear."""


def _shrink(x: Tensor, lam: Tensor) -> Tensor:
    return 0.6 * x


def _same(x: Tensor, lam: Tensor) -> Tensor:
    return x


def _points(nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Data `(4 nodes, 1)` of variance 1.5, noise, and which node each is for."""
    sign, i = torch.cartesian_prod(torch.arange(4), torch.arange(nodes)).T
    return math.sqrt(1.5) * _SIGNS[sign, :1], _SIGNS[sign, 1:], i


def _steps(encoder: Field, steps: int, ratio: float = 1.0) -> float:
    """The steps' terms of the bound at `x_hat = z / 2`, nats."""
    lam, (x, eps, i) = torch.linspace(_LOW, _HIGH, steps + 1, dtype=torch.float64), _points(steps)
    forward = EncodedForward(encoder)
    said = 0.5 * forward.sample(x, lam[i], eps)
    return float(forward.step_loss(x, said, lam[i], lam[i + 1], ratio).sum()) / 4


@functools.cache
def _integral(frozen: bool = False) -> float:
    """The continuous bound by Gauss-Legendre; `frozen` leaves out `d x_lam / d lam`."""
    import numpy as np

    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(64))
    lam, (x, eps, i) = _LOW + (_HIGH - _LOW) * (nodes + 1) / 2, _points(64)
    forward = EncodedForward(_shrink)
    said = 0.5 * forward.sample(x, lam[i], eps)
    density = forward.data_loss(x, said, lam[i])
    if frozen:
        gap = forward.encode(x, lam[i]) - (1 + torch.sigmoid(-lam[i]))[:, None] * said
        density = 0.5 * lam[i].exp() * gap.square().sum(1)
    return float((density.reshape(4, 64).mean(0) * weights).sum()) * (_HIGH - _LOW) / 2


def depth() -> Iterator[Check]:
    """The steps' sum tends to the integral, with an error of the first order; without the encoder's derivative it does not."""
    exact, errors = _integral(), []
    yield close("continuous bound, nats", exact, 76.4901, absolute=1e-3)
    for steps, figure in _FIGURES.items():
        found = _steps(_shrink, steps)
        errors.append(abs(found - exact))
        yield close(f"bound of {steps} steps, nats", found, figure, absolute=6e-3)
    yield at_most("relative error of 1000 steps", errors[2] / exact, 1e-4)
    yield close("order in the number of steps, 200 to 1000", math.log(errors[1] / errors[2]) / math.log(5), 1, absolute=0.1)
    wrong = abs(_integral(frozen=True) - _steps(_shrink, 1000)) / exact
    yield control(at_most("the same, without the encoder's derivative", wrong, 1e-4))


def variances() -> Iterator[Check]:
    """A ratio of variances other than 1 costs the same in every step, so it diverges with the depth."""
    w = 1.3
    for steps in _FIGURES:
        excess = (_steps(_shrink, steps, w) - _steps(_shrink, steps) / w) / steps
        yield close(f"excess of w = 1.3 per step, {steps} steps", excess, 0.0158, absolute=5e-5)
    for name, ratio in (("w = 1", 1.0), ("w = 1.3", w)):
        check = at_most(f"bound of 5000 steps over that of 50, {name}", _steps(_shrink, 5000, ratio) / _steps(_shrink, 50, ratio), 1.01)
        yield check if ratio == 1 else control(check)
    lam, (x, eps, _) = torch.full((4,), -1.0, dtype=torch.float64), _points(1)
    forward = EncodedForward(_shrink)
    said = 0.5 * forward.sample(x, lam, eps)
    best = float(forward.best_ratio(x, said, lam, lam + 2))
    gain = float((forward.step_loss(x, said, lam, lam + 2) - forward.step_loss(x, said, lam, lam + 2, best)).mean())
    yield at_least("gain of the best w in a step of 2 nats of log-SNR", gain, 1e-3)


def forms() -> Iterator[Check]:
    """The velocity form is the data form, and with `y = x` the loss is plain diffusion's at an enlarged prediction."""
    lam, (x, eps, i) = torch.linspace(_LOW, _HIGH, 25, dtype=torch.float64), _points(25)
    at, (alpha, sigma) = lam[i], (c[:, None] for c in levels(lam[i]))

    def curved(x: Tensor, lam: Tensor) -> Tensor:
        return torch.sin(x + 0.5 * lam[:, None])

    encoders: list[tuple[str, Field | None]] = [("no encoder", None), ("y = 0.6 x", _shrink), ("a nonlinear y", curved)]
    for name, encoder in encoders:
        forward = EncodedForward(encoder)
        said = 0.5 * forward.sample(x, at, eps)
        v_said = (alpha * forward.sample(x, at, eps) - said) / sigma
        expected = forward.data_loss(x, said, at)
        found = forward.velocity_loss(x, v_said, at, eps)
        yield at_most(f"largest relative difference of the two forms, {name}", float((found / expected - 1).abs().max()), 1e-10)
    # y = x in the velocity form is another encoding than alpha^2 x
    mixed = EncodedForward(_same).velocity_loss(x, v_said, at, eps)
    yield control(
        at_most("the same, y = x taken for no encoder", float((mixed / EncodedForward(None).data_loss(x, said, at) - 1).abs().max()), 1e-10)
    )
    forward = EncodedForward(_same)
    said = 0.5 * forward.sample(x, at, eps)
    plain = 0.5 * at.exp() * (x - (1 + torch.sigmoid(-at))[:, None] * said).square().sum(1)
    yield at_most(
        "largest relative difference from plain diffusion, y = x", float((forward.data_loss(x, said, at) / plain - 1).abs().max()), 1e-10
    )


class _Model(nn.Module):
    """`y = a(lam) x` and `x_hat = b(lam) z`, cubics of `lam`; the best linear prediction for any encoder is within reach."""

    def __init__(self, trained: bool) -> None:
        super().__init__()
        start = torch.zeros(4, dtype=torch.float64)
        self.a = nn.Parameter(start.clone()) if trained else None
        self.b = nn.Parameter(start.clone())

    def encoder(self, x: Tensor, lam: Tensor) -> Tensor:
        return x if self.a is None else x + _cubic(self.a, lam)[:, None] * x

    def predict(self, z: Tensor, lam: Tensor) -> Tensor:
        return _cubic(self.b, lam)[:, None] * z


def _cubic(c: Tensor, lam: Tensor) -> Tensor:
    return torch.stack([(lam / _HIGH) ** i for i in range(4)], 1) @ c


def trained() -> Iterator[Check]:
    """One small model with and without an encoder, on the same budget: the bound of 20 steps, exactly averaged."""
    lam, (x, eps, i) = torch.linspace(_LOW, _HIGH, 21, dtype=torch.float64), _points(20)
    found = []
    for encoded in (False, True):
        model = _Model(encoded)
        forward = EncodedForward(model.encoder)
        first = torch.full((4,), _LOW, dtype=torch.float64)

        def bound(model: _Model = model, forward: EncodedForward = forward, first: Tensor = first) -> Tensor:
            said = model.predict(forward.sample(x, lam[i], eps), lam[i])
            return forward.step_loss(x, said, lam[i], lam[i + 1]).sum() / 4 + forward.prior_divergence(x[::20], first).mean()

        loss: Callable[[torch.Generator], Tensor] = lambda _, bound=bound: bound()  # type: ignore[misc] # noqa: E731
        descend(model, loss, FitSettings(400, learning_rate=0.05, warmup=5, ema_decay=0.9, clip=math.inf))
        with torch.no_grad():
            found.append(float(bound()))
    yield at_most("bound with an encoder over that without, 20 steps", found[1] / found[0], 0.97)


def figure(ax: Any) -> None:
    """The bound of a model with an encoder by its number of steps: it tends to the integral that has the encoder's derivative, and not to
    the one without. With a ratio of variances of 1.3 it grows without end.
    """
    steps = (10, 30, 100, 300, 1000, 2000)
    ax.plot(steps, [_steps(_shrink, n) for n in steps], "o-", color="C0", label="equal variances")
    ax.plot(steps, [_steps(_shrink, n, 1.3) for n in steps], "o-", color="C1", label="ratio of variances 1.3")
    ax.axhline(_integral(), color="C0", linestyle=":", label="integral")
    ax.axhline(_integral(frozen=True), color="C2", linestyle=":", label="without the derivative")
    ax.set(xscale="log", xlabel="steps", ylabel="bound, nats")
    ax.legend()


ROW = Row(
    id="085",
    slug="diffenc",
    title="DiffEnc: Variational Diffusion with a Learned Encoder",
    authors="Beatrix M. G. Nielsen, Anders Christensen, Andrea Dittadi, Ole Winther",
    year=2023,
    arxiv="2310.19789",
    claim="An encoder that changes the data with depth adds one derivative to the continuous bound, where the ratio of variances has to be "
    "1; trained beside a weak predictor it tightens the bound (a Gaussian world; image likelihoods not measured).",
    reproduced="partly",
    checks=(depth, variances, forms, trained),
    figure=figure,
)
