r"""The soft nearest point of a large set: `sum_i p_i x_i` with `p_i ~ w_i exp(-|y - x_i|^2 / (2 k^2))`.

Two matrix products do the work: the scores `s_i = q.x_i - |x_i - c|^2/2` with `q = y - c` (`c` the mean of the points), which are
`-|y - x_i|^2/2` up to a constant per query, and the weighted sum of the points. Both go block by block over the points.

Rounding. The scores carry an error of some `E`, which the exponent divides by `k^2`: in float32 that is hopeless at small `k`. So `E` is
measured (root mean square over the queries' greatest scores, whose sums build up coherently, against float64), and where `E / k^2` exceeds
`FINE`, the points that matter get exact scores, from differences `y - x_i` in float64. Those that matter have a score within

    k^2 log(N min(1, 8 E/k^2) / SHARE_ERROR) + 16 E

of the greatest: for all others together, what the error can change (a relative `8 E/k^2`, or everything) is a share below `SHARE_ERROR`, if
no error exceeds `8 E`. Where that is too many points, many points share the weight and their errors average out: up to an `E / k^2` of
`COARSE` the leading ones alone get exact scores, and beyond it all scores of the query are computed in float64. Scores are stored relative
to the greatest, so that what is put there keeps its digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import threshold

from sfumato.errors import ArgumentError

FINE, COARSE = 8e-6, 2e-5
SHARE_ERROR = 1e-6
LEADING = math.log(100)
"""How far below the greatest exponent the leading points reach."""
FAINT = -60.0
"""Terms `exp(v)` with `v` below this are 0: no sum can see them, and the subnormal numbers further down are slow to compute with."""
SCORES = 2**25
"""At most so many scores are in memory at a time; more queries go in chunks."""
BLOCK = 4096
"""So many points at a time."""
GATHER = 2**17
"""At most so many coordinates of single points are gathered at a time, so that they stay in the cache."""


class PointSet:
    """Points with weights, that can be softly searched.

    Arguments:
        points: `(N, d)`, float32 or float64; kept, not copied.
        weights: `(N,)` positive, float64, summing to 1; or None for equal ones.
    """

    def __init__(self, points: Float[Tensor, "N d"], weights: Float[Tensor, " N"] | None) -> None:
        self.points, self.weights = points, weights
        self._log_weights = torch.zeros(1, device=points.device).expand(len(points)) if weights is None else torch.log(weights)
        n = len(points)
        share = torch.full((n,), 1 / n, dtype=torch.float64, device=points.device) if weights is None else weights
        pieces = [slice(i, i + BLOCK) for i in range(0, n, BLOCK)]
        self.mean = torch.stack([share[p] @ points[p].double() for p in pieces]).sum(0)
        # a centre that the points' dtype holds, so that it can be taken off and put back
        self._centre = self.mean.to(points.dtype).double()
        self.half_squares = torch.cat([(points[p] - self._centre).square().sum(1) / 2 for p in pieces])
        # a mean far from the origin costs digits in q.x_i, so then every block is centred; that takes another pass over the memory
        self._recentre = float(self.mean.square().sum()) > 8 * float(share @ self.half_squares)

    def soft_nearest(self, y: Float[Tensor, "batch d"], k: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        """`sum_i p_i x_i` `(batch, d)` and `log sum_i w_i exp(-|y - x_i|^2/(2 k^2))` `(batch,)`, both float64.

        At `k = 0` the limit: the (weighted) mean of the points that are nearest, and `-inf` unless `y` is one of them.

        Arguments:
            y, k: float64.
        """
        rows = max(1, SCORES // len(self.points))
        parts = [self._chunk(a, b) for a, b in zip(torch.split(y, rows), torch.split(k, rows), strict=True)]
        return torch.cat([mean for mean, _ in parts]), torch.cat([mass for _, mass in parts])

    def covariance_product(self, y: Float[Tensor, "batch d"], k: Float[Tensor, " batch"], v: Float[Tensor, "batch d"]) -> Tensor:
        """`Cov v` with the covariance of the points under `p`, `(batch, d)`; all in float64, `k > 0`."""
        out = []
        rows = max(1, SCORES // len(self.points))
        for a, b, c in zip(torch.split(y, rows), torch.split(k, rows), torch.split(v, rows), strict=True):
            shares = torch.softmax(self._scores(a, b**2, torch.float64) / b[:, None] ** 2, 1)
            tilted = torch.cat([c @ block.T for _, block in self._blocks(torch.float64)], 1)
            tilted = shares * (tilted - (shares * tilted).sum(1, keepdim=True))
            out.append(sum((tilted[:, piece] @ block for piece, block in self._blocks(torch.float64)), torch.zeros_like(c)))
        return torch.cat(out)

    def _blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, len(self.points), BLOCK):
            piece = slice(start, min(start + BLOCK, len(self.points)))
            block = self.points[piece].to(dtype)
            yield piece, block - self._centre.to(dtype) if self._recentre else block

    def _chunk(self, y: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self.points.dtype
        # an inverse variance that the dtype cannot hold tells apart all distances that float64 can: the limit
        noisy = torch.isfinite((k**-2).to(dtype))
        variance, inverse = torch.where(noisy, k**2, 0.0), torch.where(noisy, k**-2, 1.0)
        scores = self._scores(y, variance, dtype)
        top, error = self._top(y, variance, scores)
        rows, numbers, heavy = self._that_matter(scores, top, variance, error)
        values, best, nearest = self._exact_scores(y, variance, rows, numbers)
        q = y - self._centre
        # |y - x_i|^2/2 is this minus the score
        constant = q.square().sum(1) / 2 + (0.0 if self._recentre else q @ self._centre)
        top = torch.where(noisy & torch.isfinite(best), constant - nearest + best, top)
        scores.sub_(top[:, None].to(dtype))
        scores[~noisy] = -math.inf
        scores[rows, numbers] = (values - best[rows]).to(dtype)
        if bool(heavy.any()):
            fine = self._scores(y[heavy], variance[heavy], torch.float64)
            top[heavy] = fine.amax(1)
            scores[heavy] = fine.sub_(top[heavy, None]).to(dtype)
        mean, total = self._sum(scores, inverse)
        unit = torch.where(noisy, (top - constant) * inverse, torch.where(nearest > 0, -math.inf, best))
        return mean, torch.log(total) + unit - (math.log(len(self.points)) if self.weights is None else 0.0)

    def _exact_scores(self, y: Tensor, variance: Tensor, rows: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`k^2 log w - |y - x|^2/2 + h` of pairs, from differences in float64; per query the greatest, and the least half square `h`.

        Without noise: `log w` for the nearest points, and `-inf` for others.
        """
        half, prior = self._half_distances(y, rows, numbers), self._log_weights[numbers].double()
        nearest = torch.full_like(variance, math.inf).scatter_reduce_(0, rows, half, "amin")
        gap = half - nearest[rows]
        still = torch.where(gap > 0, -math.inf, prior)
        values = torch.where(variance[rows] > 0, variance[rows] * prior - gap, still)
        best = torch.full_like(variance, -math.inf).scatter_reduce_(0, rows, values, "amax")
        return values, best, nearest

    def _scores(self, y: Tensor, variance: Tensor, dtype: torch.dtype) -> Tensor:
        """`q.x_i - |x_i - c|^2/2 + k^2 log w_i`, `(batch, N)`."""
        q = (y - self._centre).to(dtype)
        out = q.new_empty(len(q), len(self.points))
        half = self.half_squares.to(dtype)
        for piece, block in self._blocks(dtype):
            torch.addmm(half[piece], q, block.T, beta=-1, out=out[:, piece])
        return out if self.weights is None else out.addr_(variance.to(dtype), self._log_weights.to(dtype))

    def _top(self, y: Tensor, variance: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The greatest score of each query, and the scores' root mean square rounding error."""
        top, numbers = scores.max(1)
        points = self.points[numbers].double() - (self._centre if self._recentre else 0.0)
        products, half = ((y - self._centre) * points).sum(1), self.half_squares[numbers]
        prior = variance * self._log_weights[numbers]
        size = products.abs() + half + prior.abs()
        # a query and a point at the centre have a score of 0, without error; without this they would hide the error of the others
        off = torch.where(size > 0, (top - (products - half + prior)) / size, 0.0)
        relative = off.square().mean().sqrt()
        # half of the last digit at least, lest a lucky sample of few queries be believed
        return top.double(), size * relative.clamp(min=0.5 * torch.finfo(scores.dtype).eps)

    def _that_matter(self, scores: Tensor, top: Tensor, variance: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and numbers of the points that need an exact score, and which rows need float64 scores throughout."""
        doubt = torch.where(variance > 0, error / variance, math.inf)
        wide = variance * torch.log(len(self.points) * (8 * doubt).clamp(max=1) / SHARE_ERROR) + 16 * error
        margin = torch.where(doubt > FINE, wide, -math.inf)
        coarse = doubt <= COARSE
        # where float64 scores would not do either, exact ones have to, however many
        helped = doubt * (torch.finfo(torch.float64).eps / torch.finfo(scores.dtype).eps) < FINE
        heavy = torch.zeros_like(coarse)
        cap = max(512, len(self.points) // 64)
        for tighter in (torch.where(coarse, variance * LEADING, -math.inf), torch.full_like(margin, -math.inf)):
            full = (self._reach(scores, top - margin)[0].bincount(minlength=len(top)) > cap) & helped
            heavy |= full & ~coarse
            margin = torch.where(full, tighter, margin)
        return *self._reach(scores, top - margin), heavy

    @staticmethod
    def _reach(scores: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and numbers of the scores of at least `least`; no scores are looked at in rows where that is `+inf`."""
        some = torch.nonzero(least < math.inf)[:, 0]
        if not len(some):
            return some, some
        rows, numbers = ((scores if len(some) == len(scores) else scores[some]) >= least[some, None].to(scores)).nonzero(as_tuple=True)
        return some[rows], numbers

    def _sum(self, scores: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the points under the weights `exp(s / k^2)` and their total, float64, given scores relative to the greatest.

        Overwrites the scores. A block that weighs less than a billionth of a query's greatest weight is passed over for it.
        """
        points, total = scores.new_zeros(len(scores), self.points.shape[1]), torch.zeros_like(inverse)
        for piece, block in self._blocks(scores.dtype):
            weights = scores[:, piece].mul_(inverse[:, None].to(scores)).clamp_(min=FAINT).exp_()
            weights = threshold(weights, 1.001 * math.exp(FAINT), 0.0, inplace=True)
            mass = weights.sum(1).double()
            total += mass
            seen = torch.nonzero(mass > 1e-9)[:, 0]
            if len(seen) > len(mass) // 2:
                points.addmm_(weights, block)
            elif len(seen):
                points.index_add_(0, seen, weights[seen] @ block)
        mean = points.double() / total[:, None]
        return mean + self._centre if self._recentre else mean, total

    def _half_distances(self, y: Tensor, rows: Tensor, numbers: Tensor) -> Tensor:
        """`|y - x|^2 / 2` of pairs, from differences in float64."""
        parts = [(y[i] - self.points[j]).square().sum(1) / 2 for i, j in self._pieces(rows, numbers)]
        return torch.cat([y.new_zeros(0), *parts])

    def _pieces(self, *pairs: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Lists of pairs in pieces of at most `GATHER` coordinates."""
        return zip(*(torch.split(p, max(1, GATHER // self.points.shape[1])) for p in pairs), strict=True)


class SoftNearest(torch.autograd.Function):
    r"""`PointSet.soft_nearest` with first derivatives: the mean `X` and the log-mass have with respect to `y`

    dX/dy = Cov / k^2        (the covariance of the points under `p`, symmetric),        d log-mass / dy = (X - y) / k^2.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, k: Tensor, cloud: PointSet) -> tuple[Tensor, Tensor]:
        """See `PointSet.soft_nearest`."""
        mean, mass = cloud.soft_nearest(y.detach(), k.detach())
        ctx.cloud = cloud
        ctx.save_for_backward(y, k, mean)
        return mean, mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, on_mean: Tensor, on_mass: Tensor) -> tuple[Tensor, None, None]:
        """The vector-Jacobian product; the derivative with respect to `k` is not offered."""
        y, k, mean = ctx.saved_tensors
        if bool((k == 0).any()):
            raise ArgumentError("t", "a time without noise", "a noisy time to differentiate at", "The nearest point jumps as x moves.")
        inverse = (k**-2)[:, None]
        return inverse * (ctx.cloud.covariance_product(y, k, on_mean) + on_mass[:, None] * (mean - y)), None, None
