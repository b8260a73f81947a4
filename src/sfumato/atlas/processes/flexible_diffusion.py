"""004: a metric and a symplectic form that keep the prior. Left out: networks, images."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control
from sfumato.exact import Gaussian, SpectralCovariance, prior_gap
from sfumato.learn import FitSettings, LearnedFlexible, descend, path_bound_loss
from sfumato.noise import Clock, CompleteRecipe, LinearSDE, flexible
from sfumato.seeds import noise

F64 = torch.float64
HORIZON = 3.0


def _flexible(metric: Tensor, rotation: Tensor) -> LinearSDE:
    """With `B = HORIZON` at `t = 1`."""
    return flexible(metric, rotation, None, HORIZON, HORIZON)


def _diagonal(*values: float) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=F64))


def _plane(weight: float) -> Tensor:
    """A rotation of the first and the last of three coordinates into each other."""
    return torch.tensor([[0, 0, weight], [0, 0, 0], [-weight, 0, 0]], dtype=F64)


LAW = Gaussian(torch.tensor([0.0, 3.0, 0.0], dtype=F64), SpectralCovariance.from_dense(_diagonal(16.0, 1.0, 0.05)))
NORMAL = Gaussian(torch.zeros(3, dtype=F64), SpectralCovariance.isotropic(3, 1.0))


def _unrest(metric: Tensor, rotation: Tensor, drift: Tensor | None = None) -> float:
    """`|P P^T + S - I|` of a transition, or with the `P` of another drift."""
    law = _flexible(metric, rotation).transition(0.0, 0.4)
    phi = law.phi.matrix((4,)) if drift is None else torch.linalg.matrix_exp(-0.2 * HORIZON * drift)
    return float((phi @ phi.T + law.covariance.matrix((4,)) - torch.eye(4, dtype=F64)).abs().max())


def _euler_gap(metric: Tensor, rotation: Tensor, steps: int) -> float:
    """Mean map and covariance of so many Euler steps against the transition's."""
    eye, phi, spread = torch.eye(4, dtype=F64), torch.eye(4, dtype=F64), torch.zeros(4, 4, dtype=F64)
    step = eye - HORIZON / (2 * steps) * (metric + rotation)
    for _ in range(steps):
        phi, spread = step @ phi, step @ spread @ step.T + HORIZON / steps * metric
    law = _flexible(metric, rotation).transition(0.0, 1.0)
    return float(max((phi - law.phi.matrix((4,))).abs().max(), (spread - law.covariance.matrix((4,))).abs().max()))


def stationarity() -> Iterator[Check]:
    """`N(0, I)` stays, for 20 random pairs; Euler's moments converge to the transition's."""
    generator, pairs = torch.Generator().manual_seed(0), []
    for _ in range(20):
        root, q = torch.randn(2, 4, 4, dtype=F64, generator=generator)
        pairs.append((root @ root.T / 4 + 0.05 * torch.eye(4, dtype=F64), q - q.T))
    yield at_most("|P P^T + S - I|, 20 random pairs", max(_unrest(r, w) for r, w in pairs), 1e-12)
    metric, rotation = pairs[0]
    yield control(at_most("W made symmetric in the drift: the same", _unrest(metric, rotation, metric + rotation.abs()), 1e-12))
    gap = {n: _euler_gap(metric, rotation, n) for n in (400, 800)}
    yield at_most("moments of 800 Euler steps against the transition's", gap[800], 0.02)
    yield close("400 over 800 steps, first order", gap[400] / gap[800], 2.0, absolute=0.1)


@functools.cache
def _learned(normal: bool, kind: str = "diagonal") -> float:
    """`KL(x_1 || prior)` after descent in what is learned."""
    law, model = NORMAL if normal else LAW, LearnedFlexible((3,), "diagonal" if kind == "diagonal" else "full", first=HORIZON, last=HORIZON)
    descend(model, lambda _: prior_gap(law, model.process()), FitSettings(120, learning_rate=0.05, warmup=0, ema_decay=0.8))
    with torch.no_grad():
        return float(prior_gap(law, model.process()))


def metric() -> Iterator[Check]:
    """What a learned metric gains for unequal variances (16, 1, 0.05) and mean (0, 3, 0), with its trace held."""
    plain = float(prior_gap(LAW, _flexible(torch.eye(3, dtype=F64), _plane(0.0))))
    yield close("R = I: KL(x_1 || prior)", plain, 0.319, absolute=0.001)
    yield at_most("diagonal R learned: the same", _learned(False), 0.14)
    own = float(prior_gap(NORMAL, _flexible(torch.eye(3, dtype=F64), _plane(0.0))))
    yield control(at_least("standard normal data: what is gained", own - _learned(True), 1e-6))
    yield at_most("R and W learned: KL(x_1 || prior)", _learned(False, "full"), 0.14)


def _slowest(metric: Tensor, rotation: Tensor) -> float:
    return float(torch.linalg.eigvals(metric + rotation).real.min())


