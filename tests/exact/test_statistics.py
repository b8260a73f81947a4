"""Streamed statistics against numpy on all the data at once."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.exact import Moments, fit_gaussian

F64 = torch.float64


def data(n=300, event=(3, 4), seed=0, offset=1e4):
    g = torch.Generator().manual_seed(seed)
    return offset + torch.randn(n, *event, dtype=F64, generator=g) * torch.rand(event, dtype=F64, generator=g)


def test_moments_of_a_split_and_merged_stream_are_numpys():
    """Also at a mean of 1e4 standard deviations, where sums of squares would have lost eight digits."""
    x = data()
    left, right = Moments(12), Moments(12)
    for part in x[:200].split((1, 0, 99, 100)):
        left.update(part)
    right.update(x[200:])
    left.merge(right)
    flat = x.flatten(1).numpy()
    assert left.count == 300
    np.testing.assert_allclose(left.mean.numpy(), flat.mean(0), rtol=1e-15)
    np.testing.assert_allclose(left.covariance.numpy(), np.cov(flat.T, bias=True), atol=1e-13)
    diagonal = Moments(12, dense=False)
    diagonal.update(x)
    np.testing.assert_allclose(diagonal.variances.numpy(), flat.var(0), atol=1e-13)


def test_fitted_gaussian_has_the_datas_mean_and_covariance():
    x = data(offset=3.0)
    law = fit_gaussian([x[:50].float().double(), x[50:]])
    np.testing.assert_allclose(law.covariance.dense().numpy(), np.cov(x.flatten(1).numpy().T, bias=True), atol=1e-7)
    law = fit_gaussian(x)
    np.testing.assert_allclose(law.covariance.dense().numpy(), np.cov(x.flatten(1).numpy().T, bias=True), atol=1e-14)
    assert law.event_shape == (3, 4)
    values = np.linalg.eigvalsh(np.cov(x.flatten(1).numpy().T, bias=True))[::-1]
    cut = fit_gaussian(x, rank=5, floor=0.1)
    added = 0.1 * values.mean()
    np.testing.assert_allclose(cut.covariance.eigenvalues.numpy(), values[:5] + added, rtol=1e-12)
    np.testing.assert_allclose(cut.covariance.rest, values[5:].mean() + added, rtol=1e-12)


def test_low_rank_fit_in_many_dimensions_agrees_with_the_svd_of_the_data():
    """1,200 dimensions, a decaying spectrum: leading eigenvalues and subspace against numpy's SVD, the trace to rounding."""
    g = torch.Generator().manual_seed(0)
    scales = torch.arange(1.0, 61.0, dtype=F64) ** -1.0
    x = (torch.randn(400, 60, dtype=F64, generator=g) * scales) @ torch.randn(60, 1200, dtype=F64, generator=g)
    x = 2 + x + 0.01 * torch.randn(400, 1200, dtype=F64, generator=g)
    law = fit_gaussian([x[:150], x[150:]], rank=20)
    _, s, vt = np.linalg.svd(x.numpy() - x.numpy().mean(0), full_matrices=False)
    values = s**2 / 400
    np.testing.assert_allclose(law.covariance.eigenvalues[:10].numpy(), values[:10], rtol=1e-4)
    np.testing.assert_allclose(law.covariance.eigenvalues.numpy(), values[:20], rtol=0.02)
    np.testing.assert_allclose(float(law.covariance.trace()), values.sum(), rtol=1e-12)
    overlap = np.linalg.svd(vt[:8] @ law.covariance.basis.columns()[:, :8].numpy(), compute_uv=False)
    assert overlap.min() > 0.999
    closer = fit_gaussian([x[:150], x[150:]], rank=20, passes=6)
    assert abs(closer.covariance.eigenvalues[19] - values[19]) < abs(law.covariance.eigenvalues[19] - values[19])


@pytest.mark.parametrize("dim", [50, 1100])
def test_fewer_samples_than_dimensions(dim):
    x = torch.randn(8, dim, dtype=F64, generator=torch.Generator().manual_seed(0))
    law = fit_gaussian(x, rank=8)
    values = np.linalg.eigvalsh(np.cov(x.numpy(), bias=True))[::-1]
    assert int((law.covariance.eigenvalues > 1e-9).sum()) == 7
    np.testing.assert_allclose(float(law.covariance.trace()), x.numpy().var(0).sum(), rtol=1e-12)
    assert len(values) == 8


@pytest.mark.parametrize("dim", [12, 5000])
def test_a_rank_that_the_samples_cannot_have_is_refused(dim):
    x = torch.randn(8, dim, dtype=F64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match="8 samples"):
        fit_gaussian([x], 9)
    assert fit_gaussian([x], 8).covariance.rank == 8


def test_data_that_cannot_be_used_are_refused_by_name():
    x = data()
    with pytest.raises(DataError, match="constant"):
        fit_gaussian(torch.full((5, 3), 0.1))
    with pytest.raises(DataError, match="constant"):
        fit_gaussian(x[:1])
    with pytest.raises(DataError, match="NaN"):
        fit_gaussian([x, x * torch.nan])
    with pytest.raises(DataError, match="no samples"):
        fit_gaussian([])
    with pytest.raises(DataError, match="event shape"):
        fit_gaussian([x, x[:, :2]])
    with pytest.raises(DataError, match="Drop labels"):
        fit_gaussian(DataLoader(TensorDataset(x, x)))
    with pytest.raises(ArgumentError, match="several times"):
        fit_gaussian(iter([x]))
    with pytest.raises(ArgumentError, match="rank"):
        fit_gaussian(x, rank=13)
    with pytest.raises(ShapeError, match="12 elements"):
        Moments(12).update(x[:, :2])
    with pytest.raises(DataError, match="no samples"):
        _ = Moments(3).covariance
    with pytest.raises(ArgumentError, match="dense"):
        Moments(3).merge(Moments(3, dense=False))
