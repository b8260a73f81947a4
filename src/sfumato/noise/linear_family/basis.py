r"""Orthonormal spatial bases: how the coordinates of a state are seen by an operator.

A state is `(batch, *event)`, or `(batch, K, *event)` with `K > 1` channels per coordinate. In a basis it is `(batch, n, K)`: `n` modes
with `K` numbers each. Bases are products of one small orthonormal matrix an axis (cosines, waves, Haar wavelets), one matrix for the
whole event (eigenvectors), or nothing (the coordinates themselves).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError

DENSE_LIMIT = 256
"""The largest number `K d` of numbers in a state for which a dense operator is made."""


@dataclass(frozen=True, eq=False)
class Basis:
    """An orthonormal basis of events of one shape.

    Arguments:
        name: pixels, cosines, waves, haar, eigenvectors or dense.
        shape: the event shape.
        axes: one orthonormal matrix per axis (rows are the basis vectors), None for an axis that is left alone; or a single matrix
            that acts on flat events.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[Tensor | None, ...] = ()

    @property
    def coordinates(self) -> int:
        """The number `d` of spatial coordinates."""
        return math.prod(self.shape)

    @property
    def modes(self) -> int:
        """The number `n` of modes: `d`, or 1 for the dense basis, in which all `K d` numbers are channels of one mode."""
        return 1 if self.name == "dense" else self.coordinates

    def same(self, other: Basis) -> bool:
        """Whether both are the same basis; eigenvectors are the same only as the same object."""
        return self is other or ((self.name, self.shape) == (other.name, other.shape) and self.name != "eigenvectors")

    def to_modes(self, x: Float[Tensor, " batch K *event"]) -> Float[Tensor, "batch modes k"]:
        """The coefficients of a state with its channel axis, one vector of channels per mode."""
        if self.name == "dense":
            return x.reshape(x.shape[0], 1, -1)
        return self._along(x, transpose=False).flatten(2).transpose(1, 2)

    def from_modes(self, z: Float[Tensor, "batch modes k"]) -> Float[Tensor, " batch K *event"]:
        """The state with the coefficients `z`: the inverse of `to_modes`."""
        if self.name == "dense":
            return z.reshape(z.shape[0], -1, *self.shape)
        return self._along(z.transpose(1, 2).reshape(z.shape[0], z.shape[2], *self.shape), transpose=True)

    def matrix(self) -> Float[Tensor, "d d"]:
        """The basis as a matrix, one basis vector a row, float64."""
        rows = torch.eye(self.coordinates, dtype=torch.float64).reshape(self.coordinates, 1, *self.shape)
        return self._along(rows, transpose=False).reshape(self.coordinates, self.coordinates).T

    def _along(self, x: Tensor, transpose: bool) -> Tensor:
        if len(self.axes) == 1 and len(self.shape) != 1:
            flat = x.flatten(2)
            (matrix,) = self.axes
            return _turned(flat, matrix, 2, transpose).reshape(x.shape)
        for axis, matrix in enumerate(self.axes):
            x = _turned(x, matrix, axis + 2, transpose)
        return x


def _turned(x: Tensor, matrix: Tensor | None, axis: int, transpose: bool) -> Tensor:
    if matrix is None:
        return x
    turn = matrix.to(device=x.device, dtype=x.dtype)
    return (x.movedim(axis, -1) @ (turn if transpose else turn.T)).movedim(-1, axis)


def _checked(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) < 1 or any(n < 1 for n in shape):
        raise ShapeError("shape", tuple(shape), "an event shape of positive lengths")
    return tuple(shape)


def _separable(name: str, make: Callable[[int], Tensor], shape: Sequence[int], channels: bool) -> Basis:
    sizes = _checked(shape)
    if channels and len(sizes) < 2:
        raise ShapeError("shape", sizes, "a channel axis and at least one more")
    matrices = tuple(None if channels and axis == 0 else make(n) for axis, n in enumerate(sizes))
    return Basis(f"{name}, channels apart" if channels else name, sizes, matrices)


def pixels(shape: Sequence[int]) -> Basis:
    """The coordinates themselves."""
    return Basis("pixels", _checked(shape))


def dense(shape: Sequence[int]) -> Basis:
    """All numbers of a state as channels of one mode: the escape for operators without structure."""
    return Basis("dense", _checked(shape))


def cosines(shape: Sequence[int], *, channels: bool = False) -> Basis:
    """The orthonormal DCT-II along every axis (all but the first if that counts `channels`)."""
    return _separable("cosines", cosine_matrix, shape, channels)


