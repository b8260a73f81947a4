"""Accelerations in use: a loss that is least at the exact belief, and strokes that steer."""

from __future__ import annotations

import pytest
import torch

from accelerations import PROCESS, belief, f64, states
from sfumato.denoise import Network
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, PushedDenoiser, SpectralCovariance
from sfumato.learn.losses.acceleration_loss import AcceleratedBelief, acceleration_loss
from sfumato.sample.linear.acceleration import Acceleration
from sfumato.seeds import noise
from sfumato.steer import draw_velocity, follow_stroke, lean_velocity


class Exact(Network):
    """The acceleration of the exact belief for `N(0.5, 0.3)` over its scale, times a factor."""

    kind = "exact"
    arguments = ()

    def __init__(self, view, factor):
        super().__init__((2, 1), None)
        self.view, self.factor = view, factor

    def forward(self, x, c_noise, condition=None):
        t, x = torch.exp(4 * c_noise.to(torch.float64)), x.to(torch.float64)
        said = self.view.of(belief(x, t), x, t) / self.view.scale(t)[:, None]
        return torch.stack([0 * said, self.factor * said], 1).to(torch.float32)


def test_the_loss_is_least_at_the_exact_belief_which_its_answer_stands_for():
    law, view = Gaussian(f64([0.5]), SpectralCovariance.isotropic(1, 0.3)), Acceleration(PROCESS)
    x0 = law.sample(3000, 1)
    loss = [float(acceleration_loss(Exact(view, f), view, x0, torch.Generator().manual_seed(0), first=0.05)) for f in (0.9, 1.0, 1.1)]
    assert loss[1] < min(loss[0], loss[2])
    m, learned = states(5, 0.5), AcceleratedBelief(Exact(view, 1.0), view)
    assert torch.allclose(learned.denoise(m, 0.5), PushedDenoiser(law, PROCESS).denoise(m, 0.5), rtol=0, atol=1e-4)


def test_velocities_drawn_for_a_stroke_have_the_processs_own_law():
    """If the stroke is the data, the state with a new velocity has the law it had: same covariance, whatever velocity it began with."""
    n, t = 20_000, 0.6
    stroke = torch.ones(n, 1, dtype=torch.float64)
    m = states(n, t)
    m[:, 1] = 7.0
    found = draw_velocity(PROCESS, m, stroke, t, torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[..., 0]
    law = PROCESS.marginal(t)
    assert torch.allclose(found.T.cov(), law.covariance.coef[0], rtol=0, atol=0.05)
    assert torch.allclose(found.mean(0), law.phi.coef[0, :, 0], rtol=0, atol=0.03)
    leant = lean_velocity(m, stroke, 0.25)
    assert torch.equal(leant[:, 0], m[:, 0])
    assert torch.allclose(leant[:, 1], torch.full_like(stroke, 5.5))


def test_bad_input_is_refused():
    with pytest.raises(ArgumentError):
        lean_velocity(states(2, 0.5), torch.zeros(2, 1), 1.5)
    draws = noise(0, 2, (2, 1), dtype=torch.float64)
    with pytest.raises(ArgumentError, match="above 0"):
        follow_stroke(belief, PROCESS, (1.0, 0.0), draws, torch.zeros(2, 1))
    with pytest.raises(ShapeError, match="per stroke"):
        follow_stroke(belief, PROCESS, (1.0, 0.5), draws, torch.zeros(3, 1))
    with pytest.raises(ArgumentError):
        acceleration_loss(Exact(Acceleration(PROCESS), 1.0), Acceleration(PROCESS), torch.zeros(2, 1), torch.Generator(), first=0.0)
