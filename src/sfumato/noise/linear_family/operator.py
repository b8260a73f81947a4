r"""The one storage format of linear operators on states: `coef[n, K, K]` in an orthonormal spatial basis.

`n = 1` is the same `K x K` block for every coordinate; `n = d` is one block per mode of a basis (`sfumato.noise.linear_family.basis`); a
dense operator is one block on all `K d` numbers. The format is closed under sum, product, inverse, transpose, symmetric root, Cholesky
factor, log-determinant and trace. A leading batch axis, one operator per sample, is allowed everywhere. Operators of different structure
promote: a block to any basis, and two different bases to dense, which is refused above 256 numbers.

    structure        n   K   basis                      members
    scalar           1   1   any                        VP, VE, EDM, flow matching, mean reverting
    per pixel        d   1   pixels                     times that differ by pixel
    spectral         d   1   cosines, waves, haar, ...  blurring, function-space noise
    block            1   K   any                        momentum, multivariate
    spectral block   d   K   any                        momentum with blurring
    dense            1   Kd  dense                      flexible diffusion
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.linear_family.basis import DENSE_LIMIT, Basis, dense


@dataclass(frozen=True, eq=False)
class Operator:
    """A linear map between states, `K_in` channels to `K_out` (both `K` for most).

    Arguments:
        coef: `(n, K_out, K_in)` or `(batch, n, K_out, K_in)`, float64; `n` is 1 or the basis's number of modes.
        basis: None for the same block on every coordinate of any event.

    Raises:
        ShapeError: `coef` does not fit the basis.
    """

    coef: Tensor
    basis: Basis | None = None

    def __post_init__(self) -> None:
        modes = 1 if self.basis is None else self.basis.modes
        if self.coef.ndim not in (3, 4) or self.coef.shape[-3] not in (1, modes):
            raise ShapeError("coef", tuple(self.coef.shape), f"({modes}, K, K), with a leading batch axis or without")
        if self.basis is not None and self.basis.name != "dense" and self.coef.shape[-3] == 1:
            # the same block for every mode acts alike in every basis
            object.__setattr__(self, "basis", None)

    @property
    def structure(self) -> str:
        """A few words that name the structure, for messages."""
        where = "every coordinate alike" if self.basis is None else f"{self.basis.name} of {self.basis.shape}"
        return f"{self.coef.shape[-2]} x {self.coef.shape[-1]} blocks on {where}"

    @property
    def channels(self) -> tuple[int, int]:
        """`(K_out, K_in)` per coordinate."""
        d = self._folded
        return self.coef.shape[-2] // d, self.coef.shape[-1] // d

    @property
    def _folded(self) -> int:
        return self.basis.coordinates if self.basis is not None and self.basis.name == "dense" else 1

    def __matmul__(self, other: Operator) -> Operator:
        a, b = _aligned(self, other)
        return Operator(a.coef @ b.coef, a.basis or b.basis)

    def __add__(self, other: Operator) -> Operator:
        a, b = _aligned(self, other)
        return Operator(a.coef + b.coef, a.basis or b.basis)

    def __sub__(self, other: Operator) -> Operator:
        return self + (-1.0) * other

    def __rmul__(self, factor: int | float) -> Operator:
        return Operator(factor * self.coef, self.basis)

    @property
    def T(self) -> Operator:
        """The transpose."""
        return Operator(self.coef.mT, self.basis)

    def inverse(self) -> Operator:
        """The inverse.

        Raises:
            ArgumentError: a block is singular or not square.
        """
        if self.coef.shape[-1] != self.coef.shape[-2]:
            raise ArgumentError("operator", self.structure, "square blocks to invert")
        inverse, failed = torch.linalg.inv_ex(self.coef)
        if bool((failed != 0).any()) or not bool(torch.isfinite(inverse).all()):
            raise ArgumentError("operator", f"a singular one ({self.structure})", "one that has an inverse", "At t = 0 there is no noise.")
        return Operator(inverse, self.basis)

    def solve(self, x: Tensor) -> Tensor:
        """`M^{-1} x` for states `x`; see `inverse`."""
        return self.inverse().apply(x)

    def sqrt(self) -> Operator:
        """The symmetric square root of a positive semi-definite operator; rounding below 0 counts as 0.

        Raises:
            ArgumentError: an eigenvalue that is negative beyond rounding.
        """
        values, vectors = torch.linalg.eigh((self.coef + self.coef.mT) / 2)
        self._refuse_negative(values)
        return Operator((vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT, self.basis)

    def cholesky(self) -> Operator:
        """The lower triangular `L` with `L L^T = M`; directions without variance have a column of zeros.

        Raises:
            ArgumentError: not positive semi-definite to rounding.
        """
        factor, failed = torch.linalg.cholesky_ex(self.coef)
        if bool((failed != 0).any()):
            self._refuse_negative(torch.linalg.eigvalsh(self.coef))
            factor = _semidefinite_cholesky(self.coef)
        return Operator(factor, self.basis)

    def _refuse_negative(self, values: Tensor) -> None:
        least, size = float(values.min()), float(values.abs().max())
        if least < -1e-10 * size:
            raise ArgumentError("operator", f"a least eigenvalue of {least:.3g}", "a positive semi-definite operator")

    def logdet(self, coordinates: int) -> Tensor:
        """`log |det|` on events of `coordinates` spatial coordinates: a scalar, or `(batch,)`."""
        return self._total(torch.linalg.slogdet(self.coef).logabsdet, coordinates)

    def trace(self, coordinates: int) -> Tensor:
        """The trace on events of `coordinates` spatial coordinates: a scalar, or `(batch,)`."""
        return self._total(self.coef.diagonal(dim1=-2, dim2=-1).sum(-1), coordinates)

    def _total(self, per_mode: Tensor, coordinates: int) -> Tensor:
        if self.basis is not None and self.basis.coordinates != coordinates:
            raise ShapeError("coordinates", coordinates, f"the {self.basis.coordinates} of the basis")
        return per_mode.sum(-1) * (coordinates if self.basis is None else 1)

    def apply(self, x: Tensor) -> Tensor:
        """`M x` for states `(batch, K_in, *event)` (without the channel axis if `K_in = 1`), in the dtype of `x`.

        Raises:
            ShapeError: another number of channels, another event shape than the basis has, or another batch.
        """
        out, into = self.channels
        coef = self.coef.to(device=x.device, dtype=x.dtype)
        if coef.ndim == 4 and coef.shape[0] not in (1, x.shape[0]):
            raise ShapeError("t", f"{coef.shape[0]} times", f"one time, or one per sample ({x.shape[0]})")
        if self.basis is None and coef.shape[-2:] == (1, 1):
            return coef.reshape(-1, *[1] * (x.ndim - 1)) * x
        state = x[:, None] if into == 1 else x
        event = state.shape[2:] if self.basis is None else self.basis.shape
        if state.ndim < 2 or state.shape[1] != into or state.shape[2:] != event:
            channels = "" if into == 1 else f"{into}, "
            raise ShapeError("x", tuple(x.shape), f"states (batch, {channels}{', '.join(map(str, event)) or '*event'})")
        if self.basis is None:
            result = (coef.squeeze(-3) @ state.reshape(*state.shape[:2], -1)).reshape(-1, out, *event)
        else:
            result = self.basis.from_modes((coef @ self.basis.to_modes(state)[..., None])[..., 0])
        return result[:, 0] if out == 1 else result

    def dense(self, event: tuple[int, ...]) -> Operator:
        """The same operator as one block on all numbers of a state `(K, *event)`, in that order.

        Raises:
            ArgumentError: more than 256 numbers.
            ShapeError: the basis is one of another event shape.
        """
        if self.basis is not None and self.basis.shape != tuple(event):
            raise ShapeError("event", tuple(event), f"events of the operator's shape: {self.structure}")
        d, (out, into) = math.prod(event), self.channels
        if max(out, into) * d > DENSE_LIMIT:
            raise ArgumentError("operator", f"{self.structure} on {max(out, into) * d} numbers", f"at most {DENSE_LIMIT} for a dense form")
        if self.basis is not None and self.basis.name == "dense":
            return self
        batch = self.coef.shape[:-3]
        if self.basis is None:
            turn = torch.eye(d, dtype=self.coef.dtype, device=self.coef.device)
            full = torch.einsum("...ij,de->...idje", self.coef[..., 0, :, :], turn)
        else:
            turn = self.basis.matrix().to(self.coef)
            full = torch.einsum("nd,...nij,ne->...idje", turn, self.coef, turn)
        return Operator(full.reshape(*batch, 1, out * d, into * d), dense(event))

    def matrix(self, event: tuple[int, ...]) -> Tensor:
        """`(K_out d, K_in d)`, with the batch axis first if there is one; see `dense`."""
        return self.dense(event).coef[..., 0, :, :]

    def map(self, f: Callable[[Tensor], Tensor]) -> Operator:
        """`f(coef)` in the same basis."""
        return Operator(f(self.coef), self.basis)


def _aligned(a: Operator, b: Operator) -> tuple[Operator, Operator]:
    """Both operators in one structure."""
    if a.basis is not None and b.basis is not None and not a.basis.same(b.basis):
        if a.basis.shape != b.basis.shape:
            raise ShapeError("operators", f"{a.structure} and {b.structure}", "operators on events of one shape")
        return _both_dense(a, b, a.basis.shape)
    if (a.basis is None) != (b.basis is None):
        basis = a.basis or b.basis
        if basis is not None and basis.name == "dense":
            return _both_dense(a, b, basis.shape)
    return a, b


def _both_dense(a: Operator, b: Operator, event: tuple[int, ...]) -> tuple[Operator, Operator]:
    numbers = max(*a.channels, *b.channels) * math.prod(event)
    if numbers > DENSE_LIMIT:
        raise ArgumentError(
            "operators",
            f"{a.structure} with {b.structure}",
            "one common basis",
            f"Together they are dense on {numbers} > {DENSE_LIMIT} numbers.",
        )
    return a.dense(event), b.dense(event)


def _semidefinite_cholesky(matrix: Tensor) -> Tensor:
    """Column by column; a pivot that is 0 to rounding leaves a column of zeros."""
    rest, columns = matrix.clone(), []
    floor = 1e-14 * matrix.diagonal(dim1=-2, dim2=-1).amax(-1)
    for k in range(matrix.shape[-1]):
        pivot = rest[..., k, k]
        kept = pivot > floor
        column = torch.where(kept[..., None], rest[..., :, k] / torch.where(kept, pivot, 1.0).sqrt()[..., None], 0.0)
        columns.append(column)
        rest = rest - column[..., :, None] * column[..., None, :]
    return torch.stack(columns, -1).tril()
