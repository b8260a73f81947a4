r"""Orthonormal systems on flat vectors, and what acts diagonally in them.

A basis has `rank` orthonormal columns `U` `(dim, rank)`. An operator that is diagonal in it is written as its *spectrum*: one number per
column and, if `rank < dim`, one more for the orthogonal complement,

    scale(g, x) = U diag(g_1 ... g_r) U^T x + g_{r+1} (I - U U^T) x,

so that every such operator costs two thin products (explicit matrix), two fast transforms (cosines) or nothing (identity).
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.linear_family.basis import cosine_matrix


class Basis(ABC):
    """`rank` orthonormal columns in `dim` dimensions, of one dtype on one device."""

    dim: int
    rank: int
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def project(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch rank"]:
        """`U^T x`."""

    @abstractmethod
    def lift(self, c: Float[Tensor, "batch rank"]) -> Float[Tensor, "batch dim"]:
        """`U c`."""

    @abstractmethod
    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> Basis:
        """The same columns in another dtype or on another device; itself if nothing changes."""

    @property
    def codim(self) -> int:
        """`dim - rank`, the dimension of the complement."""
        return self.dim - self.rank

    @property
    def modes(self) -> int:
        """The length of a spectrum: `rank`, and one more if there is a complement."""
        return self.rank + (self.rank < self.dim)

    def scale(self, gains: Float[Tensor, "*batch modes"], x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The operator with spectrum `gains`, one for all or one per sample `(batch, modes)`, applied to `x`."""
        return self.combine((gains, x, self.project(x)))

    def combine(self, *terms: tuple[Tensor, Tensor, Tensor]) -> Float[Tensor, "batch dim"]:
        """The sum of `scale(gains, x)` over terms `(gains, x, U^T x)`, which costs one lift however many they are."""
        if self.rank == self.dim:
            return self.lift(_weighted((gains.to(x.dtype), c) for gains, x, c in terms))
        outside = _weighted((gains[..., self.rank :].to(x.dtype), x) for gains, x, _ in terms)
        if self.rank == 0:
            return outside
        # the difference is taken before the cast, in the gains' own precision
        inside = _weighted(((gains[..., : self.rank] - gains[..., self.rank :]).to(x.dtype), c) for gains, x, c in terms)
        return outside + self.lift(inside)

    def total(self, values: Float[Tensor, "*batch modes"]) -> Float[Tensor, "*batch"]:
        """The trace of the operator with spectrum `values`: the complement's value counts `codim` times."""
        out = values[..., : self.rank].sum(-1)
        return out + self.codim * values[..., self.rank] if self.codim else out

    def columns(self) -> Float[Tensor, "dim rank"]:
        """The columns `U`, written out."""
        return self.lift(torch.eye(self.rank, dtype=self.dtype, device=self.device)).T

    def checked(self, x: Tensor) -> Tensor:
        """`x` in the basis's dtype.

        Raises:
            ShapeError: `x` is not `(batch, dim)`.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ShapeError("x", tuple(x.shape), f"flat vectors (batch, {self.dim})")
        return x.to(self.dtype)


def _weighted(terms: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """`sum_i g_i x_i`, each term added as it is multiplied."""
    (g, x), *rest = terms
    return functools.reduce(lambda done, term: torch.addcmul(done, *term), rest, g * x)


class MatrixBasis(Basis):
    """Columns given as a matrix.

    Arguments:
        columns: `(dim, rank)`, orthonormal to 1e-5.
        check: whether to check that (a basis that came out of a decomposition needs no check).

    Raises:
        ArgumentError: the columns are not orthonormal, not finite or not floating point.
        ShapeError: not a matrix, or more columns than rows.
    """

    def __init__(self, columns: Tensor, *, check: bool = True) -> None:
        if columns.ndim != 2 or columns.shape[1] > columns.shape[0]:
            raise ShapeError("U", tuple(columns.shape), "a matrix (dim, rank) with rank <= dim")
        if not columns.is_floating_point():
            raise ArgumentError("U", columns.dtype, "a floating point matrix")
        if check and columns.shape[1]:
            off = float((columns.T @ columns - torch.eye(columns.shape[1], dtype=columns.dtype, device=columns.device)).abs().max())
            if not off <= 1e-5:
                raise ArgumentError(
                    "U", f"columns with |U^T U - I| up to {off:.3g}", "orthonormal columns", "torch.linalg.qr makes them so."
                )
        # row-major, wherever they came from: the rounding of products must not depend on it
        self.matrix = columns.contiguous()
        self.dim, self.rank = columns.shape
        self.dtype, self.device = columns.dtype, columns.device

    def project(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch rank"]:
        return self.checked(x) @ self.matrix

    def lift(self, c: Float[Tensor, "batch rank"]) -> Float[Tensor, "batch dim"]:
        return c @ self.matrix.T

    def columns(self) -> Float[Tensor, "dim rank"]:
        return self.matrix

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> MatrixBasis:
        moved = self.matrix.to(dtype=dtype, device=device or self.device)
        return self if moved is self.matrix else MatrixBasis(moved, check=False)


class IdentityBasis(Basis):
    """The coordinates themselves, for diagonal operators."""

    def __init__(self, dim: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> None:
        self.dim = self.rank = dim
        self.dtype, self.device = dtype, torch.device(device)

    def project(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch rank"]:
        return self.checked(x)

    def lift(self, c: Float[Tensor, "batch rank"]) -> Float[Tensor, "batch dim"]:
        return c

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> IdentityBasis:
        device = torch.device(device or self.device)
        return self if (dtype, device) == (self.dtype, self.device) else IdentityBasis(self.dim, dtype, device)


class CosineBasis(Basis):
    """Cosines over an event shape: the orthonormal DCT-II along each axis, one small matrix an axis.

    Arguments:
        shape: the event shape; flat vectors are its row-major order, and so are the coefficients.
        channels: whether the first axis counts channels, and is then left as it is.
    """

    def __init__(
        self, shape: Sequence[int], *, channels: bool = False, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> None:
        if len(shape) < 1 + channels or any(n < 1 for n in shape):
            raise ShapeError(
                "shape", tuple(shape), "an event shape of positive lengths" + (" with a channel axis first" if channels else "")
            )
        self.shape, self.channels = tuple(shape), channels
        self.dim = self.rank = math.prod(shape)
        self.dtype, self.device = dtype, torch.device(device)
        self._axes = {axis: cosine_matrix(n).to(dtype=dtype, device=device) for axis, n in enumerate(shape) if not (channels and axis == 0)}

    def project(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch rank"]:
        return self._along(self.checked(x), transpose=False)

    def lift(self, c: Float[Tensor, "batch rank"]) -> Float[Tensor, "batch dim"]:
        return self._along(c, transpose=True)

    def _along(self, x: Tensor, transpose: bool) -> Tensor:
        out = x.reshape(-1, *self.shape)
        for axis, matrix in self._axes.items():
            out = (out.movedim(axis + 1, -1) @ (matrix if transpose else matrix.T)).movedim(-1, axis + 1)
        return out.reshape(x.shape)

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> CosineBasis:
        device = torch.device(device or self.device)
        if (dtype, device) == (self.dtype, self.device):
            return self
        return CosineBasis(self.shape, channels=self.channels, dtype=dtype, device=device)
