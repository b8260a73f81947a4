r"""Memorised or new: how near samples come to the data that a model was trained on, with held-out data as the reference.

For a sample let `r = d_1 / d_2` be the ratio of its distances to the nearest and the second nearest training event. New events of the same
law have `r` close to 1 (both neighbours are equally accidental), copies have `r` close to 0. A sample counts as memorised where `r` is
below `threshold`; the share of held-out events that fall below it too is what honest novelty looks like on these data.
Source: Yoon, Choi, Kwon & Ryu 2023, Diffusion probabilistic models generalize when they fail to memorize (threshold 1/3); Gu et al. 2023
(arXiv 2310.02664).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.explain.explanation import Explanation

_TILE = 2**24
_CANDIDATES = 8


@dataclass(frozen=True)
class Memorization(Explanation):
    """What `memorization` found.

    Arguments:
        threshold: of the ratio.
        fraction, reference: shares of samples and of held-out events below it.
        standard_error: of `fraction`, from the number of samples.
        ratios, held_out_ratios: `d_1 / d_2`, sorted.
        nearest: for each sample, the number of its nearest training event.
        distance, held_out_distance: median distances to the nearest training event.
    """

    threshold: float
    fraction: float
    reference: float
    standard_error: float
    ratios: list[float]
    held_out_ratios: list[float]
    nearest: list[int]
    distance: float
    held_out_distance: float

    @property
    def numbers(self) -> dict[str, float]:
        return {
            "memorised fraction": self.fraction,
            "of held-out data": self.reference,
            "standard error": self.standard_error,
            "median distance to training data": self.distance,
            "of held-out data to training data": self.held_out_distance,
        }

    @property
    def meaning(self) -> str:
        share, usual = f"{100 * self.fraction:.1f} %", f"{100 * self.reference:.1f} %"
        bound = math.sqrt(self.standard_error**2 + self.reference * (1 - self.reference) / len(self.held_out_ratios))
        copies = self.fraction - self.reference > 3 * bound
        verdict = "more than chance: the model repeats training data" if copies else "no more than chance explains"
        return (
            f"{share} of the samples are at least {1 / self.threshold:.3g} times nearer to one training event than to any other, "
            f"against {usual} of held-out data; that is {verdict}."
        )

    def plot(self, ax: Any) -> None:
        for values, colour, label in ((self.ratios, "C0", "samples"), (self.held_out_ratios, "C1", "held-out data")):
            ax.plot([0.0, *values, 1.0], [*(i / len(values) for i in range(len(values) + 1)), 1.0], colour, label=label)
        ax.axvline(self.threshold, color="C2", linestyle=":", label=f"memorised below {self.threshold:.2g}")
        ax.set(xlabel="nearest over second nearest distance to training data", ylabel="share below", xlim=(0, 1), ylim=(0, 1))
        ax.legend()


def memorization(
    samples: Float[Tensor, "n *event"],
    train: Float[Tensor, "N *event"],
    held_out: Float[Tensor, "m *event"],
    threshold: float = 1 / 3,
) -> Memorization:
    """How many of the samples are copies of training events.

    Arguments:
        samples: of the model.
        train: all that it was trained on, at least two events.
        held_out: events of the same law that it was not trained on.
        threshold: of the ratio, in (0, 1).

    Raises:
        ShapeError: events of different shapes.
        DataError: too few events, or values that are not finite.
        ArgumentError: a threshold outside (0, 1).
    """
    if not 0 < threshold < 1:
        raise ArgumentError("threshold", threshold, "a ratio in (0, 1)")
    for name, part in (("samples", samples), ("held_out", held_out)):
        if part.shape[1:] != train.shape[1:]:
            raise ShapeError(name, tuple(part.shape[1:]), f"events shaped as in train, {tuple(train.shape[1:])}")
    of_samples, numbers = nearest(samples, train, 2)
    of_held_out, _ = nearest(held_out, train, 2)
    ratio, usual = _ratio(of_samples), _ratio(of_held_out)
    fraction = float((ratio < threshold).double().mean())
    return Memorization(
        threshold,
        fraction,
        float((usual < threshold).double().mean()),
        math.sqrt(fraction * (1 - fraction) / len(ratio)),
        ratio.sort().values.tolist(),
        usual.sort().values.tolist(),
        numbers[:, 0].tolist(),
        float(of_samples[:, 0].median()),
        float(of_held_out[:, 0].median()),
    )


def memorised_share(samples: Float[Tensor, "n *event"], train: Float[Tensor, "N *event"], threshold: float = 1 / 3) -> float:
    """The share of samples whose ratio is below `threshold`, with no reference."""
    return float((_ratio(nearest(samples, train, 2)[0]) < threshold).double().mean())


def nearest(x: Float[Tensor, "n *event"], points: Float[Tensor, "N *event"], k: int) -> tuple[Float[Tensor, "n k"], Tensor]:
    """Distances, float64, to the `k` nearest points in rising order, and the points' numbers, both `(n, k)`.

    A matrix product in the points' dtype, a tile at a time, names a few candidates; their distances come from differences in float64, so
    copies are at distance 0.

    Raises:
        DataError: fewer than `k` points, no queries, or values that are not finite.
    """
    if len(points) < k or len(x) < 1:
        raise DataError("train", f"{len(points)} events for {len(x)} queries", f"at least {k} events, and one query")
    if not (bool(torch.isfinite(x).all()) and bool(torch.isfinite(points).all())):
        raise DataError("samples", "NaN or infinite values", "finite numbers")
    cloud = points.detach().reshape(len(points), -1)
    queries = x.detach().reshape(len(x), -1).to(cloud)
    centre = cloud[:: max(1, len(cloud) // 1000)].mean(0)
    half, count = (cloud - centre).square().sum(1) / 2, min(len(cloud), k + _CANDIDATES)
    distances, numbers = [], []
    for some in torch.split(queries, max(1, _TILE // max(len(cloud), count * cloud.shape[1]))):
        found = ((some - centre) @ (cloud.T) - half - (some - centre) @ centre[:, None]).topk(count, 1).indices
        exact = torch.linalg.vector_norm(some[:, None].double() - cloud[found].double(), dim=2)
        first = exact.sort(1)
        distances.append(first.values[:, :k])
        numbers.append(found.gather(1, first.indices[:, :k]))
    return torch.cat(distances), torch.cat(numbers)


def _ratio(distances: Tensor) -> Tensor:
    """`d_1 / d_2`; 0 for a copy, also of an event that the training data hold twice."""
    return torch.where(distances[:, 0] == 0, 0.0, distances[:, 0] / distances[:, 1])
