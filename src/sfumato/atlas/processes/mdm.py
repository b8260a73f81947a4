"""074: multivariate diffusions, their matrices learned. Left out: networks, images."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_most, close, control
from sfumato.exact import Gaussian, PushedDenoiser, SpectralCovariance, prior_gap
from sfumato.learn import FitSettings, LearnedMDM, descend, path_bound_loss
from sfumato.metrics import gaussian_w2
from sfumato.noise import Clock, ClockSDE, LinearSDE, alda, integrated_transition, malda, mdm
from sfumato.sample.linear.linear_program import LinearSolver, run_linear
from sfumato.sample.linear.linear_solvers import LinearDDIM, LinearEuler
from sfumato.sample.times.schedules import uniform_time
from sfumato.seeds import noise

F64 = torch.float64
LAW = Gaussian(torch.tensor([1.5], dtype=F64), SpectralCovariance.isotropic(1, 4.0))
ENTROPY = 0.5 * math.log(2 * math.pi * math.e * 4)
CLOCK = (0.1, 4.9)


def _table(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=F64)


VP = mdm(_table((0.5,)), _table((0.0,)), None, *CLOCK)
CLD = mdm(_table((0.0, 0.0), (0.0, 2.0)), _table((0.0, -1.0), (1.0, 0.0)), None, *CLOCK)
ALDA, MALDA = alda(1.0, 1.0, 1.0, *CLOCK), malda(3, 1.0, *CLOCK)


def _members() -> list[ClockSDE]:
    generator = torch.Generator().manual_seed(0)
    members = [VP, CLD, ALDA, MALDA]
    for k in (2, 3, 2, 3, 2):
        a, q = torch.randn(2, k, k, dtype=F64, generator=generator)
        members.append(mdm(a @ a.T / k, q - q.T, 0.5 + torch.arange(k, dtype=F64), *CLOCK))
    return members


def _stationary_gap(process: ClockSDE, s: float, t: float) -> float:
    """The largest distance of the covariance from `S - Phi S Phi^T`."""
    law, own = process.transition(s, t), process.prior().covariance
    return float((own - law.phi @ own @ law.phi.T - law.covariance).coef.abs().max())


def transitions() -> Iterator[Check]:
    """Van Loan's exponential, the stationary form and the differential equations, of nine members."""
    gaps, oracle = [], []
    for process in _members():
        gaps.append(_stationary_gap(process, 0.2, 0.7))
        law, known = process.transition(0.2, 0.7), integrated_transition(process, 0.2, 0.7, rtol=1e-11)
        differences = [getattr(law, name) - getattr(known, name) for name in ("phi", "covariance")]
        oracle.append(max(float(d.coef.abs().max()) for d in differences))
    yield at_most("exponential against stationary form", max(gaps), 1e-10)
    yield at_most("exponential against differential equation", max(oracle), 1e-10)
    free = ClockSDE(-_table((0.0, -1.0), (0.4, 2.0))[None], _table((0.0, 0.0), (0.0, 4.0))[None], Clock(*CLOCK), prior=_unit(2))
    yield control(at_most("W not antisymmetric: exponential against stationary form", _stationary_gap(free, 0.2, 0.7), 1e-10))


