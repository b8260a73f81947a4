"""A sample is its seed's: whatever the batch, the chunks, the order, the dtype and the shape."""

from __future__ import annotations

import itertools

import pytest
import torch
from generated import F64, events, everyday, examples, grids, mixtures, numbers, seeds
from hypothesis import assume, given
from hypothesis import strategies as st

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import FlowMatching
from sfumato.sample import PRESETS, Sampler
from sfumato.seeds import noise

# one of each kind, all of which start without signal
SOLVERS = ["ddim", "ddpm", "heun", "dpm-solver++-2m", "sde-dpm-solver++-2m", "er-sde-3[k(exp(k^0.3)+10)]"]
solvers = st.sampled_from(SOLVERS)


class Bounded(Denoiser):
    """`tanh` of the state and the label, coordinate by coordinate: not affine, and the same bits whatever the batch."""

    def __init__(self, process):
        self.process, self.asked = process, 0

    def denoise(self, x, t, condition=None):
        self.asked += 1
        shift = 0.0 if condition is None else condition.to(x).reshape(-1, *[1] * (x.ndim - 1))
        return torch.tanh(x + shift)


def check_split(sampler, n, cuts, seed, tolerance):
    """Samples drawn in pieces, in chunks of any size, are those drawn at once."""
    whole = sampler.sample(n, seed, chunk=n)
    edges = sorted({0, n, *cuts})
    parts = [sampler.sample(b - a, seed, first=a, chunk=1 + (a + b) % 3) for a, b in itertools.pairwise(edges)]
    assert float((torch.cat(parts) - whole).abs().max()) <= tolerance
    return whole


@examples(30)
@given(solvers, everyday, grids(6, spread=0.05), events, st.integers(1, 7), st.lists(st.integers(0, 7), max_size=3), seeds)
def test_a_sample_depends_on_its_seed_and_number_alone(name, process, times, event, n, cuts, seed):
    """Bit by bit where the belief has the same bits in any batch, in float64 and in float32."""
    program = PRESETS[name].compile(process, times)
    for dtype in (F64, torch.float32):
        sampler = Sampler(Bounded(process), program, event, dtype)
        whole = check_split(sampler, n, [c for c in cuts if c < n], seed, 0.0)
        assert (whole.shape, whole.dtype) == ((n, *event), dtype)
        assert torch.equal(sampler.sample(n, seed), whole)
        assert bool(torch.isfinite(whole).all())
        # so much that two seeds agree nowhere
        if times[-1] > 0 or len(times) > 2:
            assert not torch.equal(sampler.sample(n, seed + 1), whole)


@examples(15)
@given(st.data(), solvers, everyday, grids(5, spread=0.1), events, st.integers(2, 6), seeds)
def test_exact_beliefs_keep_it_to_rounding(data, name, process, times, event, n, seed):
    law = data.draw(mixtures(event))
    program = PRESETS[name].compile(process, times)
    sampler = Sampler(law.denoiser(process), program, event, F64)
    size = max(float(t.abs().max()) for t in program.dense())
    assume(size < 1e3)
    check_split(sampler, n, [1], seed, 1e-9 * size)


@examples(30)
@given(solvers, everyday, grids(5), events, st.permutations(range(5)), seeds)
def test_seeds_in_another_order_give_the_samples_in_that_order(name, process, times, event, order, seed):
    sampler = Sampler(Bounded(process), PRESETS[name].compile(process, times), event, F64)
    listed = [seed + i for i in range(5)]
    whole = sampler.sample(5, listed)
    assert torch.equal(sampler.sample(5, [listed[i] for i in order]), whole[list(order)])


@examples(30)
@given(solvers, everyday, grids(5), events, st.lists(numbers(-2.0, 2.0), min_size=1, max_size=6), st.integers(1, 4), seeds)
def test_conditions_are_cut_with_the_batch(name, process, times, event, labels, chunk, seed):
    """In chunks, every sample has the answer to its own condition: as alone with it."""
    sampler = Sampler(Bounded(process), PRESETS[name].compile(process, times), event, F64)
    condition = torch.tensor(labels, dtype=F64)
    whole = sampler.sample(len(labels), seed, condition=condition, chunk=chunk)
    for i in range(len(labels)):
        alone = sampler.sample(1, seed, first=i, condition=condition[i : i + 1])
        assert torch.equal(alone[0], whole[i])