def rotation() -> Iterator[Check]:
    """What a rotation gains: it lets slow coordinates forget with the fast ones, if the noise is uneven."""
    uneven, eye = _diagonal(0.1, 1.0, 1.9), torch.eye(3, dtype=F64)
    yield close("R = diag(0.1, 1, 1.9), W = 0: slowest rate", _slowest(uneven, _plane(0.0)), 0.1, absolute=1e-9)
    yield at_least("W between slow and fast coordinate, weight 3: slowest rate", _slowest(uneven, _plane(3.0)), 0.9)
    aside = torch.tensor([[0, 0, 0], [0, 0, 3.0], [0, -3.0, 0]], dtype=F64)
    yield control(at_least("W between the other two: slowest rate", _slowest(uneven, aside), 0.9))
    gap = {w: float(prior_gap(LAW, _flexible(uneven, _plane(w)))) for w in (0.0, 10.0)}
    yield close("W = 0: KL(x_1 || prior)", gap[0.0], 4.53, absolute=0.01)
    yield at_most("weight 10: the same", gap[10.0], 0.31)
    still, turned = (float(prior_gap(LAW, _flexible(eye, _plane(w)))) for w in (0.0, 3.0))
    yield at_most("R = I: what a rotation changes in KL(x_1 || prior)", abs(still - turned), 1e-12)
    yield control(at_most("uneven R: the same", abs(gap[0.0] - gap[10.0]), 1e-12))


def bound() -> Iterator[Check]:
    """The path bound with the exact score: minus the entropy and the prior's divergence."""
    process, covariance = _flexible(_diagonal(1.19, 1.42, 0.39), _plane(2.0)), LAW.covariance.dense()

    def score(x: Tensor, t: Tensor) -> Tensor:
        law = process.marginal(t)
        spread = law.phi.map(lambda a: a @ covariance @ a.mT) + law.covariance
        return -spread.solve(x - law.mean(LAW.mean.expand(len(x), 3)))

    with torch.no_grad():
        found = path_bound_loss(process, score, LAW.sample(20_000, 1), torch.Generator().manual_seed(0))
    known = 0.5 * float(torch.logdet(covariance)) + 1.5 * math.log(2 * math.pi * math.e) + float(prior_gap(LAW, process))
    error = float(found.std()) / math.sqrt(len(found))
    yield at_most("bound against closed form, in standard errors", abs(float(found.mean()) - known) / error, 3.0)
    yield at_most("its standard error, nats", error, 0.05)


def _bumpy(x: Tensor) -> Tensor:
    return (1 + 0.8 * torch.sin(2 * x[:, :1, None])) * torch.eye(2, dtype=x.dtype)


def _swirl(x: Tensor) -> Tensor:
    return 2 * torch.cos(x[:, 1:, None]) * torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=x.dtype)


def places() -> Iterator[Check]:
    """Fields that change from place to place: 4000 particles of `N(0, I)` after 100 Euler steps, `B = 3`."""
    draws, clock = noise(0, 4000, (2,), dtype=F64), Clock(HORIZON, HORIZON)
    times = torch.linspace(0, 1, 101, dtype=F64).tolist()

    def moved(process: CompleteRecipe) -> float:
        x = process.simulate(draws.draw(0), times, draws)
        return max(float(x.mean(0).abs().max()), float((x.T.cov() - torch.eye(2, dtype=F64)).abs().max()))

    yield at_most("mean and covariance after, distance from (0, I)", moved(CompleteRecipe(_bumpy, _swirl, clock)), 0.1)
    # a field that hides its slope: the divergence is taken for 0
    blind = CompleteRecipe(lambda x: _bumpy(x.detach()), lambda x: _swirl(x.detach()), clock)
    yield control(at_most("without the divergence of the fields: the same", moved(blind), 0.1))


_WEIGHTS = [0.25 * i for i in range(41)]


@functools.cache
def _by_weight() -> dict[str, list[float]]:
    """The prior's divergence by the weight of a rotation."""
    uneven, eye = _diagonal(0.1, 1.0, 1.9), torch.eye(3, dtype=F64)
    aside = torch.tensor([[0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]], dtype=F64)
    kinds = {"slow with fast": (uneven, _plane(1.0)), "other two": (uneven, aside), "even metric": (eye, _plane(1.0))}
    return {name: [float(prior_gap(LAW, _flexible(r, k * w))) for k in _WEIGHTS] for name, (r, w) in kinds.items()}


def figure(ax: Any) -> None:
    """How far the noised data end from the prior, by the weight of a rotation. It helps where the metric is uneven and slow coordinates are
    turned into fast ones, hardly if it turns the other two, and not at all with an even metric.
    """
    for name, colour in (("slow with fast", "C0"), ("other two", "C1"), ("even metric", "C2")):
        ax.plot(_WEIGHTS, _by_weight()[name], color=colour, label=name if name == "even metric" else f"uneven metric, {name}")
    ax.set(yscale="log", xlabel="weight of the rotation", ylabel="divergence from the prior, nats")
    ax.legend()


ROW = Row(
    id="004",
    slug="flexible-diffusion",
    title="A Flexible Diffusion Model",
    authors="Weitao Du, He Zhang, Tao Yang, Yuanqi Du",
    year=2022,
    arxiv="2206.10365",
    claim="A metric and a symplectic form may be learned without moving the prior. A metric shaped to the data ends nearer the prior; a "
    "rotation helps only where the metric is uneven, and only one that turns slow coordinates into fast ones. Gains with networks are not "
    "measured here.",
    reproduced="partly",
    checks=(stationarity, metric, rotation, bound, places),
    figure=figure,
)
