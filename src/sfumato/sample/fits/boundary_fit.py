r"""One good start for all: the noise from which a conditional sampler reconstructs best, searched once and used for every observation.

A deterministic sampler maps a start `x_1` and an observation `y` to one reconstruction `h(x_1, y)`. How good it is depends on `x_1` in
nearly the same way for every `y`, so the best of `K` candidates on a few reference pairs is a good start for all:

    x* = argmin_k sum_i dist(h(x^k, y_i), z_i).

For a Gaussian posterior `N(m(y), C)` and the exact flow, `h = m + (C / (alpha^2 C + sigma^2))^(1/2) (x_1 - alpha m)`: as `alpha -> 0` the
mean squared error is `tr C + |C^(1/2) x_1 / sigma|^2`, whose optimum is 0 (the posterior mean) and in which `y` does not occur.

Source: Ma et al. 2024 (arXiv 2305.15357), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.sample.fits.calibration import Keys, Starts, check_apart

Reconstruct = Callable[[Tensor, int], Tensor]
"""`(starts (K, *event), number of the pair) -> reconstructions (K, *event)` of a deterministic conditional sampler."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""`(reconstructions (K, *event), truth (*event)) -> (K,)`, smaller is better."""


def squared_error(found: Float[Tensor, "K *event"], truth: Float[Tensor, "*event"]) -> Float[Tensor, " K"]:
    """The mean squared error."""
    return (found - truth).flatten(1).square().mean(1)


def edge_error(found: Float[Tensor, "K *event"], truth: Float[Tensor, "*event"]) -> Float[Tensor, " K"]:
    """The mean squared error of the differences between neighbours, along the last two axes: blur costs more than a wrong grey."""
    away = found - truth
    return sum((away.diff(dim=axis).flatten(1).square().mean(1) for axis in (-1, -2)), torch.zeros_like(away[:, 0].flatten(1)[:, 0]))


def score_starts(
    candidates: Float[Tensor, "K *event"],
    truths: Float[Tensor, "R *event"],
    reconstruct: Reconstruct,
    distance: Distance = squared_error,
) -> Float[Tensor, "K R"]:
    """The distance of every candidate's reconstruction from every truth.

    Raises:
        ShapeError: reconstructions of another shape.
        ArgumentError: distances that are not finite.
    """
    columns = []
    for i, truth in enumerate(truths):
        found = reconstruct(candidates, i)
        if found.shape != candidates.shape:
            raise ShapeError("reconstruct", tuple(found.shape), f"one reconstruction per candidate, {tuple(candidates.shape)}")
        columns.append(distance(found, truth))
    scores = torch.stack(columns, 1)
    if not bool(torch.isfinite(scores).all()):
        raise ArgumentError("distance", "NaN or infinities", "finite distances")
    return scores


@dataclass(frozen=True)
class SharedStart:
    """The start that was chosen.

    Arguments:
        start: `(*event)`.
        index: its number among the candidates.
        scores: `(K, R)`, of all candidates on the reference pairs.
        pairs: the numbers of the reference pairs: whoever judges must use others.
    """

    start: Tensor
    index: int
    scores: Tensor
    pairs: Keys

    def judge(self, truths: Float[Tensor, "R *event"], reconstruct: Reconstruct, pairs: Keys, distance: Distance = squared_error) -> float:
        """The mean distance on other pairs.

        Raises:
            ArgumentError: a pair that the start was chosen on.
        """
        check_apart(self.pairs, pairs)
        return float(score_starts(self.start[None], truths, reconstruct, distance).mean())


def select_start(
    candidates: Starts, truths: Float[Tensor, "R *event"], reconstruct: Reconstruct, pairs: Keys, distance: Distance = squared_error
) -> SharedStart:
    """The candidate with the smallest mean distance on the reference pairs.

    Arguments:
        candidates: e.g. `Starts.prior(process, event_shape, 500, seed)`.
        truths: the clean side `z_i` of the reference pairs.
        reconstruct: solves pair `i` from given starts.
        pairs: what the pairs are called, as `(seed, number)`.

    Raises:
        ArgumentError: no pair, not one name a pair, or what `score_starts` refuses.
    """
    if len(truths) == 0 or len(pairs) != len(truths):
        raise ArgumentError("truths, pairs", (len(truths), len(pairs)), "at least one pair, and a name for each")
    scores = score_starts(candidates.states, truths, reconstruct, distance)
    best = int(scores.mean(1).argmin())
    return SharedStart(candidates.states[best], best, scores, pairs)


def agreement(scores: Float[Tensor, "K R"]) -> float:
    """The mean rank correlation of the candidates' scores between two pairs: near 1, one start serves all.

    Raises:
        ArgumentError: fewer than 2 candidates or 2 pairs.
    """
    if min(scores.shape) < 2:
        raise ArgumentError("scores", tuple(scores.shape), "at least 2 candidates and 2 pairs")
    ranks = scores.argsort(0).argsort(0).to(torch.float64)
    table = torch.corrcoef(ranks.T)
    off = ~torch.eye(len(table), dtype=torch.bool)
    return float(table[off].mean())


def refine_start(
    start: Float[Tensor, "*event"],
    truths: Float[Tensor, "R *event"],
    reconstruct: Reconstruct,
    distance: Distance = squared_error,
    *,
    iterations: int = 50,
    rate: float = 0.05,
) -> Float[Tensor, "*event"]:
    """Descend the mean distance from a start, by Adam through the sampler.

    Raises:
        ArgumentError: no iteration, or a reconstruction through which no gradient flows.
    """
    if iterations < 1:
        raise ArgumentError("iterations", iterations, "at least 1")
    x = start.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([x], rate)
    for _ in range(iterations):
        optimiser.zero_grad()
        loss = score_starts(x[None], truths, reconstruct, distance).mean()
        if not loss.requires_grad:
            raise ArgumentError("reconstruct", "a constant", "a differentiable sampler (no torch.no_grad inside)")
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return x.detach()


def fit_to_shape(start: Float[Tensor, "*event"], event_shape: Sequence[int]) -> Tensor:
    """A start for another size: cropped where that is smaller, tiled where it is larger.

    Raises:
        ShapeError: another number of axes.
    """
    if start.ndim != len(event_shape):
        raise ShapeError("event_shape", tuple(event_shape), f"{start.ndim} axes, as the start's")
    tiles = [-(-n // m) for n, m in zip(event_shape, start.shape, strict=True)]
    return start.repeat(*tiles)[tuple(slice(0, n) for n in event_shape)]
