"""042: jump back up by a block of noise, come down again, and old errors are forgotten."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_most, close, control
from sfumato.atlas.solvers.worlds import g4
from sfumato.denoiser import Denoiser
from sfumato.metrics import energy_distance
from sfumato.noise import EDM, Time, over_events
from sfumato.sample import Heun, karras
from sfumato.sample.steps.restart import Churned, Interval, Restart, contraction
from sfumato.sample.steps.step import Stream, TableStep, walk
from sfumato.seeds import noise

PROCESS = EDM()
WORLD = g4()
CHAINS = 2000


class _Misled(Denoiser):
    """The exact belief, shifted by (1.2, 0.6) where the noise-to-signal ratio is above 2; counts what it is asked."""

    def __init__(self) -> None:
        self.inner, self.process, self.asked = WORLD.denoiser(PROCESS), PROCESS, 0

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        self.asked += 1
        shift = x.new_tensor([1.2, 0.6])
        return self.inner.denoise(x, t) + shift * over_events((PROCESS.ratio(t) > 2).to(x.dtype), x)


def coupled() -> Iterator[Check]:
    """Check 1, one part: two chains under the same noise come together, and not by the loop's flow alone."""
    low = 0.1
    x = PROCESS.sample(WORLD.sample(CHAINS, 13), float(PROCESS.time_of_ratio(low)), noise(2, CHAINS, (2,), dtype=torch.float64).draw(2))
    for high in (2.0, 1.05 * low):
        apart = contraction(WORLD.denoiser(PROCESS), PROCESS, x / 2 + 1.5, x, Interval(low, high, 12, 3))
        found = at_most(f"distance of two chains after 3 loops up to {high:g} over before", apart[-1] / apart[0], 0.4)
        yield found if high > 1 else control(found)


def contractions() -> Iterator[Check]:
    """Check 1: loops from a badly wrong law, with the exact score."""
    low = 0.1
    t = float(PROCESS.time_of_ratio(low))
    draws = noise(2, CHAINS, (2,), dtype=torch.float64)
    truth, own = (PROCESS.sample(WORLD.sample(CHAINS, seed), t, draws.draw(j)) for seed, j in ((11, 1), (13, 2)))
    wrong = own / 2 + 1.5
    belief = WORLD.denoiser(PROCESS)

    def distances(high: float, noise_factor: float = 1.0) -> list[float]:
        down = karras(PROCESS, 12, ratio_max=high, ratio_min=low)[:-1]
        loops = Restart((), noise=noise_factor).loops(belief, PROCESS, wrong, down, 3, Stream.of(3, wrong))
        return [energy_distance(x, truth).value for x in (wrong, *loops)]

    for high, limit in ((1.0, 0.7), (2.0, 0.4)):
        found = distances(high)
        worst = max(b / a for a, b in pairwise(found))
        shown = ", ".join(f"{v:.3f}" for v in found)
        yield at_most(f"largest ratio of neighbouring energy distances with t_max {high:g} ({shown})", worst, limit)
    still = distances(2.0, 0.0)
    yield control(at_most("the same without noise", max(b / a for a, b in pairwise(still)), 0.4))


def benefit() -> Iterator[Check]:
    """Check 2: a score that is wrong at high noise only; what the flow carries along, restarts forget."""
    truth = WORLD.sample(CHAINS, 15)
    x = PROCESS.prior_sample(noise(4, CHAINS, (2,), dtype=torch.float64).draw(0))

    def flow(nodes: int) -> float:
        return energy_distance(walk(Heun(), _Misled(), PROCESS, x, karras(PROCESS, nodes), Stream.of(1, x)), truth).value

    def restarted(loops: int, factor: float = 1.0) -> tuple[_Misled, float]:
        belief = _Misled()
        sampler = Restart((Interval(0.1, 2.0, 5, loops),), noise=factor)
        return belief, energy_distance(sampler.sample(belief, PROCESS, x, karras(PROCESS, 18), Stream.of(1, x)), truth).value

    best = flow(80)
    belief, distance = restarted(4)
    yield close("evaluations of 18 points and 4 restarts of 5 points", belief.asked, 67, absolute=0.5)
    yield at_most(f"energy distance with 4 restarts, over the flow's at 159 evaluations ({best:.3f})", distance / best, 0.1)
    yield control(at_most("the same without noise in the restarts", restarted(4, 0.0)[1] / best, 0.1))
    churned = Churned(TableStep(Heun()), min(20 / 60, 2**0.5 - 1))
    by_churn = energy_distance(walk(churned, _Misled(), PROCESS, x, karras(PROCESS, 60), Stream.of(1, x)), truth).value
    yield at_most("energy distance with 4 restarts, over churn's at 119 evaluations", distance / by_churn, 0.5)


@functools.cache
def _apart(high: float) -> list[float]:
    low, n = 0.1, 400
    x = PROCESS.sample(WORLD.sample(n, 13), float(PROCESS.time_of_ratio(low)), noise(2, n, (2,), dtype=torch.float64).draw(2))
    return contraction(WORLD.denoiser(PROCESS), PROCESS, x / 2 + 1.5, x, Interval(low, high, 8, 5))


def figure(ax: Any) -> None:
    """Two batches of chains under the same noise, one of them started wrong: loops up to a noise level of the data's size bring them
    together, loops that add little noise leave the error where it is.
    """
    for high, colour in ((2.0, "C0"), (0.7, "C2"), (0.105, "C1")):
        apart = _apart(high)
        ax.semilogy(range(len(apart)), [a / apart[0] for a in apart], "o-", color=colour, markersize=4, label=f"loops up to {high:g}")
    ax.set_xlabel("restart loops")
    ax.set_ylabel("distance of the chains / at first")
    ax.legend()


ROW = Row(
    id="042",
    slug="restart",
    title="Restart Sampling for Improving Generative Processes",
    authors="Yilun Xu, Mingyang Deng, Xiang Cheng, Yonglong Tian, Ziming Liu, Tommi Jaakkola",
    year=2023,
    arxiv="2306.14878",
    claim=(
        "Large blocks of forward noise inside chosen intervals, each followed by the flow, contract the error that a sampler has gathered "
        "at a fraction of the evaluations of small noise at every step."
    ),
    reproduced="yes",
    checks=(coupled, contractions, benefit),
    figure=figure,
)
