r"""Generators of families of transformations `x -> x + eps xi(x, t)`: translations, rotations, linear maps, anything differentiable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError

_ALL = 4
"""Up to this many dimensions every axis is taken; beyond it the leading directions of the states."""
_LEADING = 3


@dataclass(frozen=True, eq=False)
class Generator:
    """`xi(x, t)` by name; `x` `(n, dim)`, `t` `(n,)`.

    Arguments:
        name: what it is called in reports.
        field: `xi`.
        matrix, shift: where `xi = matrix x + shift` is affine and does not depend on time; then it has finite transformations.
    """

    name: str
    field: Callable[[Tensor, Tensor], Tensor]
    matrix: Tensor | None = None
    shift: Tensor | None = None

    def transform(self, x: Float[Tensor, "n dim"], amount: float) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "dim dim"]]:
        """The finite transformation of states, `exp(amount xi)`, and its linear part (which turns velocities).

        Raises:
            ArgumentError: a generator that is not affine.
        """
        if self.matrix is None or self.shift is None:
            raise ArgumentError("generator", self.name, "an affine generator", "Only these have finite transformations here.")
        n = len(self.shift)
        block = x.new_zeros(n + 1, n + 1)
        block[:n, :n], block[:n, n] = self.matrix.to(x), self.shift.to(x)
        finite = torch.linalg.matrix_exp(amount * block)
        return x @ finite[:n, :n].T + finite[:n, n], finite[:n, :n]


def affine(name: str, matrix: Float[Tensor, "dim dim"], shift: Float[Tensor, "dim"] | None = None) -> Generator:
    """`xi = matrix x + shift`."""
    offset = matrix.new_zeros(len(matrix)) if shift is None else shift
    return Generator(name, lambda x, t: x @ matrix.to(x).T + offset.to(x), matrix, offset)


def translation(direction: Float[Tensor, "dim"], name: str = "translation") -> Generator:
    """`xi = e`; its charge is the momentum along `e`."""
    return affine(name, direction.new_zeros(len(direction), len(direction)), direction)


def rotation(
    first: Float[Tensor, "dim"], second: Float[Tensor, "dim"], centre: Float[Tensor, "dim"] | None = None, name: str = "rotation"
) -> Generator:
    """Turning from direction `first` towards `second` about `centre` (default: 0); its charge is the angular momentum `x_1 p_2 - x_2 p_1`.

    Raises:
        ArgumentError: directions that are not orthonormal.
    """
    gram = torch.stack([first, second]) @ torch.stack([first, second]).T
    if not torch.allclose(gram, torch.eye(2, dtype=gram.dtype, device=gram.device), atol=1e-5):
        raise ArgumentError("first, second", gram.tolist(), "orthonormal directions")
    matrix = torch.outer(second, first) - torch.outer(first, second)
    return affine(name, matrix, None if centre is None else -matrix @ centre)


def subspace_generators(directions: Float[Tensor, "r dim"], centre: Float[Tensor, "dim"] | None = None) -> list[Generator]:
    """Translations along orthonormal directions, and rotations in each plane of two of them."""
    moves = [translation(e, f"translation {i + 1}") for i, e in enumerate(directions)]
    pairs = [(i, j) for i in range(len(directions)) for j in range(i + 1, len(directions))]
    return moves + [rotation(directions[i], directions[j], centre, f"rotation {i + 1}-{j + 1}") for i, j in pairs]


def auto_generators(states: Float[Tensor, "n dim"]) -> list[Generator]:
    """All translations and rotations of the axes about 0; in more than 4 dimensions those of the states' three leading principal
    directions, about the states' mean.

    Raises:
        ShapeError: more than 4 dimensions, and fewer than 4 states.
    """
    dim = states.shape[1]
    if dim <= _ALL:
        return subspace_generators(torch.eye(dim, dtype=states.dtype, device=states.device))
    if len(states) <= _LEADING:
        raise ShapeError("states", tuple(states.shape), f"more than {_LEADING} states, to find their leading directions")
    centre = states.mean(0)
    return subspace_generators(torch.linalg.svd(states - centre, full_matrices=False).Vh[:_LEADING], centre)
