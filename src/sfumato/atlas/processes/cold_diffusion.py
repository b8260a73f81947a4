"""070: cold diffusion. Left out: the photograph sets and their FIDs."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control, holds, within
from sfumato.data import digits
from sfumato.exact import fit_mixture
from sfumato.learn import RidgeRestorer
from sfumato.noise.general.degradation import Blend, Blur, Degradation
from sfumato.sample.steps.cold import Update, cold_sample, improved, naive
from sfumato.seeds import noise

F64 = torch.float64
_LEVELS = 20


def _draw(n: int, seed: int) -> Tensor:
    return noise(seed, n, (1, 8, 8), dtype=F64).draw(0)


def cancellation() -> Iterable[Check]:
    """Check 1: `D = x + s e`; a restorer that always says the same costs the improved update nothing."""
    drift = Blend(_draw(1, 1)[0], (1,) * (_LEVELS + 1), tuple(s / _LEVELS for s in range(_LEVELS + 1)))
    x, said = _draw(50, 2), _draw(1, 3)

    def ends(update: Update) -> float:
        out = cold_sample(lambda y, s: said.expand_as(y), drift, drift(x, _LEVELS), update=update)
        return float((out - x).square().mean().sqrt())

    yield at_most("improved update, constant restorer: error (card: 1e-15)", ends(improved), 1e-12)
    yield control(at_most("naive update, constant restorer: error (card: 1.3)", ends(naive), 1e-12))


@functools.cache
def _world() -> tuple[Blur, RidgeRestorer, Tensor]:
    """Twenty levels of blur, ridge restorers of the training digits, the test digits."""
    data, blur = digits(), Blur(tuple(6 * s / _LEVELS for s in range(_LEVELS + 1)))
    return blur, RidgeRestorer(blur, data.train.to(F64)), data.test.to(F64)


def _mismatched(degrade: Degradation, x: Tensor, restored: Tensor, level: int) -> Tensor:
    # goes down two levels a step where the state goes down one
    return x - degrade(restored, level) + degrade(restored, max(0, level - 2))


def _error(update: Update, level: int, bias: Tensor | float = 0.0) -> float:
    blur, restorer, clean = _world()
    out = cold_sample(lambda x, s: restorer(x, s) + bias, blur, blur(clean, level), level, update)
    return float((out - clean).square().mean().sqrt())


def restoration() -> Iterable[Check]:
    """Check 2: blurred digits restored from level 8 and 20; improved, at once, naive."""
    blur, restorer, clean = _world()
    for level, card in ((8, (0.259, 0.284, 0.319)), (20, (0.357, 0.376, 0.419))):
        direct = float((restorer(blur(clean, level), level) - clean).square().mean().sqrt())
        better, worse = _error(improved, level), _error(naive, level)
        yield at_most(f"level {level}: improved update's error over the direct one's (card: {card[0] / card[1]:.2f})", better / direct, 1.0)
        yield at_least(f"level {level}: naive update's error over the direct one's (card: {card[2] / card[1]:.2f})", worse / direct, 1.01)
        yield close(f"level {level}: improved update's RMSE", better, {8: 0.291, 20: 0.380}[level], absolute=0.005)
        off = _error(_mismatched, level) / direct
        yield control(at_most(f"level {level}, two levels of D a step: error over the direct one's", off, 1.0))


def robustness() -> Iterable[Check]:
    """Check 3: the restorers get a fixed bias of size 0.1."""
    bias = 0.1 * _draw(1, 5)
    for level, card in ((8, 0.54), (20, 0.39)):
        ratio = _error(improved, level, bias) / _error(naive, level, bias)
        yield at_most(f"level {level}, biased restorer: improved over naive (card: {card})", ratio, 0.65)
        yield control(at_most(f"level {level}, no bias: improved over naive", _error(improved, level) / _error(naive, level), 0.65))


def generation() -> Iterable[Check]:
    """Check 4: starts from a mixture fitted to the most blurred digits, with noise of 0.002."""
    blur, restorer, _ = _world()
    clean = digits().train.to(F64)
    starts = fit_mixture(blur(clean, _LEVELS), 10, floor=1e-6).sample(2000, 1) + 0.002 * _draw(2000, 3)

    def shares(update: Update, x: Tensor) -> Tensor:
        out = cold_sample(restorer, blur, x, update=update).flatten(1)
        top = [torch.linalg.eigvalsh(torch.cov(y.T)).flip(0)[:5] for y in (out, clean.flatten(1))]
        return top[0] / top[1]

    new, old, true = shares(improved, starts), shares(naive, starts), shares(improved, blur(clean, _LEVELS))
    shown = ", ".join(f"{v:.2f}" for v in new)
    yield holds(
        "five leading variances of the generated digits, over the data's", shown, "0.8 to 1.2 on the card", bool((new > 0.45).all())
    )
    yield within("least of them over that of digits restored from their own blur", float((new / true).min()), 0.9, 1.1)
    yield at_least("fifth variance, improved over naive update", float(new[4] / old[4]), 1.5)
    still = shares(improved, blur(clean.mean(0, keepdim=True), _LEVELS).expand(100, 1, 8, 8))
    yield control(within("one start for all: least variance over that of restored digits", float((still / true).min()), 0.9, 1.1))


@functools.cache
def _by_level() -> tuple[range, dict[str, list[float]]]:
    blur, restorer, clean = _world()
    levels = range(2, _LEVELS + 1, 3)
    direct = [float((restorer(blur(clean, s), s) - clean).square().mean().sqrt()) for s in levels]
    return levels, {
        "difference of degradations": [_error(improved, s) for s in levels],
        "degrading anew": [_error(naive, s) for s in levels],
        "restored at once": direct,
    }


def figure(ax: Any) -> None:
    """The error of restoring blurred digits by how blurred they are: stepping back by the difference of two degradations is best, degrading
    anew in each step is worse than restoring at once.
    """
    levels, errors = _by_level()
    for i, (name, values) in enumerate(errors.items()):
        ax.plot(levels, values, "o-", color=f"C{i}", label=name)
    ax.set(xlabel="level of the blur", ylabel="root mean square error", xticks=levels)
    ax.legend()


ROW = Row(
    id="070",
    slug="cold-diffusion",
    title="Cold Diffusion: Inverting Arbitrary Image Transforms Without Noise",
    authors=(
        "Arpit Bansal, Eitan Borgnia, Hong-Min Chu, Jie S. Li, Hamid Kazemi, Furong Huang, Micah Goldblum, Jonas Geiping, Tom Goldstein"
    ),
    year=2022,
    arxiv="2208.09392",
    claim=(
        "Sampling by the difference of two degradations forgives the restorer's errors: exactly if the degradation is linear in the level,"
        " and on blurred digits it beats restoring at once, which beats degrading anew. That cold sampling generates as well as noise"
        " does not show here: with affine restorers the five leading variances come out at 0.5 to 0.8 of the data's."
    ),
    reproduced="partly",
    checks=(cancellation, restoration, robustness, generation),
    figure=figure,
)
