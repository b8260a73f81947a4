"""DPM-Solver's own step lengths, against the paper's printed steps and its rule for the next one (arXiv 2206.00927, appendix C)."""

from __future__ import annotations

import math

import pytest
import torch
from asymmetric import VP, X

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.sample import adaptive_dpm_solver
from sfumato.sample.continuous import adaptive_exponential


class Bent(Denoiser):
    """No law's belief: bent, and of another kind at every level."""

    process = VP

    def denoise(self, x, t, condition=None):
        return torch.tanh(1.3 * x + 0.2) + float(VP.alpha(t)) * torch.sin(2 * x.flip(-1))


class Answers(Denoiser):
    """The same answer to everything."""

    process = VP

    def __init__(self, value):
        self.value = value

    def denoise(self, x, t, condition=None):
        return torch.full_like(x, self.value)


def printed(prediction, x, lam, h, order):
    """The states of the lower and the higher order as the papers print them, noise (2206.00927) and data (2211.01095)."""

    def levels(v):
        return 1 / math.sqrt(1 + math.exp(-2 * v)), 1 / math.sqrt(1 + math.exp(2 * v))

    def answer(state, v):
        (a, s), said = levels(v), Bent().denoise(state, float(VP.time(v)))
        return (state - a * said) / s if prediction == "noise" else said

    def reached(share, slope, second=None):
        """`share h` on: the first answer's own step, and so much of a difference of answers."""
        z = share * h
        (a, s), (b, r) = levels(lam), levels(lam + z)
        kept, weight, grows = (b / a, r, math.expm1(z)) if prediction == "noise" else (r / s, b, math.expm1(-z))
        # (e^z - 1) / z - 1, or (e^-z - 1) / z + 1
        curve = grows / z + (-1 if prediction == "noise" else 1)
        out = kept * x - weight * grows * first
        if second is None:
            return out
        return out - (weight * grows / 2 if slope == "middle" else (1 if prediction == "noise" else -1) * weight * curve * share) * second

    first = answer(x, lam)
    if order == 2:
        inner = answer(reached(1 / 2, None), lam + h / 2)
        return reached(1, None), reached(1, "middle", (inner - first) / (1 / 2))
    one = answer(reached(1 / 3, None), lam + h / 3)
    two = answer(reached(2 / 3, "end", (one - first) * 3), lam + 2 * h / 3)
    return reached(1, "middle", (one - first) * 3), reached(1, "end", (two - first) / (2 / 3))


@pytest.mark.parametrize(
    ("order", "prediction", "begin"),
    [(2, "noise", X - 4), (2, "data", X), (3, "noise", X), (3, "data", X - 4)],
    ids=["2-noise", "2-data", "3-noise", "3-data"],
)
def test_every_step_is_the_printed_one_and_as_long_as_printed(order, prediction, begin):
    """Kept and rejected ones: `delta = max(atol, rtol max(|low|, |low before|))`, and 0.9 h E^(-1/order) for the next."""
    start, end, rtol, atol, h = 0.8, 0.3, 0.01, 0.002, 1.2
    walk = adaptive_dpm_solver(Bent(), begin, start, end, order=order, prediction=prediction, rtol=rtol, atol=atol, first=h)
    lam, last = (float(VP.half_log_snr(t)) for t in (start, end))
    x, before, kept, rejected = begin, begin, [lam], 0
    while kept[-1] < last - 1e-12:
        h = min(h, last - kept[-1])
        low, high = printed(prediction, x, kept[-1], h, order)
        delta = torch.maximum(torch.full_like(x, atol), rtol * torch.maximum(low.abs(), before.abs()))
        error = max(float(((high - low) / delta)[i].square().mean().sqrt()) for i in range(len(x)))
        if error <= 1:
            x, before = high, low
            kept.append(kept[-1] + h)
        else:
            rejected += 1
        h *= 0.9 * error ** (-1 / order)
    assert rejected > 0
    assert len(kept) > 3
    assert walk.rejected == rejected
    assert walk.evaluations == order * (len(kept) - 1 + rejected)
    assert (walk.times[0], walk.times[-1]) == (start, end)
    assert [float(VP.half_log_snr(t)) for t in walk.times] == pytest.approx(kept, abs=1e-9)
    torch.testing.assert_close(walk.state, x, rtol=1e-9, atol=1e-9)


def test_where_both_orders_agree_the_next_step_goes_all_the_way():
    """A belief of zero: both are `x sigma_s / sigma_t` to the last bit, so after the first step one more is enough."""
    walk = adaptive_dpm_solver(Answers(0.0), X, 0.9, 0.1, prediction="data", first=0.5)
    assert (len(walk.times), walk.evaluations, walk.rejected) == (3, 6, 0)
    assert float(VP.half_log_snr(walk.times[1]) - VP.half_log_snr(0.9)) == pytest.approx(0.5, rel=1e-12)
    torch.testing.assert_close(walk.state, X * VP.sigma(0.1) / VP.sigma(0.9), rtol=1e-12, atol=0)


def test_answers_that_are_not_finite_are_named():
    for value in (math.nan, math.inf):
        with pytest.raises(ArgumentError, match="finite answers"):
            adaptive_dpm_solver(Answers(value), X, 0.9, 0.1)


def test_tolerances_that_cannot_be_met_end_soon(monkeypatch):
    """Steps shrink at every try until time stands still, or until the evaluations that are allowed are spent."""
    belief, calls = Bent(), []
    monkeypatch.setattr(belief, "denoise", lambda x, t, condition=None: calls.append(t) or Bent.denoise(belief, x, t))
    with pytest.raises(ArgumentError, match=r"Steps vanish at t = 0\.5"):
        adaptive_dpm_solver(belief, X, 0.5, 0.1, rtol=0.0, atol=1e-30)
    assert 0 < len(calls) < 300
    del calls[:]
    monkeypatch.setattr(adaptive_exponential, "_MOST", 9)
    with pytest.raises(ArgumentError, match="tolerances"):
        adaptive_dpm_solver(belief, X, 0.5, 0.1, rtol=1e-4, atol=1e-4)
    assert len(calls) == 12
