"""061: scores of nonlinear noising from short increments, against a Fokker-Planck oracle."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control, within
from sfumato.exact import Line, LineDensity
from sfumato.exact.diffusions.reversible_line import ReversibleLine
from sfumato.learn import FitSettings, descend
from sfumato.learn.losses.local_matching import PathCache, local_loss, simulate_paths
from sfumato.noise.general.nonlinear import NonlinearSDE

_LINE, _END = Line(-8.0, 8.0, 801), 0.6
_FIGURES = {0.6: (0.910, 0.867), 0.3: (0.090, 0.148), 0.1: (0.0052, 0.0113), 0.03: (3e-4, 7e-4)}
"""Fisher errors of the card, by the increment's length, of orders 1 and 0."""


def _prior_score(x: Tensor) -> Tensor:
    """Of `N(-3, 0.64) / 2 + N(3, 0.64) / 2`."""
    return (3 * torch.tanh(3 * x / 0.64) - x) / 0.64


def _sde(growth: float = 3.0) -> NonlinearSDE:
    return NonlinearSDE(lambda x, t: _prior_score(x) / 2, 1.0, separable=True, growth=growth)


@functools.cache
def _oracle() -> ReversibleLine:
    return ReversibleLine(_LINE, lambda x: torch.logaddexp(-((x - 3) ** 2) / 1.28, -((x + 3) ** 2) / 1.28))


@functools.cache
def _law(t: float) -> LineDensity:
    return _oracle().density(LineDensity(_LINE, torch.exp(-((_LINE.centres - 0.3) ** 2) / 0.2)), t)


def _mean_square(values: Tensor, t: float) -> float:
    """Over the law at `t`, where its score is known."""
    return float((_law(t).values * values**2).nansum()) * _LINE.width


def _fisher(h: float, order: int) -> tuple[float, float]:
    """The error of the score that the increments' regression tends to, and the variance of its target; no increment grows too far."""
    start, x = _law(_END - h), _LINE.centres
    live = start.values > 1e-13
    y, one = x[live, None], torch.ones(int(live.sum()), dtype=torch.float64)
    increment = _sde(20.0).increment(y, 0 * one, h * one, order)
    away, variance = x[:, None] - increment.mean[:, 0], increment.root[:, 0] ** 2
    weight = torch.exp(-(away**2) / (2 * variance)) / variance.sqrt() * start.values[live]
    score = -(weight * away / variance).sum(1) / weight.sum(1)
    target = float((start.values[live] / variance).sum()) * _LINE.width
    return _mean_square(score - _oracle().score(_law(_END)), _END), target - _mean_square(score, _END)


def increments() -> Iterator[Check]:
    """Bias and variance of the target by the increment's length, by quadrature: no network."""
    norm = _mean_square(_oracle().score(_law(_END)), _END)
    yield close("mean square of the oracle's score", norm, 2.134, absolute=2e-3)
    found = {h: [_fisher(h, order) for order in (1, 0)] for h in (*_FIGURES, 0.01)}
    for h, figures in _FIGURES.items():
        for order, figure in zip((1, 0), figures, strict=True):
            # the last length's figures have one digit
            yield close(f"Fisher error, h = {h:g}, order {order}", found[h][1 - order][0], figure, relative=0.02 if h > 0.05 else 0.5)
    yield at_most("relative Fisher error, h = 0.1, order 1", found[0.1][0][0] / norm, 0.005)
    yield at_least("order 0 over order 1, h = 0.1", found[0.1][1][0] / found[0.1][0][0], 1.7)
    for long, short in ((0.3, 0.1), (0.1, 0.03)):
        slope = math.log(found[long][0][0] / found[short][0][0]) / math.log(long / short)
        yield at_least(f"order of the error, h = {long:g} to {short:g}", slope, 1.8)
    for h in (0.1, 0.03, 0.01):
        yield within(f"target's variance times h = {h:g}", found[h][0][1] * h, 0.8, 1.2)
    yield at_least("relative Fisher error of one linearisation from the data", found[_END][0][0] / norm, 0.3)
    yield control(at_most("the same, h = t for h = 0.1", found[_END][0][0] / norm, 0.005))


