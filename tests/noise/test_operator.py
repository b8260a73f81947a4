"""Structured operators against the dense matrices they stand for, in random structures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import Operator
from sfumato.noise.linear_family.basis import cosines, dense, eigenvectors, haar, laplacian, pixels, waves

EVENT = (2, 4)
TURN = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
BASES = [
    None,
    pixels(EVENT),
    cosines(EVENT),
    cosines(EVENT, channels=True),
    waves(EVENT),
    haar(EVENT),
    eigenvectors(TURN, EVENT),
    dense(EVENT),
]
some_basis = st.sampled_from(BASES)
seeds = st.integers(0, 10_000)


def random_operator(basis, seed, out=2, into=2, batch=()):
    generator = torch.Generator().manual_seed(seed)
    n, d = (1, 1) if basis is None else (basis.modes, basis.coordinates if basis.name == "dense" else 1)
    return Operator(torch.randn(*batch, n, out * d, into * d, dtype=torch.float64, generator=generator), basis)


def positive(operator):
    return operator @ operator.T + Operator(0.1 * torch.eye(operator.coef.shape[-1], dtype=torch.float64)[None], operator.basis)


@pytest.mark.parametrize("basis", BASES[1:-1], ids=lambda b: b.name)
def test_bases_are_orthonormal_and_go_back(basis):
    matrix = basis.matrix()
    assert torch.allclose(matrix @ matrix.T, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-14)
    x = torch.randn(3, 2, *EVENT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(basis.from_modes(basis.to_modes(x)), x, rtol=0, atol=1e-14)
    assert torch.allclose(basis.to_modes(x), torch.einsum("nd,bkd->bnk", matrix, x.flatten(2)), rtol=0, atol=1e-14)


def test_cosines_and_waves_are_those_of_scipy():
    """The orthonormal DCT-II, and the real and imaginary parts of the Fourier transform up to normalisation."""
    from scipy.fft import dct, rfft

    x = np.random.default_rng(0).standard_normal(7)
    state = torch.from_numpy(x)[None, None]
    assert np.allclose(cosines((7,)).to_modes(state)[0, :, 0].numpy(), dct(x, norm="ortho"), atol=1e-14)
    ours, theirs = waves((7,)).to_modes(state)[0, :, 0].numpy(), rfft(x, norm="ortho")
    assert np.allclose(ours[1::2], math.sqrt(2) * theirs.real[1:], atol=1e-14)
    assert np.allclose(ours[2::2], -math.sqrt(2) * theirs.imag[1:], atol=1e-14)


def test_cosines_are_eigenvectors_of_the_laplacian_at_low_frequency():
    """The grid's second difference with reflecting ends has the eigenvalues `4 sin^2(pi k / 2n)`, close to `(pi k / n)^2` for small `k`."""
    n = 32
    basis = cosines((n,))
    second = 2 * torch.eye(n, dtype=torch.float64) - torch.diag(torch.ones(n - 1).double(), 1) - torch.diag(torch.ones(n - 1).double(), -1)
    second[0, 0] = second[-1, -1] = 1
    diagonal = basis.matrix() @ second @ basis.matrix().T
    assert float((diagonal - torch.diag(diagonal.diag())).abs().max()) < 1e-13
    assert torch.allclose(diagonal.diag()[:4], laplacian(basis)[:4], rtol=0.01)


@given(some_basis, some_basis, seeds)
def test_products_and_sums_of_any_two_structures_are_those_of_the_matrices(first, second, seed):
    a, b = random_operator(first, seed), random_operator(second, seed + 1)
    assert torch.allclose((a @ b).matrix(EVENT), a.matrix(EVENT) @ b.matrix(EVENT), rtol=0, atol=1e-12)
    assert torch.allclose((a - b).matrix(EVENT), a.matrix(EVENT) - b.matrix(EVENT), rtol=0, atol=1e-12)


@given(some_basis, seeds)
def test_functions_of_an_operator_are_those_of_the_matrix(basis, seed):
    a = positive(random_operator(basis, seed))
    full = a.matrix(EVENT)
    assert torch.allclose(a.inverse().matrix(EVENT) @ full, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-8)
    assert torch.allclose(a.sqrt().matrix(EVENT) @ a.sqrt().matrix(EVENT), full, rtol=0, atol=1e-10)
    assert torch.allclose(a.cholesky().matrix(EVENT) @ a.cholesky().T.matrix(EVENT), full, rtol=0, atol=1e-10)
    assert float(a.logdet(8)) == pytest.approx(float(torch.linalg.slogdet(full).logabsdet), abs=1e-8)
    assert float(a.trace(8)) == pytest.approx(float(full.trace()), rel=1e-12)


