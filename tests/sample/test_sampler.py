from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.sample import PRESETS, Exponential, Linearisation, Program, Row, Sampler, response, run, uniform_log_snr
from sfumato.seeds import noise

PROCESS = VariancePreserving()
TIMES = uniform_log_snr(PROCESS, 4)


def stochastic():
    """A table of three steps that draws noise at each, DDPM's own form."""
    rows = [Row()]
    times = torch.tensor([1.0, 0.6, 0.3, 0.0], dtype=torch.float64)
    alpha, sigma = PROCESS.alpha(times), PROCESS.sigma(times)
    for i in range(1, 4):
        forward = PROCESS.transition(times[i], times[i - 1])
        keep = forward.phi * sigma[i] ** 2 / sigma[i - 1] ** 2
        spread = torch.sqrt(forward.covariance) * sigma[i] / sigma[i - 1]
        rows.append(Row({i - 1: keep[None]}, {i - 1: (alpha[i] - keep * alpha[i - 1])[None]}, {i: spread[None]} if i < 3 else {}))
    return Program("ancestral", PROCESS, tuple(times.tolist()), tuple(rows))


@pytest.fixture(params=["deterministic", "spectral", "stochastic"])
def sampler(request, full_gaussian):
    split = Linearisation.gaussian(full_gaussian) if request.param == "spectral" else Linearisation.data()
    program = stochastic() if request.param == "stochastic" else Exponential(split, 2).compile(PROCESS, TIMES)
    return Sampler(full_gaussian.denoiser(PROCESS), program, (3, 4), torch.float64)


@settings(max_examples=8)
@given(first=st.integers(0, 12), n=st.integers(8, 20))
def test_a_sample_is_bit_identical_whatever_n_and_first_in_chunks_of_one_size(first, n, full_gaussian):
    program = stochastic()
    sampler = Sampler(full_gaussian.denoiser(PROCESS), program, (3, 4))
    whole = sampler.sample(32, seed=5, chunk=8)
    assert torch.equal(sampler.sample(n, seed=5, first=first, chunk=8), whole[first : first + n])