def _unit(k: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(1, k, 0, dtype=F64), torch.eye(k, dtype=F64)[None]


def _bound_gap(process: LinearSDE, n: int, known: float) -> float:
    """The mean of the bound on `log p` with the exact score, less a known number."""
    mean, spread = float(LAW.mean), 4.0

    def score(x: Tensor, t: Tensor) -> Tensor:
        law = process.marginal(t)
        return -(spread * (law.phi @ law.phi.T) + law.covariance).solve(x - law.mean(torch.full((len(x), 1), mean, dtype=F64)))

    with torch.no_grad():
        return -float(path_bound_loss(process, score, LAW.sample(n, 1), torch.Generator().manual_seed(0)).mean()) - known


def bound() -> Iterator[Check]:
    """`E log p >= -H - KL(x_1 || prior)`, with equality for the exact score."""
    for name, process, n in (("VP", VP, 100_000), ("CLD", CLD, 100_000)):
        known = -ENTROPY - float(prior_gap(LAW, process))
        yield close(f"{name}: the automatic bound against {known:.3f} nats, difference", _bound_gap(process, n, known), 0, absolute=0.03)
    drift = _table((0.0, -1.0), (0.4, 2.0))
    start = torch.diag(torch.tensor([0.0, 0.01], dtype=F64))[None]
    free = ClockSDE(-drift[None], _table((0.0, 0.0), (0.0, 4.0))[None], Clock(*CLOCK), start=start, prior=_unit(2))
    known = -ENTROPY - float(prior_gap(LAW, CLD))
    yield control(close("W not antisymmetric: the bound against the same number", _bound_gap(free, 20_000, known), 0, absolute=0.03))


@functools.cache
def _learned(channels: int, size: float, own_clock: bool = False) -> LearnedMDM:
    model = LearnedMDM(channels, size=size, first=CLOCK[0], last=CLOCK[1], turn=CLOCK[::-1] if own_clock else None)
    settings = FitSettings(40 if own_clock else 120, learning_rate=0.1, warmup=0, ema_decay=0.8)
    descend(model, lambda _: prior_gap(LAW, model.process()), settings)
    return model


def _gap(process: LinearSDE) -> float:
    return float(prior_gap(LAW, process).detach())


def learning() -> Iterator[Check]:
    """The prior's divergence, of fixed processes and of those learned by its descent at the same norm of `(D, W)`."""
    for name, process, expected in (("VP", VP, 0.105), ("CLD", CLD, 0.161), ("ALDA", ALDA, 0.682)):
        yield close(f"{name}: KL(x_1 || prior)", _gap(process), expected, absolute=0.002)
    best = min(_gap(p) for p in (VP, CLD, ALDA, MALDA))
    for channels, size in ((2, math.sqrt(6)), (3, math.sqrt(12))):
        gap = _gap(_learned(channels, size).process())
        yield at_most(f"{channels} channels learned: KL over the best fixed one's", gap / best, 0.1)
    yield at_most("2 channels, W on a clock of its own, on the grid: the same", _gap(_learned(2, math.sqrt(6), True).process()) / best, 0.1)
    yield control(at_most("2 channels not trained: the same", _gap(LearnedMDM(2, size=math.sqrt(6), last=4.9).process()) / best, 0.1))


def _end(process: LinearSDE, solver: LinearSolver, power: float = 2.0, steps: int = 40) -> float:
    """The 2-Wasserstein distance of what samples say of the data from the data's law, both as Gaussians of their moments."""
    belief, last = PushedDenoiser(LAW, process), 1e-3
    draws = noise(0, 8000, process.state_shape(torch.zeros(1, 1))[1:], dtype=F64)
    program = solver.compile(process, uniform_time(steps, 1.0, last, power))
    x = run_linear(program, belief.denoise, process.prior_sample(draws.draw(0)), draws)
    found = belief.denoise(x, last)
    return gaussian_w2(found.mean(0), found.var().reshape(1, 1), LAW.mean, LAW.covariance.dense())


def sampling() -> Iterator[Check]:
    """Samplers of the learned process with the exact score, 40 steps."""
    learned = _learned(2, math.sqrt(6))
    with torch.no_grad():
        process = learned.process()
    yield at_most("flow, generalised DDIM: W2 to the data (standard deviation 2)", _end(process, LinearDDIM()), 0.1)
    coarse, fine = (_end(process, LinearEuler(), steps=n) for n in (40, 80))
    yield at_most("flow, Euler, of first order: W2 at 80 steps over that at 40", fine / coarse, 0.65)
    yield at_most("reverse SDE, Euler: W2 to the data", _end(process, LinearEuler(1.0)), 0.25)
    yield control(at_most("reverse SDE, Euler, 4 steps: the same", _end(process, LinearEuler(1.0), steps=4), 0.25))


@functools.cache
def _learned_gap() -> float:
    return _gap(_learned(2, math.sqrt(6)).process())


def figure(ax: Any) -> None:
    """How far noised data end from the prior, by how much noise is added, for three fixed processes, and for one of two channels whose
    matrices are learned at the same size (the point): it is nearest.
    """
    ends = [1 + 0.4 * i for i in range(21)]
    matrices = {"CLD": (_table((0.0, 0.0), (0.0, 2.0)), _table((0.0, -1.0), (1.0, 0.0))), "VP": (_table((0.5,)), _table((0.0,)))}
    lines = {name: [_gap(mdm(*pair, None, 0.1, last)) for last in ends] for name, pair in matrices.items()}
    lines["ALDA"] = [_gap(alda(1.0, 1.0, 1.0, 0.1, last)) for last in ends]
    for i, (name, gaps) in enumerate(lines.items()):
        ax.plot(ends, gaps, color=f"C{i}", label=name)
    ax.plot([CLOCK[1]], [_learned_gap()], "o", color="C0", label="2 channels, learned")
    ax.set(yscale="log", xlabel="last noise rate", ylabel="divergence from the prior, nats")
    ax.legend()


ROW = Row(
    id="074",
    slug="mdm",
    title="Where to Diffuse, How to Diffuse, and How to Get Back: Automated Learning for Multivariate Diffusions",
    authors="Raghav Singhal, Mark Goldstein, Rajesh Ranganath",
    year=2023,
    arxiv="2302.07261",
    claim="Transitions and likelihood bounds of any linear SDE follow from its matrices alone, so the matrices can be learned with the "
    "stationary law fixed; learned ones end nearer the prior than every fixed one. With the exact score this is all there is to gain in "
    "the bound; that learned processes suit networks better is not measured here.",
    reproduced="partly",
    checks=(transitions, bound, learning, sampling),
    figure=figure,
)
