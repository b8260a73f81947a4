"""Bounds against laws that know their density and their entropy, and importance sampling against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.learn.losses.likelihood_times import AdaptiveTimes, Cells, EvenTimes, LikelihoodTimes, LikelihoodWeight
from sfumato.learn.losses.variational_bound import LevelDecoder, continuous_bound, discrete_bound
from sfumato.noise import BetaTable, FlowMatching, VariancePreserving
from sfumato.sample.steps.reverse_chain import ReverseChain


@pytest.mark.parametrize("process", [VariancePreserving(), FlowMatching()], ids=lambda p: p.kind)
def test_the_continuous_bound_of_the_exact_denoiser_is_tight(g4, process):
    """Within 3 standard errors of the mixture's own density (stratified draws scatter less than that), which are under 0.04 bits."""
    x = g4.sample(200, 0)
    exact = -float(g4.log_prob(x).mean()) / math.log(4)
    times = LikelihoodTimes(-5.0 if process.kind == "variance-preserving" else -8.0, 7.0)
    found = continuous_bound(g4.denoiser(process), x, times, draws=150)
    mean = found.mean_bits_per_dimension()
    assert mean.standard_error < 0.04
    assert mean.value == pytest.approx(exact, abs=3 * mean.standard_error)
    wrong = continuous_bound(g4.gaussian().denoiser(process), x, times, draws=150).mean_bits_per_dimension()
    assert wrong.value > exact + 5 * wrong.standard_error  # the negative control: another law's denoiser


def test_importance_sampling_has_less_variance_and_the_same_mean(g4):
    x, belief = g4.sample(200, 1), g4.denoiser(VariancePreserving())
    plain, better = (continuous_bound(belief, x, times(-5.0, 7.0), draws=64) for times in (EvenTimes, LikelihoodTimes))
    assert float(better.standard_error.square().mean()) < 0.75 * float(plain.standard_error.square().mean())
    apart = plain.mean_bits_per_dimension(), better.mean_bits_per_dimension()
    assert apart[0].value == pytest.approx(apart[1].value, abs=3 * math.hypot(*(e.standard_error for e in apart)))


def test_the_density_of_equal_velocity_errors_against_its_closed_form():
    """Variance preserving: `gamma(u) = -log(exp(-Z u)(1 + exp(-g_0)) - 1)`, `Z = log((1 + exp(-g_0))/(1 + exp(-g_1)))`, `gamma = -2 lam`;
    straight paths: `Z = 2 [h(g_0) - h(g_1)]`, `h(g) = log(1 + exp(-g/2)) + 1/(1 + exp(-g/2))`."""
    low, high = -2.5, 6.65
    times, process = LikelihoodTimes(low, high), VariancePreserving()
    u = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    g0, g1 = -2 * high, -2 * low
    z = math.log1p(math.exp(-g0)) - math.log1p(math.exp(-g1))
    gamma = -torch.log(torch.expm1(math.log1p(math.exp(-g0)) - z * u))
    torch.testing.assert_close(-2 * process.half_log_snr(times.quantile(process, u)), gamma, rtol=0, atol=2e-5)
    weight = LikelihoodWeight(times)(process, times.quantile(process, u))
    torch.testing.assert_close(weight, torch.full_like(weight, z / 2), rtol=2e-3, atol=0)  # one constant in the velocity view
    flow = FlowMatching()
    lam = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64)
    mass = 2 * (_h(g0) - _h(g1))
    torch.testing.assert_close(times.cells(flow).density(lam), 2 * torch.sigmoid(lam) ** 2 / mass, rtol=3e-3, atol=0)


def _h(g):
    return math.log1p(math.exp(-g / 2)) + 1 / (1 + math.exp(-g / 2))


def test_cells_draw_from_their_density():
    """The quantile function inverts the density's integral, and measured losses are found again as roots."""
    cells = Cells(-1.0, 3.0, torch.tensor([1.0, 4.0, 2.0, 1.0]))
    u = torch.linspace(1e-3, 1, 1000, dtype=torch.float64)
    lam = cells.quantile(u)
    grid = torch.linspace(-1, 3, 400_001, dtype=torch.float64)
    above = torch.stack([torch.trapezoid(cells.density(grid) * (grid >= v), grid) for v in lam[::100]])
    torch.testing.assert_close(above, u[::100], rtol=0, atol=1e-4)
    losses = torch.where(lam < 1, 9.0, 1.0)
    adaptive = AdaptiveTimes.measured(lam, losses, -1.0, 3.0, 4)
    assert adaptive.roots == pytest.approx((9.0, 9.0, 1.0, 1.0))