class _Score(nn.Module):
    """The prior's score and what a small perceptron of `(x, t)` adds to it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = (nn.Linear(3, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1))
            self.net = nn.Sequential(*layers).double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        clock = t[:, None]
        added: Tensor = self.net(torch.cat([x, clock, torch.log(clock + 0.02)], 1)) / (clock + 0.1)
        return _prior_score(x) + added


def _paths() -> PathCache:
    generator = torch.Generator().manual_seed(0)
    x0 = 0.3 + math.sqrt(0.1) * torch.randn(8000, 1, generator=generator, dtype=torch.float64)
    return simulate_paths(_sde(), x0, torch.linspace(0, _END, 61, dtype=torch.float64).tolist(), generator)


def _loss(score: _Score, paths: PathCache, h: float, generator: torch.Generator, controlled: bool) -> Tensor:
    x, s, length = paths.pairs(512, h, generator)
    increment, t = _sde().increment(x, s, length), s + length
    eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return local_loss(score, increment, eps, t, score(increment.mean, t) if controlled else None)


def _error(score: _Score) -> float:
    with torch.no_grad():
        said = score(_LINE.centres[:, None], torch.full((_LINE.cells,), _END, dtype=torch.float64))[:, 0]
    oracle = _oracle().score(_law(_END))
    return _mean_square(said - oracle, _END) / _mean_square(oracle, _END)


def trained() -> Iterator[Check]:
    """A perceptron, increments of 0.03; then the reverse SDE from the last states."""
    paths, score = _paths(), _Score()
    untrained = _error(score)
    settings = FitSettings(500, learning_rate=2e-2, warmup=10, ema_decay=0.98)
    descend(score, lambda g: _loss(score, paths, 0.03, g, True).mean(), settings)
    yield at_most("relative Fisher error, trained", _error(score), 0.1)
    yield control(at_most("the same, the untrained perceptron", untrained, 0.1))
    generator, x, n = torch.Generator().manual_seed(1), paths.states[-1], 300
    with torch.no_grad():
        spread = [float(_loss(score, paths, 0.01, torch.Generator().manual_seed(2), c).std()) for c in (True, False)]
        for k in range(n):
            t = torch.full((len(x),), _END * (1 - k / n), dtype=torch.float64)
            push = score(x, t) - _sde().drift(x, t)
            x = x + _END / n * push + math.sqrt(_END / n) * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    yield at_most("spread of the loss with a control over that without, h = 0.01", spread[0] / spread[1], 0.5)
    yield at_most("distance of the sampled mean from the data's, in standard deviations", abs(float(x.mean()) - 0.3) / math.sqrt(0.1), 0.05)
    yield close("sampled variance over the data's", float(x.var()) / 0.1, 1, absolute=0.05)


@functools.cache
def _by_length() -> tuple[list[float], dict[str, list[float]]]:
    lengths = [0.03, 0.06, 0.1, 0.2, 0.4]
    first, none = ([_fisher(h, order) for h in lengths] for order in (1, 0))
    return lengths, {
        "error, increments of order 1": [bias for bias, _ in first],
        "error, increments of order 0": [bias for bias, _ in none],
        "variance of the target": [variance for _, variance in first],
    }


def figure(ax: Any) -> None:
    """What short increments cost, by their length: the error of the score that they teach falls with the square of the length, less if
    the drift is followed to first order, and the variance of what is regressed on grows as one over it.
    """
    lengths, found = _by_length()
    for i, (name, values) in enumerate(found.items()):
        ax.plot(lengths, values, "o-", color=f"C{i}", label=name)
    ax.set(xscale="log", yscale="log", xlabel="length of the increment", ylabel="mean square")
    ax.legend()


ROW = Row(
    id="061",
    slug="local-dsm",
    title="What's the score? Automated Denoising Score Matching for Nonlinear Diffusions",
    authors="Raghav Singhal, Mark Goldstein, Rajesh Ranganath",
    year=2024,
    arxiv="2407.07998",
    claim="Short increments of any noising are Gaussian enough to learn its score from: the bias falls with the square of their length and "
    "the target's variance grows with its inverse (one dimension; the advantage of non-Gaussian priors on images not measured).",
    reproduced="partly",
    checks=(increments, trained),
    figure=figure,
)
