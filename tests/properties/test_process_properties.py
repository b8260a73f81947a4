"""Scalar processes with any parameters, at any times: what the family is, checked on members that nobody chose."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from generated import F64, PROCESS_STRATEGIES, batches, events, examples, numbers, processes, seeds, tensor
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sfumato.denoiser import View, from_data, to_data
from sfumato.errors import ArgumentError, SfumatoError
from sfumato.noise import EDM, PROCESSES, BetaTable, MomentumDecay, ScalarProcess, Trigonometric, VariancePreserving, process_from_dict

times = st.lists(numbers(0.0, 1.0), min_size=2, max_size=8).map(lambda v: torch.tensor(sorted(v), dtype=F64))
inside = numbers(0.02, 0.98)


def test_every_kind_of_process_is_generated():
    assert set(PROCESS_STRATEGIES) == set(PROCESSES)


def check_levels(process, t):
    """Levels are finite, the signal falls, the noise-to-signal ratio rises, and `time` inverts it."""
    alpha, sigma, lam = process.alpha(t), process.sigma(t), process.half_log_snr(t)
    assert alpha.dtype == sigma.dtype == lam.dtype == F64
    assert bool(torch.isfinite(alpha).all() and torch.isfinite(sigma).all())
    assert not bool(torch.isnan(lam).any())
    assert bool((alpha >= 0).all() and (sigma >= 0).all() and (alpha[1:] <= alpha[:-1] * (1 + 1e-14)).all())
    assert bool((lam[1:] <= lam[:-1]).all())
    apart = t[1:] - t[:-1] > 1e-9
    assert bool((lam[1:] < lam[:-1])[apart].all())
    torch.testing.assert_close(process.time(lam), t, rtol=1e-9, atol=1e-12)
    both = process.levels(t)
    torch.testing.assert_close(both[0], alpha, rtol=1e-14, atol=0)
    torch.testing.assert_close(both[1], sigma, rtol=1e-14, atol=0)
    # lambda and the levels say the same; where alpha underflows only lambda knows
    seen = (alpha > 1e-250) & (sigma > 0)
    torch.testing.assert_close((torch.log(alpha) - torch.log(sigma))[seen], lam[seen], rtol=1e-9, atol=1e-9)


@examples(80)
@given(processes, times)
@example(MomentumDecay(80.0, 10.0, 10.0), torch.tensor([0.5, 1.0], dtype=F64))
def test_levels_fall_and_time_is_the_inverse(process, t):
    check_levels(process, t)


@examples(60)
@given(processes)
def test_both_ends_are_finite_limits(process):
    assert float(process.alpha(0.0)) == pytest.approx(1, abs=2e-16)
    assert float(process.sigma(0.0)) == float(process.ratio(0.0)) == 0
    assert 0 <= float(process.alpha(1.0)) <= 1
    assert 0 < process.prior_std < float("inf")
    near = process.levels(1e-9)
    assert float(near[0]) == pytest.approx(1, abs=1e-6)
    assert 0 < float(near[1]) < 1e-2 * max(1.0, process.prior_std)


def slope(f, t, h=1e-4):
    """Central differences of order 4."""
    return float(f(t - 2 * h) - 8 * f(t - h) + 8 * f(t + h) - f(t + 2 * h)) / (12 * h)


def check_rates(process, t):
    """`F = d log(alpha)/dt`, `g^2 = d(sigma^2)/dt - 2 F sigma^2` and the two rates, against differences."""
    drift, diffusion = float(process.drift(t)), float(process.diffusion_squared(t))
    variance = float(process.sigma(t)) ** 2
    near = {"rel": 1e-5, "abs": 1e-6 * (1 + abs(drift))}
    assert drift == pytest.approx(slope(lambda u: torch.log(process.alpha(u)), t), **near)
    rise = slope(lambda u: process.sigma(u) ** 2, t)
    scale = abs(rise) + 2 * abs(drift) * variance
    assert diffusion == pytest.approx(rise - 2 * drift * variance, rel=1e-5, abs=1e-6 * scale)
    assert diffusion >= 0
    assert float(process.alpha_rate(t)) == pytest.approx(slope(process.alpha, t), **near)
    sigma_scale = scale / float(process.sigma(t))
    assert float(process.sigma_rate(t)) == pytest.approx(slope(process.sigma, t), rel=1e-5, abs=1e-6 * sigma_scale)


@examples(80)
@given(processes, inside)
def test_rates_are_the_derivatives_of_the_levels(process, t):
    if isinstance(process, BetaTable):
        # the rates jump at the nodes
        place = t * process.steps
        assume(abs(place - round(place)) > 3e-4 * process.steps)
        # a table that ends in pure noise has no signal in all of its last cell, and none to have a rate
        assume(float(process.alpha(t)) > 0)
    check_rates(process, t)


def check_composition(process, s, u, t):
    """`s -> u -> t` is `s -> t`, and reaches the marginal from the clean end."""
    first, then, whole = process.transition(s, u), process.transition(u, t), process.transition(s, t)
    assert min(float(law.covariance) for law in (first, then, whole)) >= 0
    assert float(then.phi * first.phi) == pytest.approx(float(whole.phi), rel=1e-10, abs=1e-300)
    joined = float(then.phi**2 * first.covariance + then.covariance)
    assert joined == pytest.approx(float(whole.covariance), rel=1e-8, abs=1e-12)
    marginal = process.transition(0.0, t)
    assert float(marginal.phi) == pytest.approx(float(process.alpha(t)), rel=1e-12, abs=1e-300)
    assert float(marginal.covariance) == pytest.approx(float(process.sigma(t)) ** 2, rel=1e-12)


@examples(80)
@given(processes, st.lists(numbers(0.0, 1.0), min_size=3, max_size=3))
@example(Trigonometric(), [0.0, 1.0, 1.0])
def test_transitions_compose(process, three):
    check_composition(process, *sorted(three))


@examples(60)
@given(processes)
def test_what_is_written_down_makes_an_equal_process(process):
    again = process_from_dict(json.loads(json.dumps(process.to_dict())))
    assert again == process
    assert hash(again) == hash(process)
    t = torch.linspace(0, 1, 7, dtype=F64)
    assert torch.equal(again.sigma(t), process.sigma(t))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@examples(80)
@given(st.sampled_from(sorted(PROCESSES)), st.dictionaries(st.sampled_from(["beta_min", "betas", "s", "sigma_max", "shift"]), json_values))
def test_other_data_are_refused_by_name(kind, data):
    """Any JSON is a process or a refusal of ours, never another exception."""
    try:
        process = process_from_dict({"kind": kind, **data})
    except SfumatoError:
        return
    assert process.kind == kind


@examples(80)
@given(processes, inside, st.sampled_from(get_args(View)), st.sampled_from(get_args(View)), events, batches, seeds, st.booleans())
def test_views_go_round(process, t, one, other, event, batch, seed, each):
    """Data to a view, to another by way of data, and back: the same, to the digits that the view's weights leave."""
    x, data = tensor((batch, *event), seed), tensor((batch, *event), seed + 1)
    time = torch.full((batch,), t, dtype=F64) if each else t
    alpha, sigma = process.levels(t)
    assume(float(alpha) > 1e-3 and float(sigma) > 1e-4)
    size = 1 + float(sigma / alpha) ** 2 + float(1 / sigma)
    middle = to_data(from_data(data, one, x, time, process), one, x, time, process)
    back = to_data(from_data(middle, other, x, time, process), other, x, time, process)
    assert back.shape == data.shape
    torch.testing.assert_close(back, data, rtol=0, atol=1e-12 * size)


