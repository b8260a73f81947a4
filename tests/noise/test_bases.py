"""Basis matrices and Laplacians entry by entry, and where a basis is refused."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.linear_family.basis import (
    cosine_matrix,
    cosines,
    dense,
    eigenvectors,
    haar,
    haar_matrix,
    laplacian,
    pixels,
    wave_matrix,
    waves,
)

SMALL = {"rtol": 1e-14, "atol": 1e-14}


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def test_matrices_entry_by_entry():
    cosine = [[math.sqrt((1 if k == 0 else 2) / 5) * math.cos(math.pi * k * (2 * j + 1) / 10) for j in range(5)] for k in range(5)]
    torch.testing.assert_close(cosine_matrix(5), f64(cosine), **SMALL)
    wave = [[1.0] * 5] + [[f(2 * math.pi * k * j / 5) for j in range(5)] for k in (1, 2) for f in (math.cos, math.sin)]
    torch.testing.assert_close(wave_matrix(5), torch.nn.functional.normalize(f64(wave), dim=1), **SMALL)
    half = math.sqrt(0.5)
    torch.testing.assert_close(haar_matrix(4), f64([[0.5] * 4, [0.5, 0.5, -0.5, -0.5], [half, -half, 0, 0], [0, 0, half, -half]]), **SMALL)
    torch.testing.assert_close(haar_matrix(1), f64([[1.0]]), **SMALL)


def test_laplacians_add_the_squared_frequencies_of_the_axes():
    """Cosine `k` has the frequency `pi k / n`; waves come in pairs, `2 pi (0, 1, 1, 2, 2) / n`; an axis of channels has none."""
    line, pair = [0, (math.pi / 3) ** 2, (2 * math.pi / 3) ** 2], [0, (math.pi / 2) ** 2]
    torch.testing.assert_close(laplacian(cosines((2, 3))), f64([a + b for a in pair for b in line]), **SMALL)
    torch.testing.assert_close(laplacian(cosines((2, 3, 2), channels=True)), f64([a + b for a in line for b in pair] * 2), **SMALL)
    ring = [(2 * math.pi * k / 5) ** 2 for k in (0, 1, 1, 2, 2)]
    torch.testing.assert_close(laplacian(waves((5,))), f64(ring), **SMALL)
    torch.testing.assert_close(laplacian(waves((2, 5), channels=True)), f64(ring * 2), **SMALL)
    for basis in (haar((4,)), pixels((4,))):
        with pytest.raises(ArgumentError, match="cosines or waves"):
            laplacian(basis)


def test_which_bases_are_the_same():
    columns = torch.eye(4, dtype=torch.float64)
    eigen = eigenvectors(columns)
    assert eigen.same(eigen)
    assert not eigen.same(eigenvectors(columns))
    assert cosines((2, 2)).same(cosines((2, 2)))
    assert not cosines((2, 2)).same(cosines((4,)))
    assert not cosines((2, 2)).same(waves((2, 2)))
    assert not cosines((2, 2)).same(cosines((2, 2), channels=True))
    assert (dense((2, 3)).modes, pixels((2, 3)).modes, dense((2, 3)).coordinates) == (1, 6, 6)


def test_where_a_basis_is_refused():
    for make in (
        lambda: pixels(()),
        lambda: pixels((2, 0)),
        lambda: cosines((4,), channels=True),
        lambda: haar((6,)),
        lambda: eigenvectors(torch.eye(4).double(), (3,)),
    ):
        with pytest.raises(ShapeError):
            make()
    tilted = torch.eye(2, dtype=torch.float64)
    tilted[0, 1] = 0.9e-8
    eigenvectors(tilted)
    tilted[0, 1] = 1.1e-8
    with pytest.raises(ArgumentError, match="orthonormal"):
        eigenvectors(tilted)
    assert cosines((1, 4), channels=True).shape == (1, 4)
    assert eigenvectors(torch.eye(4).double(), (2, 2)).shape == (2, 2)
