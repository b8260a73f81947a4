r"""Mean and covariance of data that may not fit in memory.

Covariances divide by N. Batches are merged with the update of Chan, Golub & LeVeque 1983, which loses no digits to a large mean. Beyond
`DENSE` dimensions no `dim x dim` matrix is formed: the leading eigenvectors come from a few passes of subspace iteration and a Nystroem
sketch, and everything else is one isotropic rest that keeps the trace.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.exact.fitting.sketch import nystroem, orthonormal, random_system
from sfumato.exact.fitting.stream import Batches, Stream
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.spectral.covariance import SpectralCovariance

DENSE = 1024
"""The largest dimension at which `fit_gaussian` and `fit_mixture` form dense covariances."""
RANK = 256
"""The rank that `fit_gaussian` keeps beyond that, unless told otherwise."""


class Moments:
    """Count, mean and scatter of what has been seen, in float64.

    Arguments:
        dim: the number of elements of an event.
        dense: whether to accumulate the whole covariance `(dim, dim)`, or its diagonal only.
    """

    def __init__(self, dim: int, *, dense: bool = True, device: torch.device | str = "cpu") -> None:
        if dim < 1:
            raise ArgumentError("dim", dim, "a dimension of at least 1")
        self.dim, self.dense, self.count = dim, dense, 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._scatter = torch.zeros((dim, dim) if dense else dim, dtype=torch.float64, device=device)

    def update(self, batch: Float[Tensor, " n *event"]) -> None:
        """Sees a batch.

        Raises:
            ShapeError: events with another number of elements.
        """
        if batch.ndim < 2 or batch[:1].numel() != self.dim * min(len(batch), 1):
            raise ShapeError("batch", tuple(batch.shape), f"(n, *event) with {self.dim} elements per event")
        if not len(batch):
            return
        flat = batch.detach().reshape(len(batch), self.dim).to(self.mean)
        mean = flat.mean(0)
        away = flat - mean
        self._add(len(flat), mean, away.T @ away if self.dense else away.square().sum(0))

    def merge(self, other: Moments) -> None:
        """Sees all that `other` has seen.

        Raises:
            ArgumentError: `other` has another dimension, or not the same kind of covariance.
        """
        if (other.dim, other.dense) != (self.dim, self.dense):
            raise ArgumentError("other", f"dim={other.dim}, dense={other.dense}", f"dim={self.dim}, dense={self.dense}")
        if other.count:
            self._add(other.count, other.mean, other._scatter)

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        gap = mean - self.mean
        self._scatter += scatter + (torch.outer(gap, gap) if self.dense else gap.square()) * (self.count * count / total)
        self.mean += gap * (count / total)
        self.count = total

    @property
    def covariance(self) -> Float[Tensor, "dim dim"]:
        """The dense covariance, divided by N.

        Raises:
            ArgumentError: only the diagonal was accumulated.
            DataError: nothing was seen.
        """
        if not self.dense:
            raise ArgumentError("dense", False, "moments that accumulate the whole covariance")
        return self._per_sample()

    @property
    def variances(self) -> Float[Tensor, " dim"]:
        """The covariance's diagonal."""
        return self._per_sample().diagonal() if self.dense else self._per_sample()

    def _per_sample(self) -> Tensor:
        if not self.count:
            raise DataError("batches", "no samples", "at least one sample")
        return self._scatter / self.count


def moments_of(data: Stream, *, dense: bool) -> Moments:
    """The moments of a stream that is not constant.

    Raises:
        DataError: every sample is the same (to rounding), also when there is only one.
    """
    moments = Moments(data.dim, dense=dense, device=data.device)
    for batch in data:
        moments.update(batch)
    size = float(moments.mean.square().sum()) * torch.finfo(torch.float64).eps ** 2
    if not float(moments.variances.sum()) > size:
        raise DataError("batches", f"constant data: {moments.count} samples without any variance", "data that vary")
    return moments


def fit_gaussian(batches: Batches, rank: int | None = None, *, floor: float = 0.0, passes: int = 3, seed: int = 0) -> Gaussian:
    """The Gaussian with the mean and the covariance of the data, in float64.

    Up to `DENSE` dimensions the covariance is exact (and truncated to `rank` as in `SpectralCovariance.from_dense`, if given). Beyond, it
    is `rank` modes plus isotropic rest, of the exact trace, after `1 + passes` passes over the data. With fewer samples than dimensions it
    has eigenvalues 0, or a rest that shares what the kept modes leave of the trace.

    Arguments:
        batches: see `sfumato.exact.fitting.stream.Batches`.
        rank: how many eigenvectors to keep; default: all, or `RANK` beyond `DENSE` dimensions.
        floor: added to the variance in every direction, as a fraction of the mean variance per dimension.
        passes: how often the low-rank fit multiplies with the covariance; 3 resolves all but nearly equal eigenvalues.
        seed: of the sketch's random start.

    Raises:
        DataError: an empty stream, NaN or infinite values, unequal shapes, constant data, fewer samples than the rank asked for.
        ArgumentError: an iterator; a rank outside [0, dim], a negative floor, no pass.

    Example:
        >>> from sfumato.data import digits
        >>> from sfumato.exact import fit_gaussian
        >>> law = fit_gaussian(digits().batches(512))
        >>> print(law.event_shape, f"{float(law.covariance.trace()):.2f}")
        (1, 8, 8) 18.76
    """
    data = Stream(batches)
    if not 0 <= floor < 1 or passes < 1 or not 0 <= (rank or 0) <= data.dim:
        raise ArgumentError("rank, floor, passes", (rank, floor, passes), f"a rank in [0, {data.dim}], a floor in [0, 1), at least 1 pass")
    moments = moments_of(data, dense=data.dim <= DENSE)
    if rank is not None and rank > moments.count:
        raise DataError("batches", f"{moments.count} samples", f"at least as many as the rank asked for, {rank}")
    trace = float(moments.variances.sum())
    least = floor * trace / data.dim
    if moments.dense:
        covariance = SpectralCovariance.from_dense(moments.covariance, rank)
        covariance = covariance.map(lambda v: v + least) if floor else covariance
        return Gaussian(moments.mean, covariance, data.event_shape)
    kept = RANK if rank is None else rank
    if not kept:
        return Gaussian(
            moments.mean, SpectralCovariance.isotropic(data.dim, trace / data.dim + least, device=data.device), data.event_shape
        )
    system = random_system(data.dim, kept, seed, data.device)
    for left in reversed(range(passes)):
        product = torch.zeros_like(system)
        for batch in data:
            away = batch - moments.mean
            product += away.T @ (away @ system)
        product /= moments.count
        if left:
            system = orthonormal(product)
    return Gaussian(moments.mean, nystroem(system, product, trace, kept, least), data.event_shape)
