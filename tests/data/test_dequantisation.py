"""Noise on levels: densities that integrate to one, entropies in closed form, and bounds that hold where they must."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.data.dequantisation import GaussianDequantisation, TruncatedNormalDequantisation, UniformDequantisation, importance_bound
from sfumato.errors import ArgumentError, ShapeError

LEVELS = torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=torch.float64)
WEIGHTS = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
ALPHA, SIGMA = 0.9, 0.08


def levels(n):
    return LEVELS.repeat(n)[:, None].expand(-1, 3).contiguous()


@pytest.mark.parametrize("noise", [UniformDequantisation(0.5), TruncatedNormalDequantisation(0.5, ALPHA, SIGMA)])
def test_values_stay_in_their_cell_and_the_density_is_one_on_it(noise):
    """`E 1/q` is the cell's volume for every density on the cell: within 4 standard errors, which chance leaves once in 16,000 times."""
    alpha = getattr(noise, "alpha", 1.0)
    x = levels(5000)
    drawn = noise.draw(x, 0)
    assert float((drawn.values - alpha * x).abs().max()) <= alpha * 0.25 + 1e-12
    one = noise.draw(x[:, :1], 1)
    inverse = torch.exp(-one.log_density)
    assert float(inverse.mean()) == pytest.approx(0.5 * alpha, abs=4 * float(inverse.std()) / math.sqrt(len(x)) + 1e-12)


def test_the_truncated_entropy_against_quadrature():
    for sigma in (0.05, 0.3, 5.0):
        noise = TruncatedNormalDequantisation(0.5, ALPHA, sigma)
        x = torch.linspace(-noise.tau, noise.tau, 20_001, dtype=torch.float64)
        density = torch.exp(-0.5 * x**2)
        density = density / torch.trapezoid(density, sigma * x)
        assert noise.entropy == pytest.approx(float(-torch.trapezoid(density * density.log(), sigma * x)), abs=1e-6)
        drawn = noise.draw(levels(3000), 2).log_density
        assert -float(drawn.mean()) / 3 == pytest.approx(noise.entropy, abs=4 * float(drawn.std()) / 3 / math.sqrt(len(drawn)) + 1e-12)


def _model(x):
    """A density that is the exact law of noisy levels: `sum_k w_k N(alpha k, sigma^2)` per number."""
    parts = WEIGHTS.log() - 0.5 * ((x[..., None] - ALPHA * LEVELS) / SIGMA) ** 2 - math.log(SIGMA * math.sqrt(2 * math.pi))
    return torch.logsumexp(parts, -1).flatten(1).sum(1)


def test_bounds_are_below_the_levels_own_probability_and_tighten():
    x = LEVELS.repeat(4000)[:, None]
    true = WEIGHTS.log().repeat(4000)
    noise = TruncatedNormalDequantisation(0.5, ALPHA, SIGMA)
    drawn = [noise.draw(x, seed) for seed in range(8)]
    densities = torch.stack([d.log_density for d in drawn])
    models = torch.stack([_model(d.values) for d in drawn])
    gaps = [float((true - importance_bound(models[:k], densities[:k])).mean()) for k in (1, 2, 8)]
    assert gaps[0] > gaps[1] > gaps[2] > -0.002
    assert gaps[0] <= -math.log(math.erf(noise.tau / math.sqrt(2)))  # no more than the cut takes away
    uniform = UniformDequantisation(0.5 * ALPHA).draw(ALPHA * x, 0)
    assert float((true - (_model(uniform.values) - uniform.log_density)).mean()) > 0.3


def test_gaussian_noise_needs_its_decoder():
    """The negative control: levels that overlap, and every level seems likelier than it is; with the decoder all levels together are not
    likelier than one."""
    x, true = LEVELS.repeat(4000)[:, None], WEIGHTS.log().repeat(4000)
    wide = GaussianDequantisation(tuple(LEVELS.tolist()), ALPHA, 4 * SIGMA)
    parts = []
    for noise in (wide, GaussianDequantisation(wide.levels, ALPHA, 4 * SIGMA, decoder=False)):
        drawn = noise.draw(x, 0)
        density = torch.logsumexp(
            WEIGHTS.log() - 0.5 * ((drawn.values - ALPHA * LEVELS) / (4 * SIGMA)) ** 2 - math.log(4 * SIGMA * math.sqrt(2 * math.pi)), -1
        )
        bound = density - drawn.log_density
        parts.append(float((WEIGHTS * (true - bound).reshape(-1, 4)).sum(1).mean()))
    assert parts[0] > 0
    assert parts[1] < -0.1


def test_bad_input():
    with pytest.raises(ArgumentError, match="positive"):
        UniformDequantisation(0.0)
    with pytest.raises(ArgumentError, match="positive"):
        TruncatedNormalDequantisation(0.5, 1.0, 0.0)
    with pytest.raises(ArgumentError, match="two levels"):
        GaussianDequantisation((0.0,), 1.0, 1.0)
    with pytest.raises(ShapeError, match="at least one draw"):
        importance_bound(torch.zeros(0, 3), torch.zeros(0, 3))
