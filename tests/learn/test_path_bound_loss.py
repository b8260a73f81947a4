"""The automatic bound: minus entropy and prior divergence for exact scores, whatever the process; above it for others."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.denoise import ResidualMLP
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance, prior_gap, push
from sfumato.learn import FitSettings, LearnedMDM, fit_process, path_bound_loss
from sfumato.learn.losses.path_bound_loss import draw_times
from sfumato.noise import cld, flexible, ir_sde, malda, mdm, mdm_two_clocks


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


LAW = Gaussian(f64([1.5]), SpectralCovariance.isotropic(1, 4.0))
D, W = f64([[0.3, 0.1], [0.1, 1.2]]), f64([[0.0, -1.5], [1.5, 0.0]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian_score(process, law=LAW, shift=0.0):
    cov = law.covariance.dense()[0, 0]

    def score(x, t):
        at = process.marginal(t)
        mean = at.mean(law.mean.expand(len(x), 1))
        return -(float(cov) * (at.phi @ at.phi.T) + at.covariance).solve(x - mean) + shift

    return score


@pytest.mark.parametrize("form", ["denoising", "implicit"])
@pytest.mark.parametrize("make", [lambda: malda(3, 1.0, 0.1, 4.9), lambda: mdm_two_clocks(D, W, (0.1, 4.9), (4.9, 0.1))])
def test_the_exact_score_makes_the_bound_tight(make, form):
    """`-E log p = H + KL(x_1 || prior)`, by closed forms of Gaussians alone, within 4 standard errors."""
    process = make()
    with torch.no_grad():
        found = path_bound_loss(process, gaussian_score(process), LAW.sample(10_000, 1), seeded(), form=form)
    known = 0.5 * math.log(2 * math.pi * math.e * 4) + float(prior_gap(LAW, process))
    error = float(found.std()) / math.sqrt(len(found))
    assert error < 0.08
    assert abs(float(found.mean()) - known) < 4 * error


def test_a_wrong_score_costs_what_the_integral_says():
    """A score off by a constant `c` adds `int |c|_Q^2 / 2 = c^2 int beta D_22` to the bound; same draws, so that only its noise is left."""
    process, x0 = mdm(D, W, None, 0.1, 4.9), LAW.sample(20_000, 1)
    shift = f64([[0.0], [0.5]])
    with torch.no_grad():
        right, wrong = (path_bound_loss(process, gaussian_score(process, shift=c), x0, seeded(), first=0.01) for c in (0.0, shift))
    away = wrong - right
    # the decoder's part below `first` is added in closed form: its estimate of the data moves, by the gain times c
    law = process.marginal(0.01)
    moved = float(((law.phi.T @ law.covariance.inverse() @ law.phi).inverse() @ law.phi.T).coef[0, 0, 1]) * 0.5
    precision = float((law.phi.T @ law.covariance.inverse() @ law.phi).coef)
    path = 0.25 * 1.2 * (2.5 - process.clock.between(f64(0.0), f64(0.01)))
    assert float(away.mean()) == pytest.approx(float(path) + precision * moved**2 / 2, abs=4 * float(away.std()) / math.sqrt(len(away)))


def test_times_are_distributed_as_their_density_says():
    """`E 1/density` is the length of the interval and `E t/density` half the square's difference, for clocks and grids."""
    for process in (mdm(D, W, None, 0.1, 4.9), cld(), mdm_two_clocks(D, W)):
        t, density = draw_times(process, 4000, seeded(), 1e-3)
        assert float(t.min()) >= 1e-3
        assert float(t.max()) <= 1
        assert float((1 / density).mean()) == pytest.approx(0.999, rel=2e-3)
        assert float((t / density).mean()) == pytest.approx(0.4999995, rel=2e-3)


