"""Spectral covariances against dense linear algebra."""

import math

import numpy as np
import pytest
import scipy.fft
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import SpectralCovariance
from sfumato.exact.spectral.basis import CosineBasis

F64 = torch.float64


def spd(dim, seed=0):
    a = torch.randn(dim, dim, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return a @ a.T / dim + 0.1 * torch.eye(dim, dtype=F64)


def low_rank(dim=7, rank=3, rest=0.4):
    q = torch.linalg.qr(spd(dim, 1))[0][:, :rank]
    return SpectralCovariance.low_rank(q, torch.tensor([0.2, 3.0, 1.5], dtype=F64), rest)


KINDS = {
    "dense": lambda: SpectralCovariance.from_dense(spd(6)),
    "truncated": lambda: SpectralCovariance.from_dense(spd(6), rank=2),
    "low-rank": low_rank,
    "cosine": lambda: SpectralCovariance.dct((2, 3, 4), torch.arange(1.0, 25.0, dtype=F64), channels=True),
    "diagonal": lambda: SpectralCovariance.diagonal(torch.tensor([0.3, 2.0, 5.0], dtype=F64)),
    "isotropic": lambda: SpectralCovariance.isotropic(4, 2.5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_operation_agrees_with_dense_algebra(kind):
    c = KINDS[kind]()
    dense = c.dense()
    x = torch.randn(5, c.dim, dtype=F64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(c.matmul(x), x @ dense, rtol=0, atol=1e-12)
    torch.testing.assert_close(c.solve(x), torch.linalg.solve(dense, x.T).T, rtol=0, atol=1e-12)
    torch.testing.assert_close(c.sqrt_matmul(c.sqrt_matmul(x)), x @ dense, rtol=0, atol=1e-12)
    torch.testing.assert_close(c.logdet(), torch.linalg.slogdet(dense).logabsdet, rtol=1e-12, atol=0)
    torch.testing.assert_close(c.trace(), dense.trace(), rtol=1e-13, atol=0)
    torch.testing.assert_close(c.map(lambda v: 2 * v + 1).dense(), 2 * dense + torch.eye(c.dim, dtype=F64), rtol=0, atol=1e-12)
    assert c.map(torch.sqrt).basis is c.basis
    torch.testing.assert_close(c.project(c.lift(c.project(x))), c.project(x), rtol=0, atol=1e-13)
    per_sample = c.apply(lambda v: torch.arange(5.0, dtype=F64)[:, None] * v, x)
    torch.testing.assert_close(per_sample, torch.arange(5.0, dtype=F64)[:, None] * (x @ dense), rtol=0, atol=1e-11)


def test_from_dense_returns_the_matrix_and_a_truncation_keeps_the_trace():
    matrix = spd(6)
    torch.testing.assert_close(SpectralCovariance.from_dense(matrix).dense(), matrix, rtol=0, atol=1e-14)
    cut = SpectralCovariance.from_dense(matrix, rank=2)
    values = torch.linalg.eigvalsh(matrix).flip(0)
    torch.testing.assert_close(cut.eigenvalues, values[:2], rtol=1e-12, atol=0)
    assert math.isclose(cut.rest, float(values[2:].mean()), rel_tol=1e-12)
    torch.testing.assert_close(cut.trace(), matrix.trace(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("shape", [(8,), (5, 7), (3, 4, 6)])
def test_cosine_basis_is_the_orthonormal_dct_of_scipy(shape):
    basis = CosineBasis(shape)
    x = torch.randn(3, basis.dim, dtype=F64, generator=torch.Generator().manual_seed(0))
    theirs = scipy.fft.dctn(x.numpy().reshape(3, *shape), type=2, norm="ortho", axes=range(1, 1 + len(shape)))
    np.testing.assert_allclose(basis.project(x).numpy(), theirs.reshape(3, -1), atol=1e-13)
    torch.testing.assert_close(basis.lift(basis.project(x)), x, rtol=0, atol=1e-13)


def test_channels_are_left_as_they_are():
    basis = CosineBasis((3, 4, 5), channels=True)
    x = torch.randn(2, 60, dtype=F64, generator=torch.Generator().manual_seed(0))
    theirs = scipy.fft.dctn(x.numpy().reshape(2, 3, 4, 5), type=2, norm="ortho", axes=(2, 3))
    np.testing.assert_allclose(basis.project(x).numpy(), theirs.reshape(2, -1), atol=1e-13)


def test_a_singular_covariance_exists_and_only_its_inverse_is_refused():
    a = torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    c = SpectralCovariance.from_dense(a @ a.T)
    assert int((c.eigenvalues == 0).sum()) == 3
    x = torch.randn(4, 5, dtype=F64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(c.matmul(x), x @ a @ a.T, rtol=0, atol=1e-13)
    for refused in (c.logdet, lambda: c.solve(x)):
        with pytest.raises(ArgumentError, match="without variance in 3 of 5 directions"):
            refused()


def test_computing_in_float32_agrees_to_float32_and_comes_back_unchanged():
    c = low_rank()
    x = torch.randn(4, 7, dtype=F64, generator=torch.Generator().manual_seed(1))
    single = c.to(torch.float32)
    assert single.eigenvalues.dtype == F64
    torch.testing.assert_close(single.solve(x).double(), c.solve(x), rtol=1e-5, atol=1e-5)
    assert c.to(F64) is c


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: SpectralCovariance.from_dense(torch.ones(2, 3)), ShapeError, "square"),
        (lambda: SpectralCovariance.from_dense(torch.tensor([[1.0, math.nan], [math.nan, 1.0]])), ArgumentError, "finite"),
        (lambda: SpectralCovariance.from_dense(torch.tensor([[1.0, 0.5], [0.0, 1.0]])), ArgumentError, "symmetric"),
        (lambda: SpectralCovariance.from_dense(torch.tensor([[1.0, 2.0], [2.0, 1.0]])), ArgumentError, "least eigenvalue of -1"),
        (lambda: SpectralCovariance.from_dense(torch.eye(2), rank=3), ArgumentError, r"rank in \[0, 2\]"),
        (lambda: SpectralCovariance.low_rank(torch.ones(3, 2), torch.ones(2), 0.0), ArgumentError, "orthonormal"),
        (lambda: SpectralCovariance.low_rank(torch.eye(3)[:, :2], torch.ones(3), 0.0), ShapeError, "one per column"),
        (lambda: SpectralCovariance.diagonal(torch.tensor([1.0, -1.0])), ArgumentError, "at least 0"),
        (lambda: SpectralCovariance.isotropic(3, math.nan), ArgumentError, "rest"),
        (lambda: SpectralCovariance.isotropic(3, 1.0).matmul(torch.ones(2, 4)), ShapeError, r"\(batch, 3\)"),
        (lambda: SpectralCovariance.dct((), torch.ones(1)), ShapeError, "event shape"),
    ],
)
def test_what_is_no_covariance_is_refused_by_name(make, error, match):
    with pytest.raises(error, match=match):
        make()