def test_the_discrete_bound_of_a_gaussian_is_its_closed_form(full_gaussian):
    """Mode by mode `E|x_0 - D|^2 = l sigma^2 / (alpha^2 l + sigma^2)`; the sampled bound is within 4 of its standard errors, and finer
    chains are nearer to the entropy, from above."""
    law, table = full_gaussian, BetaTable.linear(200, 5e-4, 0.1)
    spectrum, x = law.covariance.spectrum, law.sample(600, 0)
    entropy = 0.5 * float(torch.log(2 * math.pi * math.e * spectrum).mean())
    gaps = []
    for steps in (10, 40):
        chain = ReverseChain.respaced(table, steps)
        share = torch.linspace(0.9, 0.4, steps, dtype=torch.float64)
        t = torch.tensor(chain.times[:-1], dtype=torch.float64)[:, None]
        alpha, sigma = table.levels(t)
        error = (spectrum * sigma**2 / (alpha**2 * spectrum + sigma**2)).mean(1)
        level = chain.log_variance(share)
        inner = float(chain.divergence(error[:-1], level[:-1], slice(0, -1)).sum())
        last = 0.5 * float(math.log(2 * math.pi) + level[-1] + error[-1] * torch.exp(-level[-1]))
        second = float(spectrum.mean() + law.mean.square().mean())
        prior = 0.5 * float(alpha[0] ** 2 * second + sigma[0] ** 2 - 1 - 2 * sigma[0].log())
        found = discrete_bound(law.denoiser(table), x, chain, share)
        spread = float(found.total.std()) / math.sqrt(len(x))
        assert float(found.total.mean()) == pytest.approx(12 * (inner + last + prior), abs=4 * spread)
        best = chain.best_log_variance(error)
        assert float(chain.divergence(error[:-1], best[:-1], slice(0, -1)).sum()) < inner
        gaps.append(inner + last + prior - entropy)
    assert gaps[0] > gaps[1] > 0


def test_the_decoder_of_levels_is_a_distribution():
    """Masses of all levels sum to one, also where the answer is far away, and fine cells have the density's mass."""
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    decoder = LevelDecoder()
    for said, log_variance in ((0.1, -8.0), (3.0, -2.0), (-1.0, -12.0)):
        mass = torch.exp(-decoder(levels, torch.tensor(said, dtype=torch.float64), torch.tensor(log_variance, dtype=torch.float64)))
        assert float(mass.sum()) == pytest.approx(1, abs=1e-10)
    middle = torch.exp(-decoder(levels[100:101], levels[100:101], torch.tensor(0.0, dtype=torch.float64)))
    assert float(middle) == pytest.approx(2 / 255 / math.sqrt(2 * math.pi), rel=1e-4)
    far = decoder(levels[:2], torch.tensor(0.9, dtype=torch.float64), torch.tensor(-12.0, dtype=torch.float64))
    assert bool(torch.isfinite(far).all())  # 760 standard deviations away


def test_bad_input(g4):
    process = VariancePreserving()
    belief, x = g4.denoiser(process), g4.sample(2, 0)
    with pytest.raises(ArgumentError, match="at least one draw"):
        continuous_bound(belief, x, LikelihoodTimes(), draws=0)
    with pytest.raises(ArgumentError, match="where variance-preserving ends"):
        continuous_bound(belief, x, LikelihoodTimes(-9.0, 5.0))
    with pytest.raises(ArgumentError, match="one share a step"):
        discrete_bound(belief, x, ReverseChain(process, (1.0, 0.5, 0.0)), torch.ones(3))
    with pytest.raises(ArgumentError, match="low < high"):
        EvenTimes(2.0, 1.0)
    with pytest.raises(ArgumentError, match="A cell without mass"):
        Cells(0.0, 1.0, torch.tensor([1.0, 0.0]))
