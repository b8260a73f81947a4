"""Distances between samples of any size and shape: what no distance may depend on, and where each is zero."""

from __future__ import annotations

import pytest
import torch
from generated import F64, examples, numbers, orthogonal, seeds, tensor
from hypothesis import given
from hypothesis import strategies as st

from sfumato.metrics import energy_distance, frechet_distance, gaussian_w2, mmd, sliced_wasserstein, wasserstein_1d

shapes = st.sampled_from([(), (1,), (3,), (2, 2)])
counts = st.integers(4, 12)


def fixed_mmd(x, y, block=2048):
    return mmd(x, y, [0.7, 2.0], block)


DISTANCES = {"energy": energy_distance, "mmd": fixed_mmd}
distances = st.sampled_from(sorted(DISTANCES))


def close(a, b):
    assert a.value == pytest.approx(b.value, rel=1e-8, abs=1e-9)
    assert a.standard_error == pytest.approx(b.standard_error, rel=1e-6, abs=1e-7)


def check_invariant(distance, x, y, seed):
    """Symmetric; the same for batches in another order, and for both moved alike."""
    generator = torch.Generator().manual_seed(seed)
    here = distance(x, y)
    close(distance(y, x), here)
    close(distance(x[torch.randperm(len(x), generator=generator)], y[torch.randperm(len(y), generator=generator)]), here)
    a, b = (v.reshape(len(v), -1) for v in (x, y))
    turn, shift = orthogonal(a.shape[1], seed), tensor((a.shape[1],), seed + 1)
    close(distance(a @ turn.T + shift, b @ turn.T + shift), here)


@examples(40)
@given(distances, counts, counts, shapes, seeds)
def test_distances_of_samples_know_no_order_and_no_axes(name, n, m, shape, seed):
    x, y = tensor((n, *shape), seed), tensor((m, *shape), seed + 1) + 0.5
    check_invariant(DISTANCES[name], x, y, seed)
    close(DISTANCES[name](x, y, block=3), DISTANCES[name](x, y))


@examples(30)
@given(counts, shapes, seeds, numbers(0.0, 2.0))
def test_coordinates_in_another_order_are_the_same_samples(n, shape, seed, shift):
    """Also where the bandwidths come of the samples, and for the moments' distance, whose blocks are of samples by number."""
    x, y = tensor((n, *shape), seed), tensor((n, *shape), seed + 1) + shift
    a, b = (v.reshape(n, -1).flip(1) for v in (x, y))
    close(mmd(a, b), mmd(x, y))
    one, other = frechet_distance(a, b), frechet_distance(x, y)
    assert one.value == pytest.approx(other.value, rel=1e-6, abs=1e-6)
    assert one.value + one.bias == pytest.approx(other.value + other.bias, rel=1e-6, abs=1e-6)


@examples(30)
@given(counts, shapes, seeds)
def test_a_sample_is_at_no_distance_from_itself(n, shape, seed):
    """Plug-in distances are 0; unbiased ones, which leave out each sample's own pair, are negative."""
    x = tensor((n, *shape), seed)
    assert energy_distance(x, x).value <= 1e-12
    assert fixed_mmd(x, x).value <= 1e-12
    plug_in = frechet_distance(x, x)
    assert plug_in.value + plug_in.bias == pytest.approx(0, abs=1e-6)
    assert sliced_wasserstein(x, x, 8).value == 0
    assert wasserstein_1d(x.flatten(), x.flatten()) == 0


@examples(40)
@given(counts, counts, shapes, seeds, st.sampled_from([1, 2, 3]))
def test_wasserstein_distances_are_metrics(n, m, shape, seed, p):
    """Symmetric, blind to order, moved by a shift by its length, and no longer way round."""
    x, y, z = (tensor((k, *shape), seed + i) for i, k in enumerate((n, m, n)))
    u, v, w = (a.reshape(-1) for a in (x, y, z))
    there = wasserstein_1d(u, v, p)
    assert wasserstein_1d(v.flip(0), u, p) == pytest.approx(there, rel=1e-12)
    assert wasserstein_1d(u, u + 0.75, p) == pytest.approx(0.75, rel=1e-9)
    assert there <= wasserstein_1d(u, w, p) + wasserstein_1d(w, v, p) + 1e-9
    sliced = sliced_wasserstein(x, y, 8, p)
    other = sliced_wasserstein(y.flip(0), x.flip(0), 8, p)
    assert other.value == pytest.approx(sliced.value, rel=1e-9, abs=1e-12)
    assert wasserstein_1d(torch.cat([u, u]), v, p) == pytest.approx(there, rel=1e-9, abs=1e-9)


def _covariance(d, seed):
    root = tensor((d, d), seed)
    return root @ root.T


@examples(40)
@given(st.integers(1, 5), seeds, numbers(0.1, 3.0))
def test_the_gaussian_distance_is_a_metric_of_laws(d, seed, factor):
    """Symmetric, zero on itself, the same in turned axes, in proportion to size, and no longer way round; singular laws, too."""
    laws = [(tensor((d,), seed + i), _covariance(d, seed + 10 + i)) for i in range(3)]
    laws[2][1][-1, :] = laws[2][1][:, -1] = 0
    (m, a), (k, b), (q, c) = laws
    there = gaussian_w2(m, a, k, b)
    assert gaussian_w2(k, b, m, a) == pytest.approx(there, rel=1e-8)
    assert gaussian_w2(m, a, m, a) < 1e-6
    turn = orthogonal(d, seed)
    sym = [(turn @ v @ turn.T + (turn @ v @ turn.T).T) / 2 for v in (a, b)]
    assert gaussian_w2(turn @ m, sym[0], turn @ k, sym[1]) == pytest.approx(there, rel=1e-7)
    assert gaussian_w2(factor * m, factor**2 * a, factor * k, factor**2 * b) == pytest.approx(factor * there, rel=1e-8)
    assert there <= gaussian_w2(m, a, q, c) + gaussian_w2(q, c, k, b) + 1e-8
    assert gaussian_w2(m, a, m + 2, a) == pytest.approx(2 * d**0.5, rel=1e-6)


@examples(20)
@given(counts, seeds, st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_samples_of_any_dtype_are_measured_in_float64(n, seed, dtype):
    x, y = tensor((n, 3), seed, dtype), tensor((n, 3), seed + 1, dtype)
    for distance in (energy_distance, fixed_mmd, frechet_distance):
        assert distance(x, y) == distance(x.to(F64), y.to(F64))


def test_a_lopsided_distance_is_seen():
    """Negative control: one that weighs its first sample by order."""

    def lopsided(x, y):
        return energy_distance(x * (1 + 1e-4 * torch.arange(len(x), dtype=F64)[:, None]), y)

    x, y = tensor((6, 2), 0), tensor((5, 2), 1) + 1
    check_invariant(energy_distance, x, y, 0)
    with pytest.raises(AssertionError):
        check_invariant(lopsided, x, y, 0)
