"""Momentum's scalings against the published forms in units of the noise level, the ends, and the bounded weight."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.denoise import MomentumPreconditioned, Network
from sfumato.errors import ArgumentError, ShapeError
from sfumato.learn import BoundedWeight, EDMWeight, growing_bound
from sfumato.noise import EDM, MomentumDecay

PROCESS = MomentumDecay(multiplier=1.0)


class Spy(Network):
    """Answers with what it saw, plus its label."""

    kind = "spy"
    arguments = ()

    def forward(self, x, c_noise, condition=None):
        self.label = c_noise
        return x + c_noise[:, None]


class Short(Spy):
    def forward(self, x, c_noise, condition=None):
        return x[:, :1]


@pytest.mark.parametrize(
    ("style", "coefficients"),
    [
        ("edm", lambda k, t: (0.25 / (k**2 + 0.25), 0.5 * k / math.sqrt(k**2 + 0.25), math.log(k) / 4)),
        ("vp", lambda k, t: (1.0, -k, 999 * t)),
        ("ve", lambda k, t: (1.0, k, math.log(k / 2))),
    ],
)
def test_scalings_are_the_published_ones_with_the_momentum_scale_as_input(style, coefficients):
    """`D(y; k) = c_skip y + c_out F(s y, c_noise)` for `y = x/s`, asked in EDM's coordinates; per-sample times."""
    denoiser = MomentumPreconditioned(Spy((2,), None), PROCESS, style)
    t = torch.tensor([0.01, 0.3], dtype=torch.float64)
    y = torch.tensor([[0.3, -1.0], [20.0, 7.0]], dtype=torch.float64)
    found = denoiser.under(EDM()).denoise(y, t)
    for row, known in zip(t.tolist(), zip(found, y, strict=True), strict=True):
        answer, state = known
        skip, out, label = coefficients(80 * row, row)
        clock = 0.1 * row + 19.9 * row**2 / 2
        scale = math.exp(-clock) * (1 + clock)
        assert torch.allclose(answer, skip * state + out * (scale * state + label), rtol=1e-12)


def test_clean_data_pass_through_and_bad_input_is_refused():
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(MomentumPreconditioned(Spy((2,), None), PROCESS).denoise(x, 0.0), x)
    with pytest.raises(ArgumentError):
        MomentumPreconditioned(Spy((2,), None), PROCESS, sigma_data=0.0)
    with pytest.raises(ShapeError, match="network"):
        MomentumPreconditioned(Short((2,), None), PROCESS).denoise(x, 0.5)


def test_the_bound_of_a_weight_grows_geometrically_to_its_end():
    assert [growing_bound(i, 10) for i in (0, 5, 10, 99)] == pytest.approx([5.0, 50.0, 500.0, 500.0])
    t = torch.tensor([0.001, 0.5], dtype=torch.float64)
    free, bounded = EDMWeight()(EDM(), t), BoundedWeight(50.0)(EDM(), t)
    assert bounded[0] == 50.0 < free[0]
    assert bounded[1] == free[1]
    with pytest.raises(ArgumentError):
        BoundedWeight(0.0)
    with pytest.raises(ArgumentError):
        growing_bound(0, 0)
