"""Brownian paths have the increments they should and keep what they said; the adaptive reverse SDE keeps laws and its promises."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import FlowMatching, VariancePreserving
from sfumato.sample.steps.adaptive_sde import Adaptive, _pair, adaptive_sde
from sfumato.sample.steps.brownian import BrownianPath
from sfumato.sample.steps.step import Stream
from sfumato.seeds import noise

VP = VariancePreserving()


def path(n: int, dim: int = 1, seed: int = 0) -> BrownianPath:
    return BrownianPath(Stream.of(seed, torch.zeros(n, dim, dtype=torch.float64)))


def test_a_path_asked_out_of_order_has_brownian_covariance():
    """`Cov(W(u), W(v)) = min(u, v)`, whatever is asked first; 20000 paths give each entry to 0.02 (3 standard errors), fixed seed."""
    w = path(20000)
    times = [1.0, 0.4, 0.7, 0.55, 1.5, 0.1]
    values = torch.stack([w(u)[:, 0] for u in times])
    exact = torch.tensor([[min(u, v) for v in times] for u in times], dtype=torch.float64)
    torch.testing.assert_close(values @ values.T / 20000, exact, rtol=0, atol=0.045)
    torch.testing.assert_close(values.mean(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=0.03)
    torch.testing.assert_close(
        torch.cov(values[[2, 3]] - values[[3, 1]]), torch.diag(torch.tensor([0.15, 0.15])).double(), rtol=0, atol=0.006
    )


def test_a_path_keeps_what_it_said_and_forgets_only_the_past():
    w = path(3, 2)
    one, half = w(1.0), w(torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64))
    assert torch.equal(w(1.0), one)
    assert torch.equal(w(torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64)), half)
    w.forget(torch.tensor([0.55, 0.6, 0.65], dtype=torch.float64))
    assert torch.equal(w(1.0), one)
    assert torch.equal(w(torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64)), half)  # the last points before are kept
    with pytest.raises(ArgumentError, match="remembered"):
        w(0.1)
    with pytest.raises(ArgumentError, match="finite"):
        w(math.nan)


def test_coarse_and_fine_steps_follow_one_path():
    """Sums of fine increments are the coarse ones, which is what strong orders are measured with."""
    w = path(5)
    coarse = [w(u) for u in (0.25, 0.5, 1.0)]
    fine = [w(i / 16) for i in range(17)]
    for u, value in zip((4, 8, 16), coarse, strict=True):
        torch.testing.assert_close(sum(b - a for a, b in pairwise(fine[: u + 1])), value, rtol=0, atol=1e-12)


def excess(law, samples):
    exact = float(law.weights @ law.means.square().sum(1)) + sum(
        float(w * c.trace()) for w, c in zip(law.weights, law.covariances, strict=True)
    )
    return float(samples.square().sum(1).mean()) / exact - 1


def test_memory_keeps_the_second_moment_and_fresh_noise_does_not(g4):
    """500 samples give the second moment to 4 percent; the negative control is the published redraw, which rejects what is noisy."""
    x = VP.prior_sample(noise(1, 500, (2,), dtype=torch.float64).draw(0))
    kept, fresh = (adaptive_sde(g4.denoiser(VP), x, Stream.of(1, x), Adaptive(memory=m)) for m in (True, False))
    assert bool(kept.converged.all())
    assert abs(excess(g4, kept.samples)) < 0.08
    assert abs(excess(g4, fresh.samples)) > 0.15
    assert float(kept.rejected.sum() / (kept.rejected + kept.accepted).sum()) > 0.2


def test_evaluations_are_two_an_attempt_and_one_at_the_end(g4):
    asked = []

    class Counted(Denoiser):
        process = VP

        def denoise(self, x, t, condition=None):
            asked.append(t)
            return g4.denoiser(VP).denoise(x, t)

    x = VP.prior_sample(noise(1, 1, (2,), dtype=torch.float64).draw(0))
    found = adaptive_sde(Counted(), x, Stream.of(1, x))
    assert int(found.evaluations[0]) == len(asked) == 2 * int(found.accepted + found.rejected) + 1
    assert float(asked[-1]) == 1e-3


def test_a_sample_does_not_depend_on_its_batch(g4):
    x = VP.prior_sample(noise(1, 6, (2,), dtype=torch.float64).draw(0))
    many, few = (adaptive_sde(g4.denoiser(VP), v, Stream.of(1, v), Adaptive(relative=0.2)) for v in (x, x[:2]))
    torch.testing.assert_close(many.samples[:2], few.samples, rtol=0, atol=1e-10)
    assert torch.equal(many.evaluations[:2], few.evaluations)


def test_tighter_tolerances_cost_more(g4):
    x = VP.prior_sample(noise(1, 10, (2,), dtype=torch.float64).draw(0))
    costs = [
        float(adaptive_sde(g4.denoiser(VP), x, Stream.of(1, x), Adaptive(relative=r)).evaluations.double().mean()) for r in (1.0, 0.3, 0.1)
    ]
    assert costs[0] < costs[1] < costs[2]


def test_errors_are_scaled_as_said():
    low, before = torch.tensor([[1.0, -4.0]]), torch.tensor([[2.0, 0.0]])
    difference = torch.tensor([[0.1, 0.2]])
    base = Adaptive(relative=0.1, absolute=0.05)
    # tolerances 0.2 and 0.4, or 0.1 and 0.4 without the previous state
    assert float(base.error(difference, low, before)[0]) == pytest.approx(0.5)
    assert float(replace(base, norm="sum-square").error(difference, low, before)[0]) == pytest.approx(0.5 * math.sqrt(2))
    assert float(replace(base, norm="largest").error(difference, low, before)[0]) == pytest.approx(0.5)
    assert float(replace(base, norm="largest", previous=False).error(difference, low, before)[0]) == pytest.approx(1.0)
    assert float(replace(base, absolute=1.0).error(difference, low, before)[0]) == pytest.approx(math.sqrt((0.01 + 0.04) / 2))


def test_the_higher_order_value_is_the_better_one():
    """One accepted step of fixed size on a Gaussian: `high` is nearer to the exact mean of the reverse kernel."""
    law = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))
    x = torch.full((4000, 1), 0.8, dtype=torch.float64)
    t, s = 0.5, 0.45
    huge = Adaptive(relative=1e6, first=t - s)
    forward = VP.transition(s, t)
    there, here = (float(VP.alpha(u) ** 2 * 0.3 + VP.sigma(u) ** 2) for u in (t, s))
    mean = float(forward.phi) * here / there * 0.8
    gain = float(VP.alpha(s)) * 0.3 / here  # the clean answer is linear in the state
    away = [
        abs(float(adaptive_sde(law.denoiser(VP), x, Stream.of(2, x), setting, start=t, end=s).samples.mean()) / gain - mean)
        for setting in (huge, replace(huge, higher=False))
    ]
    # the noise of the mean is the same in both: they differ in the drift
    assert away[0] < away[1]


def test_what_does_not_arrive_is_reported(g4):
    x = VP.prior_sample(noise(1, 3, (2,), dtype=torch.float64).draw(0))
    few = adaptive_sde(g4.denoiser(VP), x, Stream.of(1, x), max_attempts=5)
    assert not bool(few.converged.any())
    assert bool(torch.isfinite(few.samples).all())

    class Broken(Denoiser):
        process = VP

        def denoise(self, x, t, condition=None):
            return torch.where(x[:, :1] > 0, torch.nan, 0.0) * x

    x = torch.tensor([[0.5, 0.1], [-50.0, -50.0]], dtype=torch.float64)
    broken = adaptive_sde(Broken(), x, Stream.of(1, x), start=0.2, end=0.1)
    assert broken.converged.tolist() == [False, True]


def test_every_variant_of_the_ablation_runs_and_costs_otherwise(g4):
    x = VP.prior_sample(noise(1, 10, (2,), dtype=torch.float64).draw(0))
    base = Adaptive(relative=0.5, absolute=0.05)
    variants = [
        base,
        *(replace(base, **v) for v in ({"norm": "largest"}, {"norm": "sum-square"}, {"previous": False}, {"drift_error": True})),
    ]
    costs = [float(adaptive_sde(g4.denoiser(VP), x, Stream.of(1, x), v).evaluations.double().mean()) for v in variants]
    assert len(set(costs)) == len(costs)
    assert costs[0] < costs[1] < costs[2]  # the norms grow in this order


def test_bad_input(g4):
    x = torch.zeros(2, 2, dtype=torch.float64)
    for wrong in ({"start": 0.1, "end": 0.5}, {"end": 0.0}, {"max_attempts": 0}):
        with pytest.raises(ArgumentError, match="start, end"):
            adaptive_sde(g4.denoiser(VP), x, Stream.of(0, x), **wrong)
    with pytest.raises(ArgumentError, match="reverse drift"):
        adaptive_sde(g4.denoiser(FlowMatching()), x, Stream.of(0, x))
    for wrong in ({"relative": -1.0}, {"relative": 0.0, "absolute": 0.0}, {"safety": 1.5}, {"exponent": 0.0}, {"first": 0.0}):
        with pytest.raises(ArgumentError):
            Adaptive(**wrong)


def test_a_step_below_rounding_stands_still_while_others_go_on():
    """A belief of 1e30 at the end of the first attempt shrinks that sample's step to nothing. It is asked no more, and denoised from where
    it stood; its neighbour arrives as it does alone.
    """

    class Wild(Denoiser):
        process = VP

        def denoise(self, x, t, condition=None):
            wild = (x > 10) & (t > 0.15)[:, None] & (t < 0.199)[:, None]
            return torch.where(wild, 1e30, 0.5 * x)

    x = torch.tensor([[0.1], [50.0]], dtype=torch.float64)
    setting = Adaptive(relative=0.0, absolute=100.0)
    both, alone = (adaptive_sde(Wild(), v, Stream.of(1, v), setting, start=0.2, end=0.1) for v in (x, x[:1]))
    assert both.converged.tolist() == [True, False]
    assert (int(both.accepted[1]), int(both.rejected[1]), int(both.evaluations[1])) == (0, 1, 3)
    assert float(both.samples[1]) == 25.0
    assert torch.equal(both.samples[:1], alone.samples)
    assert (int(alone.rejected), int(both.accepted[0])) == (0, int(alone.accepted))


def test_without_noise_both_errors_are_the_same(g4):
    """The difference of the two states is half that of the drifts, but for the noise."""
    process, x = VariancePreserving(), torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t, s = torch.full((4,), 0.5, dtype=torch.float64), torch.full((4,), 0.4, dtype=torch.float64)
    errors = [_pair(g4.denoiser(process), x, t, s, t - s, torch.zeros_like(x), Adaptive(drift_error=on))[2] for on in (False, True)]
    assert torch.allclose(errors[0], errors[1], rtol=1e-12, atol=1e-14)
    assert float(errors[0].abs().min()) > 1e-4