def test_gradients_reach_the_process_through_both_routes():
    """The clock's and the grid's transitions give one gradient in (q, d), that of finite differences."""
    slopes = []
    for turn in (None, (0.1, 4.9)):
        model = LearnedMDM(2, last=4.9, turn=turn, seed=3)
        prior_gap(LAW, model.process()).backward()
        slopes.append(torch.cat([model.q.grad.flatten(), model.d.grad.flatten()]))
    assert torch.allclose(slopes[0], slopes[1], rtol=1e-6, atol=1e-9)
    model = LearnedMDM(2, last=4.9, seed=3)
    values = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            model.d[0, 1] += step
            values.append(float(prior_gap(LAW, model.process())))
    assert float(slopes[0][4 + 1]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def test_the_prior_gap_is_torchs_divergence_and_zero_at_rest():
    process = flexible(f64([[0.6, 0.2], [0.2, 1.4]]), f64([[0.0, 2.0], [-2.0, 0.0]]), None, 0.1, 3.0)
    law = Gaussian(f64([1.0, -2.0]), SpectralCovariance.from_dense(f64([[2.0, 0.5], [0.5, 0.7]])))
    end = push(law, process, 1.0)
    normal = torch.distributions.MultivariateNormal
    known = torch.distributions.kl_divergence(
        normal(end.means[0], end.covariances[0].dense()), normal(f64([0.0, 0.0]), torch.eye(2).double())
    )
    assert float(prior_gap(law, process)) == pytest.approx(float(known), abs=1e-12)
    assert float(prior_gap(Gaussian(f64([0.0, 0.0]), SpectralCovariance.isotropic(2, 1.0)), process)) == pytest.approx(0, abs=1e-12)
    y = f64([0.4])
    away = prior_gap(LAW, ir_sde(), y)
    assert float(away) > 0
    with pytest.raises(ArgumentError, match="condition"):
        prior_gap(LAW, ir_sde())


def test_learned_matrices_keep_norm_and_stationary_law_and_reach_a_lower_gap():
    model = LearnedMDM(3, "diagonal", 2.5, last=4.9)
    before = float(prior_gap(LAW, model.process()).detach())
    for _ in range(30):
        slopes = torch.autograd.grad(prior_gap(LAW, model.process()), [model.q, model.d])
        with torch.no_grad():
            model.q -= 0.3 * slopes[0]
            model.d -= 0.3 * slopes[1]
    dissipation, rotation = (m.detach() for m in model.matrices())
    assert float(dissipation.square().sum() + rotation.square().sum()) == pytest.approx(6.25)
    assert torch.equal(rotation, -rotation.T)
    assert bool((dissipation.diagonal() > 0).all())
    with torch.no_grad():
        process = model.process()
    assert torch.allclose(process.stationary()[0], torch.eye(3).double(), atol=1e-12)
    assert float(prior_gap(LAW, process)) < 0.5 * before


def test_network_and_process_learn_together():
    """Two modes: the bound falls, the process moves; one without gradients stays."""
    law = GaussianMixture([0.5, 0.5], f64([[1.0], [-1.0]]), [SpectralCovariance.isotropic(1, 0.1)] * 2)
    model, network = LearnedMDM(2, last=10.0), ResidualMLP((2, 1), 32, 1)
    first = [p.detach().clone() for p in model.parameters()]
    losses = fit_process(model, network, law.sample(2000, 1), FitSettings(12, 64, 2e-2, warmup=0, ema_decay=0.5))
    assert float(losses[-3:].mean()) < 0.7 * float(losses[:3].mean())
    assert all(not torch.equal(a, b) for a, b in zip(first, model.parameters(), strict=True))
    kept = [p.detach().clone() for p in model.requires_grad_(False).parameters()]
    fit_process(model, network, law.sample(100, 1), FitSettings(1, 16))
    assert all(torch.equal(a, b) for a, b in zip(kept, model.parameters(), strict=True))


def test_bad_input_is_refused():
    process, x0 = cld(), LAW.sample(4, 1)
    score = gaussian_score(process)
    for wrong in ({"first": 0.0}, {"first": 1.0}, {"form": "explicit"}):
        with pytest.raises((ArgumentError, TypeError)):
            path_bound_loss(process, score, x0, seeded(), **wrong)
    with pytest.raises(ArgumentError, match="condition"):
        path_bound_loss(ir_sde(), score, x0, seeded())
    for wrong in ({"channels": 0}, {"size": 0.0}):
        with pytest.raises(ArgumentError):
            LearnedMDM(**wrong)