@given(some_basis, seeds, st.sampled_from([(2, 2), (2, 1), (1, 2), (1, 1)]), st.booleans())
def test_applying_is_multiplying_also_one_operator_per_sample(basis, seed, channels, batched):
    out, into = channels
    a = random_operator(basis, seed, out, into, (3,) if batched else ())
    shape = EVENT if into == 1 else (into, *EVENT)
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    matrices = a.matrix(EVENT).expand(3, out * 8, into * 8)
    assert torch.allclose(a.apply(x).flatten(1), torch.einsum("bij,bj->bi", matrices, x.flatten(1)), rtol=0, atol=1e-12)
    assert a.apply(x.float()).dtype == torch.float32


def test_two_bases_beyond_256_numbers_are_refused_by_name():
    a, b = random_operator(pixels((20, 20)), 0, 1, 1), random_operator(cosines((20, 20)), 0, 1, 1)
    with pytest.raises(ArgumentError, match=r"pixels of \(20, 20\).*cosines of \(20, 20\).*400 > 256"):
        a @ b
    assert (a @ a).coef.shape == (400, 1, 1)
    # of channels the most count: two out of one on 200 places are 400 numbers, on 128 they are 256
    with pytest.raises(ArgumentError, match="Together they are dense on 400 > 256"):
        random_operator(pixels((200,)), 0, 2, 1) @ random_operator(cosines((200,)), 0, 1, 1)
    both = random_operator(pixels((128,)), 0, 2, 1) @ random_operator(cosines((128,)), 0, 1, 1)
    assert both.coef.shape == (1, 256, 128)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Operator(torch.ones(3, 1, 1), pixels((4,))), "coef"),
        (lambda: Operator(torch.ones(2, 2)), "coef"),
        (lambda: random_operator(pixels((4,)), 0).apply(torch.ones(3, 2, 5)), "x"),
        (lambda: random_operator(None, 0).apply(torch.ones(3, 3, 5)), "x"),
        (lambda: random_operator(None, 0, batch=(4,)).apply(torch.ones(3, 2, 5)), "t"),
        (lambda: random_operator(pixels((4,)), 0) @ random_operator(pixels((5,)), 0), "operators"),
        (lambda: random_operator(pixels((4,)), 0).trace(5), "coordinates"),
        (lambda: haar((6,)), "powers of 2"),
        (lambda: cosines((4, 0)), "shape"),
        (lambda: waves((4,), channels=True), "channel"),
        (lambda: eigenvectors(torch.eye(3), (2, 2)), "columns"),
    ],
)
def test_shapes_that_do_not_fit_are_named(wrong, message):
    with pytest.raises(ShapeError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Operator(torch.zeros(1, 2, 2)).inverse(), "singular"),
        (lambda: Operator(torch.ones(1, 2, 1)).inverse(), "square"),
        (lambda: Operator(-torch.ones(1, 1, 1)).sqrt(), "positive semi-definite"),
        (lambda: Operator(torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])).cholesky(), "positive semi-definite"),
        (lambda: eigenvectors(torch.ones(2, 2)), "orthonormal"),
        (lambda: laplacian(haar((4,))), "cosines or waves"),
        (lambda: random_operator(None, 0).dense((300,)), "256"),
    ],
)
def test_operators_without_the_answer_say_so(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        wrong()


def test_a_direction_without_variance_has_a_column_of_zeros():
    factor = Operator(torch.tensor([[[0.0, 0.0], [0.0, 4.0]]], dtype=torch.float64)).cholesky()
    assert factor.coef.tolist() == [[[0.0, 0.0], [0.0, 2.0]]]


def test_channels_of_single_numbers_have_no_event():
    """States `(batch, K)`: a matrix of channels on samples that are a number each."""
    matrix = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(Operator(matrix[None], None).apply(x), x @ matrix.T, rtol=1e-14, atol=1e-14)


def test_rounding_below_zero_is_no_variance():
    """An eigenvalue of -1e-12 of the largest is 0 to rounding; one of -1e-8 is refused."""

    def block(least):
        return Operator(torch.diag(torch.tensor([1.0, least], dtype=torch.float64))[None], None)

    assert block(-1e-12).cholesky().coef[0].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    with pytest.raises(ArgumentError, match="semi-definite"):
        block(-1e-8).cholesky()
