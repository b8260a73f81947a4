r"""Spectral covariances: `C = U diag(l) U^T + rest (I - U U^T)` on flat vectors.

Every function of a covariance is then a function of a few numbers and costs two thin products. Eigenvalues are kept in float64 whatever
the dtype of `U`; functions of them are taken in float64 and cast last. Eigenvalues may be 0: such a covariance exists, can be applied,
mapped and sampled from, and only `solve` and `logdet` refuse it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.spectral.basis import Basis, CosineBasis, IdentityBasis, MatrixBasis


class SpectralCovariance:
    """A covariance that is diagonal in a basis.

    Arguments:
        basis: the eigenvectors, see `sfumato.exact.spectral.basis`; most callers use one of the named constructors instead.
        eigenvalues: `(rank,)`, in any order.
        rest: the variance in every direction outside the basis; not used if there is none.

    Raises:
        ShapeError: not one eigenvalue per column.
        ArgumentError: an eigenvalue (or `rest`) that is negative, infinite or NaN.
    """

    def __init__(self, basis: Basis, eigenvalues: Tensor, rest: float = 0.0) -> None:
        values = eigenvalues.detach().to(device=basis.device, dtype=torch.float64)
        if values.shape != (basis.rank,):
            raise ShapeError("eigenvalues", tuple(values.shape), f"one per column, ({basis.rank},)")
        if basis.rank and not bool((torch.isfinite(values) & (values >= 0)).all()):
            raise ArgumentError("eigenvalues", f"a least value of {float(values.min()):.6g}", "finite variances of at least 0")
        if basis.codim and not 0 <= rest < math.inf:
            raise ArgumentError("rest", rest, "a finite variance of at least 0")
        self.basis = basis
        self.spectrum = torch.cat([values, values.new_tensor([rest])]) if basis.codim else values
        """The eigenvalues and, if there is a complement, `rest`: float64 `(modes,)`."""

    @classmethod
    def from_dense(cls, matrix: Tensor, rank: int | None = None) -> SpectralCovariance:
        """The spectral form of a dense covariance, eigenvalues descending, `U` in the matrix's dtype.

        Eigenvalues that rounding cannot tell from 0, i.e. of at most `4 dim eps` times the largest, are 0.

        Arguments:
            matrix: `(dim, dim)`, symmetric and positive semi-definite to rounding.
            rank: how many eigenvectors to keep; the others share the mean of their eigenvalues as `rest`. None keeps all.

        Raises:
            ShapeError: not a square matrix.
            ArgumentError: not finite, not symmetric or not positive semi-definite; a rank outside [0, dim].
        """
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ShapeError("matrix", tuple(matrix.shape), "a square matrix (dim, dim)")
        dim, eps = matrix.shape[0], torch.finfo(matrix.dtype).eps
        full = matrix.detach().to(torch.float64)
        if not bool(torch.isfinite(full).all()):
            raise ArgumentError("matrix", "a matrix with NaN or infinite entries", "a finite covariance")
        size = float(full.abs().max())
        skew = float((full - full.T).abs().max())
        if skew > math.sqrt(eps) * size:
            raise ArgumentError("matrix", f"an asymmetry of {skew:.3g} at a size of {size:.3g}", "a symmetric matrix")
        if rank is not None and not 0 <= rank <= dim:
            raise ArgumentError("rank", rank, f"a rank in [0, {dim}]")
        values, vectors = torch.linalg.eigh((full + full.T) / 2)
        values, vectors = values.flip(0), vectors.flip(1)
        noise = 4 * dim * eps * float(values.abs().max())
        if float(values[-1]) < -noise:
            raise ArgumentError("matrix", f"a least eigenvalue of {float(values[-1]):.6g}", "a positive semi-definite matrix")
        values = torch.where(values <= noise, 0.0, values)
        kept = dim if rank is None else rank
        rest = float(values[kept:].mean()) if kept < dim else 0.0
        return cls(MatrixBasis(vectors[:, :kept].to(matrix.dtype), check=False), values[:kept], rest)

    @classmethod
    def low_rank(cls, U: Tensor, eigenvalues: Tensor, rest: float) -> SpectralCovariance:
        """`U diag(l) U^T + rest (I - U U^T)` with orthonormal `U` `(dim, rank)`."""
        return cls(MatrixBasis(U), eigenvalues, rest)

    @classmethod
    def dct(
        cls, shape: Sequence[int], eigenvalues: Tensor, *, channels: bool = False, dtype: torch.dtype = torch.float64
    ) -> SpectralCovariance:
        """Diagonal in the orthonormal DCT-II over the event shape.

        Arguments:
            shape: the event shape.
            eigenvalues: one per frequency, of that shape or flat.
            channels: whether the first axis counts channels, and is not transformed.
            dtype: what the transform computes in.
        """
        return cls(CosineBasis(shape, channels=channels, dtype=dtype, device=eigenvalues.device), eigenvalues.reshape(-1))

    @classmethod
    def diagonal(cls, variances: Tensor) -> SpectralCovariance:
        """`diag(variances)`; computes in their dtype."""
        if variances.ndim != 1 or not variances.is_floating_point():
            raise ShapeError("variances", f"{tuple(variances.shape)}, {variances.dtype}", "a floating point vector (dim,)")
        return cls(IdentityBasis(variances.shape[0], variances.dtype, variances.device), variances)

    @classmethod
    def isotropic(
        cls, dim: int, variance: float, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> SpectralCovariance:
        """`variance I`: no eigenvectors, all rest."""
        if dim < 1:
            raise ArgumentError("dim", dim, "a dimension of at least 1")
        empty = torch.empty(dim, 0, dtype=dtype, device=device)
        return cls(MatrixBasis(empty), empty.new_empty(0), float(variance))

    @property
    def dim(self) -> int:
        """The dimension of the flat vectors."""
        return self.basis.dim

    @property
    def rank(self) -> int:
        """How many eigenvectors are kept."""
        return self.basis.rank

    @property
    def eigenvalues(self) -> Float[Tensor, " rank"]:
        """The variances along the basis, float64."""
        return self.spectrum[: self.rank]

    @property
    def rest(self) -> float:
        """The variance in every direction outside the basis; 0 if there is none."""
        return float(self.spectrum[self.rank]) if self.basis.codim else 0.0

    @property
    def dtype(self) -> torch.dtype:
        """What the products are computed in."""
        return self.basis.dtype

    @property
    def device(self) -> torch.device:
        """Where the basis lies."""
        return self.basis.device

    @property
    def singular(self) -> bool:
        """Whether some direction has no variance."""
        return bool((self.spectrum == 0).any())

    def project(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch rank"]:
        """`U^T x`."""
        return self.basis.project(x)

    def lift(self, c: Float[Tensor, "batch rank"]) -> Float[Tensor, "batch dim"]:
        """`U c`."""
        return self.basis.lift(c)

    def apply(self, f: Callable[[Tensor], Tensor], x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """`f(C) x`, in the covariance's dtype.

        Arguments:
            f: an elementwise function of the eigenvalues, float64; it may return `(batch, modes)`, one row per sample.
            x: `(batch, dim)`.
        """
        return self.basis.scale(f(self.spectrum), self.basis.checked(x))

    def matmul(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """`C x`."""
        return self.apply(lambda v: v, x)

    def sqrt_matmul(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """`C^{1/2} x`, with the symmetric root."""
        return self.apply(torch.sqrt, x)

    def solve(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """`C^{-1} x`.

        Raises:
            ArgumentError: the covariance is singular.
        """
        self._refuse_singular("inverse")
        return self.apply(torch.reciprocal, x)

    def map(self, f: Callable[[Tensor], Tensor]) -> SpectralCovariance:
        """`f(C)`, in the same basis (the same object)."""
        values = f(self.spectrum)
        return SpectralCovariance(self.basis, values[: self.rank], float(values[self.rank]) if self.basis.codim else 0.0)

    def logdet(self) -> Tensor:
        """`log det C`, a float64 scalar.

        Raises:
            ArgumentError: the covariance is singular.
        """
        self._refuse_singular("log-determinant")
        return self.basis.total(torch.log(self.spectrum))

    def trace(self) -> Tensor:
        """`tr C`, a float64 scalar."""
        return self.basis.total(self.spectrum)

    def dense(self) -> Float[Tensor, "dim dim"]:
        """`C` as a matrix."""
        return self.matmul(torch.eye(self.dim, dtype=self.dtype, device=self.device))

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> SpectralCovariance:
        """The same covariance whose products are computed in another dtype or on another device."""
        basis = self.basis.to(dtype, device)
        return self if basis is self.basis else SpectralCovariance(basis, self.eigenvalues, self.rest)

    def _refuse_singular(self, what: str) -> None:
        if self.singular:
            zeros = int(self.basis.total((self.spectrum == 0).to(torch.float64)))
            raise ArgumentError(
                "covariance", f"one without variance in {zeros} of {self.dim} directions", f"one that has a {what}", "Add noise or a floor."
            )