def test_resuming_continues_bit_by_bit(sampler):
    whole = sampler.sample(24, seed=3, chunk=8)
    parts = [sampler.sample(8, seed=3, first=8 * i, chunk=8) for i in range(3)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_other_chunks_change_no_more_than_rounding(sampler, dtype):
    sampler = Sampler(sampler.denoiser, sampler.program, (3, 4), dtype)
    whole = sampler.sample(10, seed=3, chunk=10)
    for chunk in (1, 4, 7, 256):
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(sampler.sample(10, seed=3, chunk=chunk), whole, rtol=0, atol=200 * eps)


def test_seeds_matter_and_repeat(sampler):
    assert torch.equal(sampler.sample(4, seed=1), sampler.sample(4, seed=1))
    assert float((sampler.sample(4, seed=1) - sampler.sample(4, seed=2)).abs().min()) > 0


def test_a_seed_per_sample_and_a_generator(sampler):
    listed = sampler.sample(3, seed=[7, 8, 7])
    assert torch.equal(listed[0], listed[2])
    torch.testing.assert_close(listed[1], sampler.sample(1, seed=8)[0], rtol=0, atol=1e-12)
    a, b = (sampler.sample(2, seed=torch.Generator().manual_seed(6)) for _ in range(2))
    assert torch.equal(a, b)


def test_sampling_is_running_the_program_from_draw_0(sampler):
    draws = noise(11, 5, (3, 4), dtype=torch.float64)
    x = PROCESS.prior_std * draws.draw(0)
    expected = run(sampler.program, sampler.denoiser.denoise, x, draws)
    torch.testing.assert_close(sampler.sample(5, seed=11), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("process", [EDM(80.0), FlowMatching()], ids=lambda p: p.kind)
def test_starts_below_the_prior_are_noise_of_their_level(process, full_gaussian):
    program = Exponential(Linearisation.data(), 1).compile(process, (0.5, 0.0))
    sampler = Sampler(full_gaussian.denoiser(process), program, (3, 4), torch.float64)
    draws = noise(2, 3, (3, 4), dtype=torch.float64)
    torch.testing.assert_close(sampler.start(draws), process.sigma(0.5) * draws.draw(0), rtol=1e-15, atol=0)
    whole = Sampler(sampler.denoiser, Exponential(Linearisation.data(), 1).compile(process, (1.0, 0.0)), (3, 4), torch.float64)
    torch.testing.assert_close(whole.start(draws), process.prior_std * draws.draw(0), rtol=1e-15, atol=0)


def test_the_denoiser_is_asked_under_the_programs_process(full_gaussian):
    """A belief under EDM and one under flow matching give the same samples of a variance-preserving program."""
    program = Exponential(Linearisation.data(), 2).compile(PROCESS, TIMES)
    own = Sampler(full_gaussian.denoiser(PROCESS), program, (3, 4), torch.float64).sample(4)
    for process in (EDM(200.0), FlowMatching()):
        other = Sampler(full_gaussian.denoiser(process), program, (3, 4), torch.float64).sample(4)
        torch.testing.assert_close(other, own, rtol=0, atol=1e-10)


def test_a_given_start_is_used_verbatim(sampler):
    start = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    events = sampler.trajectory(5, start=start)
    assert torch.equal(events[0].state, start)
    chunks = []
    sampler.sample(5, start=start, chunk=2, on_node=lambda e: chunks.append(e.state) if e.node == 0 else None)
    # the last chunk is filled with its last sample
    assert torch.equal(torch.cat(chunks), torch.cat([start, start[-1:]]))
    torch.testing.assert_close(sampler.sample(5, start=start, chunk=2), sampler.sample(5, start=start), rtol=0, atol=1e-13)


def test_a_trajectory_ends_at_the_sample(sampler):
    events = sampler.trajectory(6, seed=4)
    assert [e.node for e in events] == list(range(len(sampler.program.rows)))
    assert torch.equal(events[-1].state, sampler.sample(6, seed=4, chunk=6))
    assert torch.equal(events[0].state, sampler.start(noise(4, 6, (3, 4), dtype=torch.float64)))


class Labelled(Denoiser):
    """The belief that all data are the label."""

    process = PROCESS

    def denoise(self, x, t, condition=None):
        assert condition.shape[0] == x.shape[0]
        return condition.to(x).reshape(-1, *[1] * (x.ndim - 1)).expand_as(x)


@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
def test_every_sample_gets_its_own_condition(chunk):
    program = Exponential(Linearisation.data(), 1).compile(FlowMatching(), (1.0, 0.4, 0.0))
    labels = torch.arange(10)
    out = Sampler(Labelled(), program, (2,)).sample(10, condition=labels, chunk=chunk)
    # the step to zero noise returns the belief
    assert torch.equal(out, labels[:, None].expand(10, 2).float())


def test_progress_counts_samples(sampler):
    done = []
    sampler.sample(10, chunk=4, progress=done.append)
    assert done == [4, 8, 10]


def test_no_graph_is_recorded(full_gaussian):
    program = Exponential(Linearisation.data(), 1).compile(PROCESS, TIMES)
    start = torch.zeros(2, 3, 4, requires_grad=True)
    assert not Sampler(full_gaussian.denoiser(PROCESS), program, (3, 4)).sample(2, start=start).requires_grad


def test_samples_have_the_law_that_the_response_says():
    """Each mode's exact output law against its own samples, by Kolmogorov-Smirnov; false alarms below 1e-6 in all."""
    variances = torch.tensor([2.0, 0.4, 0.05], dtype=torch.float64)
    law = Gaussian(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), SpectralCovariance.diagonal(variances))
    program = stochastic()
    x = Sampler(law.denoiser(PROCESS), program, (3,), torch.float64).sample(4000, seed=8, chunk=1000)
    answer = response(program, law)
    spread = torch.sqrt(answer.variance(PROCESS.prior_std**2))
    for mode in range(3):
        z = (x[:, mode] - answer.mean[mode] * law.mean[mode]) / spread[mode]
        assert stats.kstest(z.numpy(), "norm").pvalue > 1e-6 / 4
    # negative control: three coarse steps are far enough from the law itself to be seen
    off = (x[:, 0] - law.mean[0]) / 2**0.5
    assert stats.kstest(off.numpy(), "norm").pvalue < 1e-6


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        ({"n": 0}, ArgumentError, "n, chunk"),
        ({"n": 2, "chunk": 0}, ArgumentError, "n, chunk"),
        ({"n": 2, "start": torch.zeros(3, 3, 4)}, ShapeError, "start"),
        ({"n": 2, "start": torch.zeros(2, 4, 3)}, ShapeError, "start"),
        ({"n": 2, "condition": torch.zeros(3)}, ShapeError, "condition"),
        ({"n": 2, "seed": [1, 2, 3]}, ArgumentError, "seed"),
        ({"n": 2, "first": -1}, ArgumentError, "first"),
    ],
)
def test_bad_arguments_are_refused(sampler, arguments, error, what):
    with pytest.raises(error, match=what):
        sampler.sample(**arguments)


def test_events_of_another_size_than_the_law_are_refused(full_gaussian):
    program = Exponential(Linearisation.gaussian(full_gaussian), 1).compile(PROCESS, TIMES)
    with pytest.raises(ArgumentError, match="12 numbers"):
        Sampler(full_gaussian.denoiser(PROCESS), program, (3, 5)).sample(1)


def test_an_unknown_preset_is_answered_with_the_nearest_names():
    with pytest.raises(ArgumentError, match=r"such as heun, got heun3"):
        PRESETS["heun3"]
    assert PRESETS.get("heun3") is None


@pytest.mark.parametrize("shape", [64, [3, 8], (3, 0), (2.0,)])
def test_an_event_shape_that_is_no_tuple_of_sizes_is_refused(g4, shape, unchecked):
    program = PRESETS["ddim"].compile(EDM(), uniform_log_snr(EDM(), 4))
    with pytest.raises(ArgumentError, match="event_shape"):
        Sampler(g4.denoiser(EDM()), program, shape)
