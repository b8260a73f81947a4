"""The exact score passes both tests of a diffusion's score; a shifted one, and one without alpha, fail them."""

from __future__ import annotations

import json

import pytest
import torch
from matplotlib.figure import Figure

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.explain import mean_score, score_martingale
from sfumato.noise import VariancePreserving

PROCESS = VariancePreserving()


class Shifted(Denoiser):
    def __init__(self, inner):
        self.inner, self.process = inner, inner.process

    def denoise(self, x, t, condition=None):
        return self.inner.denoise(x, t) + 0.3


@pytest.fixture(scope="module")
def belief(g4):
    return g4.denoiser(PROCESS)


def test_alpha_score_is_a_martingale_also_where_it_is_stopped(belief):
    x = torch.tensor([0.4, -0.3], dtype=torch.float64)
    found = score_martingale(belief, x, 0.6, (0.4, 0.25), paths=6000, steps=120, radius=0.6)
    assert found.drift() < 4
    assert found.numbers["at the stopping time"] < 4
    assert found.drift(unscaled=True) > 8  # control: the score itself is none
    wrong = score_martingale(Shifted(belief), x, 0.6, (0.4, 0.25), paths=6000, steps=120)
    assert wrong.drift() > 8
    assert "not the score" in wrong.meaning
    ax = Figure().subplots()
    found.plot(ax)
    assert len(ax.get_legend().get_texts()) == 3
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_mean_of_an_exact_score_is_its_floor_and_of_a_shifted_one_far_above(g4, belief):
    data = g4.sample(3000, 0)
    exact, wrong = (mean_score(d, data, (0.3, 1.0, 4.0), seed=2) for d in (belief, Shifted(belief)))
    assert max(s / f for s, f in zip(exact.share, exact.floor, strict=True)) < 3
    assert min(s / f for s, f in zip(wrong.share, wrong.floor, strict=True)) > 10
    assert "nothing to calibrate" in exact.meaning
    assert "removes" in wrong.meaning
    ax = Figure().subplots()
    wrong.plot(ax)
    assert len(ax.get_legend().get_texts()) == 2


def test_bad_input(belief):
    x = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="t, stops"):
        score_martingale(belief, x, 0.5, (0.6,))
    with pytest.raises(ArgumentError, match="paths, steps"):
        score_martingale(belief, x, 0.5, (0.4,), paths=1)
    with pytest.raises(ArgumentError, match="radius"):
        score_martingale(belief, x, 0.5, (0.4,), radius=0.0)
