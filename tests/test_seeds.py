"""Statistical tests here have fixed seeds and false-alarm rates below 1e-6 each."""

from __future__ import annotations

import inspect
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sfumato.errors import ArgumentError
from sfumato.seeds import Noise, noise

FALSE_ALARM = 1e-6


def test_a_draw_is_the_documented_counter_based_stream():
    """Philox 4x64 keyed by (seed, sample), counted from (0, 0, draw, 0): numpy's own generator, set up by hand, gives the same numbers."""
    got = noise(9, 3, (5,), first=20, dtype=torch.float64).draw(4)[1]
    stream = np.random.Generator(np.random.Philox(key=np.array([9, 21], dtype=np.uint64), counter=np.array([0, 0, 4, 0], dtype=np.uint64)))
    assert got.tolist() == stream.standard_normal(5).tolist()


@settings(max_examples=25)
@given(cuts=st.sets(st.integers(1, 22), max_size=6), seed=st.integers(0, 2**64 - 1), j=st.integers(0, 1000))
def test_sample_17_is_bit_identical_however_the_batch_is_split(cuts, seed, j):
    whole = noise(seed, 23, (2, 3)).draw(j)
    edges = [0, *sorted(cuts), 23]
    parts = [noise(seed, high - low, (2, 3), first=low).draw(j) for low, high in pairwise(edges)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(noise(seed, 1, (2, 3), first=17).draw(j)[0], whole[17])


def test_slices_of_noise_are_slices_of_its_draws():
    whole = noise(3, 11, (4,))
    assert len(whole[5:9]) == 4
    assert torch.equal(whole[5:9].draw(2), whole.draw(2)[5:9])


def test_draws_can_be_addressed_in_any_order_and_again():
    draws = noise(1, 4, (3,))
    forward = [draws.draw(j) for j in range(6)]
    backward = [draws.draw(j) for j in reversed(range(6))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_dtype_sees_the_rounded_float64_draw(dtype):
    wide = noise(7, 5, (6,), dtype=torch.float64).draw(1)
    narrow = noise(7, 5, (6,), dtype=dtype).draw(1)
    assert narrow.dtype == dtype
    assert torch.equal(narrow, wide.to(dtype))


def test_the_event_shape_only_folds_the_draw():
    assert torch.equal(noise(7, 5, (12,)).draw(1), noise(7, 5, (3, 4)).draw(1).reshape(5, 12))


def test_draws_are_standard_normal():
    """Kolmogorov-Smirnov on 60000 numbers; then mean and variance at once by their own exact laws."""
    x = noise(123, 300, (200,), dtype=torch.float64).draw(3).flatten().numpy()
    assert stats.kstest(x, "norm").pvalue > FALSE_ALARM
    n = len(x)
    assert 2 * stats.norm.sf(abs(x.mean()) * np.sqrt(n)) > FALSE_ALARM
    spread = (x**2).sum()
    assert 2 * min(stats.chi2.sf(spread, n), stats.chi2.cdf(spread, n)) > FALSE_ALARM


def test_neighbouring_seeds_samples_and_draws_are_uncorrelated():
    """Streams that differ in one word of the address by 1, or with two words exchanged; the correlation of n normals is N(0, 1/n)."""
    n = 20000
    streams = [(s, i, j) for s in (0, 1, 2) for i in (0, 1, 2) for j in (0, 1, 2)]
    x = torch.cat([noise(s, 1, (n,), first=i, dtype=torch.float64).draw(j) for s, i, j in streams])
    correlation = (x @ x.T / n - torch.diag((x * x).sum(1) / n)).abs()
    pairs = len(streams) * (len(streams) - 1) / 2
    assert float(correlation.max()) < stats.norm.isf(FALSE_ALARM / (2 * pairs)) / np.sqrt(n)


def test_a_draw_does_not_continue_another():
    """Draw j of a long event must not run into draw j + 1: their counters are 2^128 apart, so no number occurs twice."""
    x = torch.cat([noise(5, 1, (30000,), dtype=torch.float64).draw(j).flatten() for j in range(4)])
    assert len(torch.unique(x)) == len(x)


def test_one_seed_per_sample_makes_a_sample_independent_of_its_place():
    listed = noise([11, 12, 11], 3, (4,)).draw(0)
    assert torch.equal(listed[0], listed[2])
    assert torch.equal(listed[1], noise([12], 1, (4,)).draw(0)[0])
    assert torch.equal(listed[0], noise(11, 1, (4,)).draw(0)[0])


def test_a_generator_gives_one_seed_and_moves_on():
    generator = torch.Generator().manual_seed(3)
    first, second = noise(generator, 2, (3,)), noise(generator, 2, (3,))
    assert torch.equal(first.draw(0), noise(torch.Generator().manual_seed(3), 2, (3,)).draw(0))
    assert not torch.equal(first.draw(0), second.draw(0))


def test_the_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(0)
    a = noise(4, 2, (3,)).draw(0)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    np_state = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(noise(4, 2, (3,)).draw(0), a)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == np_state  # noqa: NPY002


def test_negative_seeds_are_read_as_64_bit_words():
    assert torch.equal(noise(-1, 1, (3,)).draw(0), noise(2**64 - 1, 1, (3,)).draw(0))


@pytest.mark.parametrize("seed", [1.0, True, "17", [1, 2.0], [1, 2, 3], None], ids=repr)
def test_other_seeds_are_refused(seed):
    unchecked = inspect.unwrap(noise)  # the function's own errors, without the test run's type checks
    with pytest.raises(ArgumentError, match="seed: expected"):
        unchecked(seed, 2, (3,))


@pytest.mark.parametrize("counts", [{"batch": -1}, {"batch": 2, "first": -1}])
def test_negative_counts_are_refused(counts):
    with pytest.raises(ArgumentError, match="batch, first"):
        noise(0, event=(3,), **counts)


def test_a_negative_draw_is_refused():
    with pytest.raises(ArgumentError, match="draw number"):
        noise(0, 2, (3,)).draw(-1)


def test_no_samples_draw_nothing():
    assert noise(0, 0, (3,)).draw(0).shape == (0, 3)
    assert isinstance(noise([], 0, (3,)), Noise)
