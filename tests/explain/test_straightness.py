"""Straight and bent flows whose bend is known."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.explain.sampling.straightness import straightness
from sfumato.noise import FlowMatching, Trigonometric


class Point(Denoiser):
    """One point: every path of flow matching is the chord to it."""

    process = FlowMatching()

    def denoise(self, x, t, condition=None):
        return torch.full_like(x, 0.7)


def starts(n=200):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_paths_to_a_point_are_straight_and_cost_their_chord():
    found = straightness(Point(), starts(), 10)
    assert found.curvature < 1e-20
    assert found.energy == pytest.approx(found.chord, rel=1e-12)


def test_a_gaussian_against_its_flow():
    """`x_t = x_1 sqrt((1-t)^2 s^2 + t^2)`: velocity and bend in closed form, in the units of the starts; and energy = chord + curvature."""
    law, x, s = Gaussian(torch.zeros(3).double(), SpectralCovariance.isotropic(3, 0.25)), starts(), 0.5
    found = straightness(law.denoiser(FlowMatching()), x, 100)
    t = torch.tensor(found.times, dtype=torch.float64)
    speed = (t - (1 - t) * s**2) / torch.sqrt((1 - t) ** 2 * s**2 + t**2)
    scale = float(x.square().mean())
    torch.testing.assert_close(torch.tensor(found.bend, dtype=torch.float64), scale * (speed - (1 - s)) ** 2, rtol=0.02, atol=1e-4)
    assert found.energy == pytest.approx(found.chord + found.curvature, rel=1e-3)


def test_a_standard_normal_stands_still_on_the_circle_and_not_on_straight_lines():
    """The twin, whose plot and words come with it."""
    from matplotlib.figure import Figure

    law = Gaussian(torch.zeros(3).double(), SpectralCovariance.isotropic(3, 1.0))
    found = straightness(law.denoiser(Trigonometric()), starts(), 20, law.denoiser(FlowMatching()))
    assert found.energy < 1e-20
    assert found.numbers["curvature of the other flow"] > 0.05
    ax = Figure().subplots()
    found.plot(ax)
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"bend of the paths", "straight paths", "the other flow"}
    assert "fewer steps" in found.meaning
    assert math.isfinite(found.to_dict()["twin"]["energy"])
    with pytest.raises(ArgumentError, match="at least one step"):
        straightness(Point(), starts(), 0)