def waves(shape: Sequence[int], *, channels: bool = False) -> Basis:
    """The orthonormal real Fourier basis along every axis: `1, cos, sin, cos, sin, ...` of rising frequency."""
    return _separable("waves", wave_matrix, shape, channels)


def haar(shape: Sequence[int], *, channels: bool = False) -> Basis:
    """Orthonormal Haar wavelets along every axis, whose lengths must be powers of 2; coarse first."""
    return _separable("haar", haar_matrix, shape, channels)


def eigenvectors(columns: Float[Tensor, "d d"], shape: Sequence[int] | None = None) -> Basis:
    """The columns of an orthogonal matrix, e.g. the eigenvectors of a data covariance, on flat events.

    Raises:
        ShapeError: not a square matrix of the shape's size.
        ArgumentError: not orthonormal to 1e-8.
    """
    sizes = (columns.shape[0],) if shape is None else _checked(shape)
    if columns.ndim != 2 or columns.shape != (math.prod(sizes), math.prod(sizes)):
        raise ShapeError("columns", tuple(columns.shape), f"a square matrix on events of shape {sizes}")
    matrix = columns.detach().to(torch.float64)
    off = float((matrix.T @ matrix - torch.eye(len(matrix), dtype=torch.float64, device=matrix.device)).abs().max())
    if not off <= 1e-8:
        raise ArgumentError("columns", f"|U^T U - I| up to {off:.3g}", "orthonormal columns", "torch.linalg.qr makes them so.")
    return Basis("eigenvectors", sizes, (matrix.T.contiguous(),))


def cosine_matrix(n: int) -> Float[Tensor, "n n"]:
    """The orthonormal DCT-II as a matrix: row `k` is `sqrt((2 - [k = 0])/n) cos(pi k (2j + 1)/(2n))`, float64."""
    k, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    # the angle modulo 2 pi in integers, so that the cosine sees no large argument
    matrix = math.sqrt(2 / n) * torch.cos(torch.remainder(k * (2 * j + 1), 4 * n) * (math.pi / (2 * n)))
    matrix[0] = 1 / math.sqrt(n)
    return matrix


def wave_matrix(n: int) -> Float[Tensor, "n n"]:
    """Rows `1, cos, sin, cos, sin, ...` of frequencies `0, 1, 1, 2, 2, ...`, normalised, float64."""
    j, row = torch.arange(n, dtype=torch.float64), torch.arange(n)
    frequency = ((row + 1) // 2).to(torch.float64)[:, None]
    angle = torch.remainder(frequency * j, n) * (2 * math.pi / n)
    matrix = torch.where((row % 2 == 1)[:, None], torch.cos(angle), torch.sin(angle))
    matrix[0] = 1.0
    return matrix / torch.linalg.vector_norm(matrix, dim=1, keepdim=True)


def haar_matrix(n: int) -> Float[Tensor, "n n"]:
    """Rows from the mean to the finest differences, float64.

    Raises:
        ShapeError: `n` is not a power of 2.
    """
    if n & (n - 1):
        raise ShapeError("shape", n, "lengths that are powers of 2 for Haar wavelets")
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < n:
        eye = torch.eye(len(matrix), dtype=torch.float64)
        pair = torch.tensor([[1.0, 1.0]], dtype=torch.float64), torch.tensor([[1.0, -1.0]], dtype=torch.float64)
        matrix = torch.cat([torch.kron(matrix, pair[0]), torch.kron(eye, pair[1])]) / math.sqrt(2)
    return matrix


def laplacian(basis: Basis) -> Float[Tensor, "modes"]:
    """The eigenvalues of minus the Laplacian on a unit grid's box, `sum over axes (pi k / n)^2` (cosines) or `(2 pi k / n)^2` (waves).

    Raises:
        ArgumentError: a basis whose functions are no eigenfunctions of the Laplacian.
    """
    kind = basis.name.removesuffix(", channels apart")
    if kind not in ("cosines", "waves"):
        raise ArgumentError("basis", basis.name, "cosines or waves")
    total = torch.zeros(basis.shape, dtype=torch.float64)
    for axis, (n, matrix) in enumerate(zip(basis.shape, basis.axes, strict=True)):
        if matrix is None:
            continue
        k = torch.arange(n, dtype=torch.float64)
        rate = math.pi * k / n if kind == "cosines" else 2 * math.pi * torch.ceil(k / 2) / n
        total = total + (rate**2).reshape(-1, *[1] * (len(basis.shape) - axis - 1))
    return total.flatten()
