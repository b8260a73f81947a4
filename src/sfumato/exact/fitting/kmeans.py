r"""k-means over a stream: the start of a mixture fit.

Centres are drawn as in k-means++ (Arthur & Vassilvitskii 2007), i.e. with probability proportional to the squared distance `D^2` from those
drawn before. A stream is sampled with such weights in one pass by a race: every sample draws `-log(u) / D^2` and the least wins.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import DataError
from sfumato.exact.fitting.stream import Stream


def squared_distances(x: Float[Tensor, "n dim"], centres: Float[Tensor, "K dim"]) -> Float[Tensor, "n K"]:
    """`|x - c|^2`, float64; exactly 0 for equal vectors."""
    return torch.cdist(x, centres, compute_mode="donot_use_mm_for_euclid_dist").square()


def spread_centres(data: Stream, count: int, seed: int) -> Float[Tensor, "count dim"]:
    """`count` distinct samples, drawn as in k-means++, one pass each.

    Raises:
        DataError: fewer distinct samples than that.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen: list[Tensor] = []
    for _ in range(count):
        best, winner = float("inf"), None
        for batch in data:
            uniform = torch.rand(len(batch), generator=generator, dtype=torch.float64).to(batch.device)
            weight = squared_distances(batch, torch.stack(chosen)).amin(1) if chosen else torch.ones_like(uniform)
            finish = torch.where(weight > 0, -torch.log(uniform) / weight, torch.inf)
            if len(batch) and float(finish.min()) < best:
                best, winner = float(finish.min()), batch[finish.argmin()].clone()
        if winner is None:
            raise DataError("components", count, f"at most {len(chosen)}, the number of distinct samples")
        chosen.append(winner)
    return torch.stack(chosen)


def k_means(data: Stream, count: int, seed: int, iterations: int = 20) -> Float[Tensor, "count dim"]:
    """Centres after at most `iterations` of Lloyd's algorithm from a k-means++ start.

    A centre that no sample is nearest to moves to the sample that is farthest from its own centre; one does so per iteration.
    """
    centres = spread_centres(data, count, seed)
    for _ in range(iterations):
        sums, counts = torch.zeros_like(centres), centres.new_zeros(count)
        far, farthest = -1.0, centres[0]
        for batch in data:
            if not len(batch):
                continue
            distance, nearest = squared_distances(batch, centres).min(1)
            sums.index_add_(0, nearest, batch)
            counts += torch.bincount(nearest, minlength=count)
            if float(distance.max()) > far:
                far, farthest = float(distance.max()), batch[distance.argmax()].clone()
        moved = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        if bool((counts == 0).any()):
            moved[counts.argmin()] = farthest
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres
