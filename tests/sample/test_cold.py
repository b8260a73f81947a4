"""Cold sampling: what cancels exactly, to which order it cancels otherwise, and DDIM as one of its cases."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.noise import Blend, Blur, FlowMatching
from sfumato.sample import cold_sample, ddim, run
from sfumato.sample.steps.cold import estimated, improved, naive, renoised
from sfumato.seeds import noise

X = noise(0, 6, (1, 8, 8), dtype=torch.float64).draw(0)


def test_the_improved_update_is_exact_for_any_restorer_when_the_degradation_is_linear_in_its_level():
    drift = Blend(X[0], (1,) * 6, tuple(0.7 * s for s in range(6)))
    out = cold_sample(lambda x, s: torch.sin(9 * x) + s, drift, drift(X, 5))
    torch.testing.assert_close(out, X, atol=1e-12, rtol=0)
    assert float((cold_sample(lambda x, s: torch.sin(9 * x) + s, drift, drift(X, 5), update=naive) - X).abs().max()) > 1


def test_both_updates_are_exact_for_the_true_restorer():
    blur = Blur((0, 0.5, 1.0, 2.0))
    for update in (naive, improved):
        torch.testing.assert_close(cold_sample(lambda x, s: X, blur, blur(X, 3), update=update), X, atol=1e-12, rtol=0)


def test_a_restorer_that_is_always_off_by_the_same_costs_the_improved_update_little():
    """The error after N levels is `D(b, 0) - D(b, N)` for the bias `b`, not `b`: zero for a bias that the blur does not change."""
    blur, flat = Blur((0, 0.5, 1.0, 2.0)), torch.full((1, 1, 8, 8), 0.3, dtype=torch.float64)
    out = cold_sample(lambda x, s: X + flat, blur, blur(X, 3))
    torch.testing.assert_close(out, X, atol=1e-12, rtol=0)
    out = cold_sample(lambda x, s: X + X[:1], blur, blur(X, 3))
    torch.testing.assert_close(out, X + X[:1] - blur(X[:1], 3), atol=1e-12, rtol=0)


def test_noise_that_is_estimated_anew_is_ddim(g4):
    process, times = FlowMatching(), [1.0, 0.8, 0.5, 0.2, 0.0]
    belief, up = g4.denoiser(process), times[::-1]
    blend = Blend(torch.zeros(2, dtype=torch.float64), tuple(1 - t for t in up), tuple(up))
    x = noise(1, 20, (2,), dtype=torch.float64).draw(0)
    theirs = run(ddim().compile(process, times), belief.denoise, x)
    mine = cold_sample(lambda y, s: belief.denoise(y, up[s]), blend, x, update=estimated)
    torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)
    # negative control: noise that is drawn anew goes elsewhere, and the same way for the same seed
    hot = [cold_sample(lambda y, s: belief.denoise(y, up[s]), blend, x, update=renoised(7)) for _ in range(2)]
    assert torch.equal(*hot)
    assert float((hot[0] - mine).abs().mean()) > 0.1


def test_levels_and_degradations_that_do_not_fit_are_refused():
    blur = Blur((0, 1))
    for level in (0, 2):
        with pytest.raises(ArgumentError, match="level"):
            cold_sample(lambda x, s: x, blur, X, level)
    with pytest.raises(ArgumentError, match="Blend"):
        cold_sample(lambda x, s: x, blur, X, update=estimated)