@examples(80)
@given(
    processes,
    events,
    batches,
    st.sampled_from([torch.float32, F64, torch.bfloat16, torch.float16]),
    seeds,
    st.sampled_from(["cpu", "meta"]),
)
def test_noisy_data_keep_shape_dtype_and_device(process, event, batch, dtype, seed, device):
    x0, noise = (tensor((batch, *event), seed + i, dtype).to(device) for i in range(2))
    t = torch.linspace(0, 1, batch, dtype=F64)
    noisy = process.sample(x0, t, noise)
    assert (noisy.shape, noisy.dtype, noisy.device) == (x0.shape, dtype, x0.device)
    if device == "cpu" and batch:
        row = process.sample(x0[-1:], float(t[-1]), noise[-1:])
        assert torch.equal(row[0], noisy[-1])


@dataclass(frozen=True)
class Broken(EDM):
    """Negative control: each part wrong by 1e-3 of itself."""

    part: str = ""

    def diffusion_squared(self, t):
        return super().diffusion_squared(t) * (1.001 if self.part == "diffusion" else 1)

    def time(self, half_log_snr):
        return super().time(half_log_snr) * (0.999 if self.part == "time" else 1)

    def transition(self, s, t):
        law = ScalarProcess.transition(self, s, t)
        return type(law)(law.phi, law.shift, law.covariance * (1 + 1e-3 * float(s)) if self.part == "transition" else law.covariance)


def test_a_broken_process_is_seen():
    t = torch.tensor([0.2, 0.7], dtype=F64)
    for check, part, arguments in (
        (check_levels, "time", (t,)),
        (check_rates, "diffusion", (0.5,)),
        (check_composition, "transition", (0.1, 0.4, 0.8)),
    ):
        check(Broken(2.0), *arguments)
        with pytest.raises(AssertionError):
            check(Broken(2.0, part), *arguments)


@examples(50)
@given(processes, st.floats().filter(lambda v: not 0 <= v <= 1))
@example(VariancePreserving(), float("nan"))
def test_times_outside_are_refused(process, t):
    for f in (process.alpha, process.sigma, process.half_log_snr, process.drift, process.diffusion_squared):
        with pytest.raises(ArgumentError, match="0, 1"):
            f(t)
