from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import solve_ivp

from sfumato.errors import ArgumentError
from sfumato.noise import EDM, Cosine, FlowMatching, VarianceExploding, VariancePreserving
from sfumato.sample import reference, reference_times
from sfumato.seeds import noise

PROCESSES = [VariancePreserving(), Cosine(), VarianceExploding(), EDM(), FlowMatching()]


@pytest.fixture(scope="module")
def law(g4):
    return g4.gaussian()


def starts(n, process, seed=0):
    return process.prior_std * noise(seed, n, (2,), dtype=torch.float64).draw(0)


def walk(g4, law, process, times, n=16):
    return reference(g4.denoiser(process).denoise, starts(n, process), process, law, times)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("steps", [4, 5, 30])
def test_times_are_equal_in_log_snr_between_both_ends(process, steps):
    times = reference_times(process, steps)
    assert len(times) == steps + 1
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert all(a > b for a, b in pairwise(times))
    inner = [t for t in times[:-1] if math.isfinite(float(process.half_log_snr(t)))]
    lam = process.half_log_snr(torch.tensor(inner, dtype=torch.float64))
    assert float(lam[-1]) == pytest.approx(-math.log(2e-3), rel=1e-12)
    if len(inner) < len(times) - 1:
        assert float(lam[0]) == pytest.approx(-math.log(200), rel=1e-12)
    torch.testing.assert_close(lam.diff(), (lam[-1] - lam[0]).expand(len(inner) - 1) / (len(inner) - 1), rtol=1e-9, atol=0)


def test_fewer_than_four_steps_are_refused():
    with pytest.raises(ArgumentError, match="steps"):
        reference_times(EDM(), 3)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
def test_on_a_gaussian_law_every_state_is_the_closed_form(process, full_gaussian):
    x = process.prior_std * noise(0, 3, (3, 4), dtype=torch.float64).draw(0)
    times = reference_times(process, 6)
    path = reference(full_gaussian.denoiser(process).denoise, x, process, full_gaussian, times)
    assert path.times == times
    for t, state in zip(times, path.states, strict=True):
        expected = full_gaussian.flow(process, 1.0, t)(x)
        torch.testing.assert_close(state, expected, rtol=0, atol=1e-13 * float(x.abs().max()))


@pytest.fixture(scope="module")
def fine(g4, law):
    """The converged grid's end, for the variance-preserving process."""
    return walk(g4, law, VariancePreserving(), reference_times(VariancePreserving(), 240)).end


def test_halved_steps_change_the_end_like_order_four(g4, law, fine):
    """A sixteenth of the error at half the step, on a mixture; the ramp of the first steps keeps it a little below.

    Measured: 2.9e-4, 2.1e-5 and (against a finer grid) 1.5e-6 at 40, 80 and 160 steps, order 3.8; the limit on the errors leaves a third.
    """
    process = VariancePreserving()
    errors = [float((walk(g4, law, process, reference_times(process, n)).end - fine).abs().max()) for n in (40, 80)]
    assert all(error < 1.33 * measured for error, measured in zip(errors, (2.95e-4, 2.14e-5), strict=True))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(3.8, abs=0.2)


def test_a_process_that_starts_without_signal_is_as_accurate(g4, law):
    process = FlowMatching()
    ends = [walk(g4, law, process, reference_times(process, n)).end for n in (40, 80)]
    assert float((ends[0] - ends[1]).abs().max()) < 5e-4


def test_the_states_are_scipys(g4, law):
    """The velocity integrated by DOP853, from the start to a node inside the trajectory."""
    process = VariancePreserving()
    times = reference_times(process, 80)
    path = walk(g4, law, process, times, n=4)
    place = 48
    denoiser = g4.denoiser(process)

    def rate(t, y):
        return denoiser.velocity(torch.from_numpy(y).reshape(4, 2), t).reshape(-1).numpy()

    y = solve_ivp(rate, (1.0, times[place]), path.states[0].reshape(-1).numpy(), method="DOP853", rtol=1e-8, atol=1e-9).y[:, -1]
    torch.testing.assert_close(path.states[place].reshape(-1), torch.from_numpy(y), rtol=0, atol=3e-5)


def test_any_law_serves_and_the_datas_own_serves_best(g4, law, fine):
    """The closed form only decides what is left to interpolate: both converge to the same end, from different distances."""
    from sfumato.exact import Gaussian, SpectralCovariance

    process = VariancePreserving()
    other = Gaussian(torch.tensor([3.0, -2.0], dtype=torch.float64), SpectralCovariance.isotropic(2, 9.0))
    torch.testing.assert_close(walk(g4, other, process, reference_times(process, 60)).end, fine, rtol=0, atol=5e-3)
    coarse = reference_times(process, 20)
    own, foreign = (float((walk(g4, which, process, coarse).end - fine).square().mean()) for which in (law, other))
    assert own < foreign / 5


def test_slices_and_gradients(g4, law):
    """A trajectory of fewer samples is the slice of one of more; nothing is recorded for autograd."""
    process = EDM()
    times = reference_times(process, 8)
    path = walk(g4, law, process, times, n=6)
    part = path[2:5]
    assert (part.process, part.times) == (path.process, path.times)
    alone = reference(g4.denoiser(process).denoise, starts(6, process)[2:5], process, law, times)
    for a, b in zip(part.states, alone.states, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    x = starts(2, process).requires_grad_(True)
    assert not reference(g4.denoiser(process).denoise, x, process, law, times).end.requires_grad


def test_one_evaluation_a_step(g4, law):
    process, asked = Cosine(), []
    denoise = g4.denoiser(process).denoise
    times = reference_times(process, 9)
    reference(lambda x, t: asked.append(t) or denoise(x, t), starts(2, process), process, law, times)
    assert asked == list(times[:-1])