@examples(30)
@given(solvers, everyday, grids(6), st.integers(1, 7), st.integers(1, 4))
def test_evaluations_are_those_that_the_program_states(name, process, times, n, chunk):
    program = PRESETS[name].compile(process, times)
    belief = Bounded(process)
    Sampler(belief, program, (2,), F64).sample(n, chunk=chunk)
    chunks = -(-n // min(chunk, n))
    assert belief.asked == chunks * program.evaluations


@examples(30)
@given(
    solvers,
    everyday,
    grids(5),
    events,
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32, F64]),
    st.sampled_from(["cpu", "meta"]),
)
def test_states_have_the_samplers_dtype_and_device(name, process, times, event, dtype, device):
    """Also on the device without numbers, where only shapes are computed."""
    out = Sampler(Bounded(process), PRESETS[name].compile(process, times), event, dtype, device).sample(3)
    assert (out.shape, out.dtype, out.device.type) == ((3, *event), dtype, device)


@examples(30)
@given(solvers, grids(5, spread=0.05), st.integers(1, 5), seeds)
def test_a_single_precision_sample_is_the_rounded_one(name, times, n, seed):
    """Draws of both dtypes are the same numbers, coefficients are float64: the states differ by rounding."""
    process = FlowMatching()
    program = PRESETS[name].compile(process, times)
    fine, coarse = (Sampler(Bounded(process), program, (4,), dtype).sample(n, seed) for dtype in (F64, torch.float32))
    size = max(float(t.abs().max()) for t in program.dense())
    assume(size < 1e3)
    assert float((fine - coarse).abs().max()) < 1e-6 * (1 + size) * len(times) ** 2 * 10


def test_noise_of_the_batch_is_seen():
    """Negative control: a belief that looks at its batch is not one of the sample."""

    class Looks(Bounded):
        def denoise(self, x, t, condition=None):
            return super().denoise(x - 1e-6 * x.mean(0), t, condition)

    process = FlowMatching()
    program = PRESETS["ddim"].compile(process, (1.0, 0.5, 0.1))
    check_split(Sampler(Bounded(process), program, (2,), F64), 4, [1], 0, 0.0)
    with pytest.raises(AssertionError):
        check_split(Sampler(Looks(process), program, (2,), F64), 4, [1], 0, 1e-9)


draw_numbers = st.integers(0, 2**40)


@examples(60)
@given(st.integers(-(2**70), 2**70), st.integers(0, 10), st.integers(0, 6), events, draw_numbers)
def test_rows_of_a_large_draw_are_small_draws(seed, first, n, event, j):
    large = noise(seed, 17, event, dtype=F64)
    small = noise(seed, n, event, first=first, dtype=F64)
    assert torch.equal(large.draw(j)[first : first + n], small.draw(j))
    assert torch.equal(large[first : first + n].draw(j), small.draw(j))
    assert len(small) == n


@examples(40)
@given(st.integers(0, 2**64), events, draw_numbers, st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_draws_of_other_dtypes_are_the_same_numbers_rounded(seed, event, j, dtype):
    assert torch.equal(noise(seed, 3, event, dtype=dtype).draw(j), noise(seed, 3, event, dtype=F64).draw(j).to(dtype))


@examples(12)
@given(st.integers(0, 2**63), st.integers(0, 1000))
def test_draws_are_standard_normal_and_independent(seed, j):
    """Mean, variance, fourth moment and correlations of 4000 numbers within 6 standard errors."""
    source = noise(seed, 1000, (4,), dtype=F64)
    x, y = source.draw(j), source.draw(j + 1)
    n = x.numel()
    assert abs(float(x.mean())) < 6 / n**0.5
    assert abs(float(x.square().mean()) - 1) < 6 * (2 / n) ** 0.5
    assert abs(float((x**4).mean()) - 3) < 6 * (96 / n) ** 0.5
    assert abs(float((x * y).mean())) < 6 / n**0.5
    assert abs(float((x[1:] * x[:-1]).mean())) < 6 / (n - 4) ** 0.5
    assert abs(float((x * noise(seed + 1, 1000, (4,), dtype=F64).draw(j)).mean())) < 6 / n**0.5


@examples(20)
@given(st.booleans() | st.lists(st.integers(), max_size=6).filter(lambda v: len(v) != 3))
def test_other_seeds_are_refused(seed):
    with pytest.raises(ArgumentError, match="seed"):
        noise(seed, 3, (2,))
