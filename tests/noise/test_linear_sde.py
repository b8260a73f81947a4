"""Every named member of the linear SDE family, and every scalar process behind its adapter, against laws that all must obey."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import ShapeError
from sfumato.noise import (
    LINEAR_SDES,
    PROCESSES,
    BetaTable,
    Clock,
    ClockSDE,
    GridSDE,
    SubVariancePreserving,
    TableSDE,
    cld,
    integrated_transition,
    linear,
    linear_sde_from_dict,
    mdm,
    pixel_times,
    psld,
)
from sfumato.noise.scalars.exponential_step import exponential_step

MEMBERS = {**LINEAR_SDES, **{name: (lambda kind=kind: linear(kind())) for name, kind in PROCESSES.items() if kind is not BetaTable}}
every_member = pytest.mark.parametrize("name", MEMBERS)
EVENTS = {"flexible": (2,), "function_space": (4,)}


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def parts(law):
    return [op.coef for op in (law.phi, law.shift, law.covariance) if op is not None]


def gap(ours, theirs):
    return max(float((a - b).abs().max() / (1 + b.abs().max())) for a, b in zip(parts(ours), parts(theirs), strict=True))


def world(name, seed=0):
    """A member, data, a state and a condition."""
    process, event = MEMBERS[name](), EVENTS.get(name, (2, 2))
    generator = torch.Generator().manual_seed(seed)
    x0, y = (torch.randn(3, *event, dtype=torch.float64, generator=generator) for _ in range(2))
    x = torch.randn(process.state_shape(x0), dtype=torch.float64, generator=generator)
    return process, event, x0, x, (y if process.conditions else None)


@every_member
def test_the_declared_route_agrees_with_the_differential_equation(name):
    """The oracle integrates (F, C, Q) at 1e-12; tables and matrix exponentials know nothing of it."""
    process = MEMBERS[name]()
    assert gap(process.transition(0.4, 0.6), integrated_transition(process, 0.4, 0.6)) < 1e-9


@every_member
def test_chapman_kolmogorov_on_random_triples(name):
    times = 0.02 + 0.96 * torch.rand(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).sort(1).values
    process = MEMBERS[name]()
    s, u, t = times.T
    first, then, whole = process.transition(s, u), process.transition(u, t), process.transition(s, t)
    assert float((then.phi @ first.phi - whole.phi).coef.abs().max()) < 1e-8
    covariance = then.phi @ first.covariance @ then.phi.T + then.covariance - whole.covariance
    assert float(covariance.coef.abs().max()) < 1e-8 * (1 + float(whole.covariance.coef.abs().max()))
    if whole.shift is not None:
        assert float((then.phi @ first.shift + then.shift - whole.shift).coef.abs().max()) < 1e-8


@every_member
def test_the_posterior_is_brute_force_conditioning(name):
    """Against the Schur complement of the joint covariance of (x_s, x_t) given x_0, as plain matrices."""
    process, event, x0, x, y = world(name)
    marginal, step, posterior = process.marginal(0.3), process.transition(0.3, 0.6), process.posterior(0.3, 0.6)
    # a process that is seen backwards has the data themselves as its condition
    drift = x0 if marginal.shift is None and step.shift is not None else y
    known = None if marginal.shift is None else y
    spread, phi = marginal.covariance.matrix(event), step.phi.matrix(event)
    gain = spread @ phi.T @ torch.linalg.inv(phi @ spread @ phi.T + step.covariance.matrix(event))
    mean = marginal.mean(x0, known).flatten(1)
    away = x.flatten(1) - step.mean(mean.reshape(x.shape), drift).flatten(1)
    expected = mean + away @ gain.T
    assert torch.allclose(posterior.mean(x0, x, known).flatten(1), expected, rtol=1e-9, atol=1e-9)
    assert torch.allclose(posterior.covariance.matrix(event), spread - gain @ phi @ spread, rtol=1e-9, atol=1e-9)


@every_member
def test_a_bridge_hit_by_its_end_is_the_transition(name):
    """Averaging the bridge over the law of its end gives back the law without it (total expectation and total variance)."""
    process = MEMBERS[name]()
    bridge, whole, first = process.bridge(0.4, 0.2, 0.7), process.transition(0.2, 0.7), process.transition(0.2, 0.4)
    assert torch.allclose((bridge.start + bridge.end @ whole.phi).coef, first.phi.coef, atol=1e-9)
    spread = bridge.covariance + bridge.end @ whole.covariance @ bridge.end.T
    assert torch.allclose(spread.coef, first.covariance.coef, rtol=1e-9, atol=1e-9)


def rate_of(function, t, h=2e-4):
    return (function(t - 2 * h) - 8 * function(t - h) + 8 * function(t + h) - function(t + 2 * h)) / (12 * h)


def interpolant_mismatch(process, event, x, x0, y, factor):
    """`A' x_0 + O' y + R' R^{-1} (x - A x_0 - O y)` minus `F x + C y - Q s / 2`, at `t = 0.5`."""
    here = process.marginal(0.5)
    away = (x - here.mean(x0, y)).flatten(1)
    turn = rate_of(lambda t: factor(t).matrix(event), 0.5) @ torch.linalg.inv(factor(0.5).matrix(event))
    velocity = rate_of(lambda t: process.marginal(t).mean(x0, y), 0.5).flatten(1) + away @ turn.T
    score = -here.covariance.solve(x - here.mean(x0, y))
    return float((velocity - process.drift(x, 0.5, score, condition=y).flatten(1)).abs().max())


@every_member
def test_the_flow_factor_moves_points_as_the_probability_flow_does(name):
    process, event, x0, x, y = world(name)
    if name == "agm":
        # the flow is that of the path to known data, whose marginals are the same
        process, y = process.steered, x0
        x0 = 0 * x0
    root = process.flow_factor(0.5)
    assert gap_of(root @ root.T, process.marginal(0.5).covariance) < 1e-12
    assert interpolant_mismatch(process, event, x, x0, y, process.flow_factor) < 1e-5 * (1 + float(x.abs().max()))


def gap_of(a, b):
    return float((a.coef - b.coef).abs().max() / (1 + b.coef.abs().max()))


def test_the_cholesky_factor_is_no_flow_factor_for_momentum():
    """Negative control: it has the same covariances, and moves particles otherwise."""
    process, event, x0, x, _ = world("cld")
    assert interpolant_mismatch(process, event, x, x0, None, lambda t: process.marginal(t).covariance.cholesky()) > 1


@every_member
def test_one_step_back_with_the_frozen_noise_is_exact_for_a_point(name):
    """Generalised DDIM: `x_s = A_s x_0 + O_s y + R_s R_t^{-1} (x_t - A_t x_0 - O_t y)`, from quadrature of the flow instead of R_s."""
    process, _, x0, x, y = world(name)
    process, x0, y = (process.steered, 0 * x0, x0) if name == "agm" else (process, x0, y)
    late, early = process.marginal(0.6), process.marginal(0.5)
    noise = process.flow_factor(0.6).inverse().apply(x - late.mean(x0, y))
    step = exponential_step(process, [0.6], 0.5)
    assert torch.allclose(step(x, [noise], y), early.mean(x0, y) + process.flow_factor(0.5).apply(noise), rtol=1e-6, atol=1e-6)


@every_member
def test_every_reverse_process_keeps_the_marginals(name):
    """With the Gaussian score the covariance moves as the noising one does, for any eta: `M S + S M^T - eta^2 Q = F S + S F^T + Q`."""
    process, event, _, x, y = world(name)
    law, rates = (process.steered if name == "agm" else process).marginal(0.5), (process.steered if name == "agm" else process).coefs(0.5)
    process = process.steered if name == "agm" else process
    spread, drift, noise = (op.matrix(event) for op in (law.covariance, rates.phi, rates.covariance))
    eye = torch.eye(len(spread), dtype=torch.float64).reshape(len(spread), *x.shape[1:])
    still = (
        None
        if y is None and not process.conditions
        else torch.zeros(len(spread), *(y.shape[1:] if y is not None else ()), dtype=torch.float64)
    )
    for eta in (0.0, 0.7, 1.0):
        reverse = process.drift(eye, 0.5, -law.covariance.solve(eye), eta, still).flatten(1).T
        left = reverse @ spread + spread @ reverse.T - eta**2 * noise
        assert torch.allclose(left, drift @ spread + spread @ drift.T + noise, rtol=1e-9, atol=1e-8)


@every_member
def test_members_are_written_down_and_made_again(name):
    process = MEMBERS[name]()
    if name in LINEAR_SDES:
        again = linear_sde_from_dict(process.to_dict())
        assert gap(again.transition(0.2, 0.8), process.transition(0.2, 0.8)) == 0


@every_member
def test_samples_and_priors_have_the_states_shape_and_the_marginal_moments(name):
    """The response of `sample` to unit noise is a factor of the covariance."""
    process, event, x0, x, y = world(name)
    known = None if name == "agm" else y
    still = process.sample(x0, 0.6, 0 * x, known)
    law = process.marginal(0.6)
    assert torch.equal(still, law.mean(x0, known))
    numbers = x[0].numel()
    units = torch.eye(numbers, dtype=torch.float64).reshape(numbers, *x.shape[1:])
    many = x0[:1].expand(numbers, *event), None if known is None else known[:1].expand(numbers, *known.shape[1:])
    moved = (process.sample(many[0], 0.6, units, many[1]) - still[:1]).flatten(1).T
    assert torch.allclose(moved @ moved.T, law.covariance.matrix(event), rtol=1e-10, atol=1e-12)
    assert process.prior_sample(x, known).shape == x.shape


@pytest.mark.parametrize("name", ["cld", "psld", "blurred_cld", "mdm", "alda", "malda", "flexible", "flexible_spectrum", "function_space"])
def test_the_stationary_law_is_the_prior_and_stays(name):
    process = MEMBERS[name]()
    prior, step = process.prior().covariance, process.transition(0.1, 0.9)
    assert gap_of(step.phi @ prior @ step.phi.T + step.covariance, prior) < 1e-12
    assert float((process.stationary() - prior.coef).abs().max()) < 1e-12


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(0, 1000))
def test_any_dissipation_and_rotation_leave_the_declared_law(channels, seed):
    generator = torch.Generator().manual_seed(seed)
    root, q = (torch.randn(channels, channels, dtype=torch.float64, generator=generator) for _ in range(2))
    law = 0.2 + torch.rand(channels, dtype=torch.float64, generator=generator)
    process = mdm(root @ root.T, q - q.T, law)
    step = process.transition(0.2, 0.7)
    assert float((step.phi.coef @ torch.diag(law) @ step.phi.coef.mT + step.covariance.coef - torch.diag(law)).abs().max()) < 1e-10


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.integers(0, 1000))
def test_random_members_agree_with_van_loan_on_the_grid(channels, modes, conditions, seed):
    """Also unstable drifts: constant coefficients through the clock route in one step, through the Magnus route in many."""
    from sfumato.noise.linear_family.basis import pixels

    generator = torch.Generator().manual_seed(seed)
    drift = torch.randn(modes, channels, channels, dtype=torch.float64, generator=generator)
    root = torch.randn(modes, channels, channels, dtype=torch.float64, generator=generator)
    pull = torch.randn(modes, channels, conditions, dtype=torch.float64, generator=generator)
    noise, basis, clock = root @ root.mT, pixels((modes,)), Clock(1.0, 3.0)
    exact = ClockSDE(drift, noise, clock, gain=pull if conditions else None, basis=basis)

    def coefs(t):
        beta = clock.rate(t)[..., None, None, None]
        return beta * drift, beta * pull, beta * noise

    for order, tolerance in ((4, 1e-9), (2, 1e-3)):
        grid = GridSDE(coefs, channels, conditions, basis=basis, cells=24, order=order)
        assert gap(grid.transition(0.1, 0.9), exact.transition(0.1, 0.9)) < tolerance


def turning(t):
    """Coefficients at different times do not commute."""
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    drift = torch.stack([torch.stack([-one, 3 * torch.cos(4 * t)], -1), torch.stack([-2 * t, -one * 0.5], -1)], -2)
    noise = torch.stack([torch.stack([zero + 0.1, zero], -1), torch.stack([zero, 1 + t], -1)], -2)
    return drift[..., None, :, :], torch.stack([t, one], -1)[..., None, :, None], noise[..., None, :, :]


@pytest.mark.parametrize("order", [2, 4])
def test_the_magnus_route_converges_at_its_order(order):
    exact = integrated_transition(GridSDE(turning, 2, 1), 0.1, 0.9)
    errors = [gap(GridSDE(turning, 2, 1, cells=n, order=order).transition(0.1, 0.9), exact) for n in (16, 32)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


def test_many_times_from_clean_data_share_one_pass_and_agree_with_the_equation():
    process = GridSDE(turning, 2, 1, cells=192)
    times = f64([0.0, 1e-4, 0.3, 0.5, 1.0])
    together = process.transition(torch.zeros_like(times), times)
    for i, t in enumerate(times.tolist()[1:], 1):
        exact = integrated_transition(process, 0.0, t)
        errors = [float((a[i] - b).abs().max()) for a, b in zip(parts(together), parts(exact), strict=True)]
        assert max(errors) < 1e-9
    assert torch.equal(together.phi.coef[0, 0], torch.eye(2, dtype=torch.float64))


def test_the_magnus_route_is_differentiable_in_its_parameters():
    """The gradient of a covariance against central differences."""

    def spread(weight):
        def coefs(t):
            drift, gain, noise = turning(t)
            return weight * drift, gain, noise * weight**2

        return GridSDE(coefs, 2, 1, cells=16).transition(0.0, 1.0).covariance.coef.sum()

    weight = f64(0.7).requires_grad_()
    (slope,) = torch.autograd.grad(spread(weight), weight)
    with torch.no_grad():
        differences = (spread(weight + 1e-5) - spread(weight - 1e-5)) / 2e-5
    assert float(slope) == pytest.approx(float(differences), rel=1e-7)


def test_the_rates_of_a_clock_member_can_be_learned():
    weight = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    dissipation, turn = torch.diag(f64([0.0, 2.0])), f64([[0.0, -1.0], [1.0, 0.0]])
    process = mdm(dissipation, weight * turn)
    (slope,) = torch.autograd.grad(process.mismatch(f64([[1.0], [2.0]])).sum(), weight)
    ends = [float(mdm(dissipation, (1.3 + h) * turn).mismatch(f64([[1.0], [2.0]])).sum()) for h in (1e-5, -1e-5)]
    assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-12)


def test_the_variance_from_0_is_not_that_from_s():
    """Negative control: sub-VP's own formula at the elapsed B is wrong by percents; the table route subtracts."""
    process = SubVariancePreserving()
    s, t = 0.3, 0.7
    elapsed = float(process._integral(f64(t)) - process._integral(f64(s)))
    wrong = (1 - math.exp(-elapsed)) ** 2
    exact = float(integrated_transition(linear(process), s, t).covariance.coef)
    assert abs(float(linear(process).transition(s, t).covariance.coef) - exact) < 1e-12
    assert abs(wrong - exact) > 1e-2


def test_noise_in_place_of_its_square_is_seen():
    """Negative control: G where Q belongs."""
    right = psld()
    drift, _, noise = right._rates
    wrong = ClockSDE(drift, noise.sqrt(), right.clock)
    assert gap(wrong.transition(0.3, 0.7), integrated_transition(right, 0.3, 0.7)) > 1e-2


def test_critically_damped_langevin_in_closed_form():
    """`Phi = e^{-2a/G} [[1 + 2a/G, 4a/G^2], [-a, 1 - 2a/G]]`, `a = beta t`, `G^2 = 4 M`."""
    a = 4 * 0.6
    expected = math.exp(-2 * a) * f64([[1 + 2 * a, 4 * a], [-a, 1 - 2 * a]])
    assert torch.allclose(cld().transition(0.0, 0.6).phi.coef[0], expected, rtol=0, atol=1e-15)


def test_early_covariances_keep_their_digits():
    """The position's variance is of third order in time: `2 Gamma (beta t)^3 / (3 M^2)`, far below the rounding of a difference of ones."""
    t = 1e-6
    ours = float(cld().transition(0.0, t).covariance.coef[0, 0, 0])
    assert ours == pytest.approx(2 * (4 * t) ** 3 / (3 * 0.25**2), rel=1e-4)


def test_paths_of_the_sde_have_the_covariance_of_the_transition():
    """Euler's method, 10000 paths of 300 steps: mean and covariance within 4 standard errors."""
    process, n, steps = cld(), 10000, 300
    generator = torch.Generator().manual_seed(3)
    x = torch.tensor([0.5, -0.2], dtype=torch.float64)[:, None].expand(n, 2, 1).clone()
    for i in range(steps):
        rates = process.coefs((i + 0.5) / steps * 0.5)
        kick = torch.randn(n, 2, 1, dtype=torch.float64, generator=generator)
        x = x + rates.phi.apply(x) * 0.5 / steps + math.sqrt(0.5 / steps) * rates.covariance.cholesky().apply(kick)
    law = process.transition(0.0, 0.5)
    away = (x - law.mean(f64([[[0.5], [-0.2]]])))[..., 0]
    spread = law.covariance.coef[0]
    assert bool((away.mean(0).abs() < 4 * (spread.diag() / n).sqrt()).all())
    error = (spread**2 + spread.diag()[:, None] * spread.diag()).div(n).sqrt()
    assert bool(((away.T @ away / n - spread).abs() < 4 * error).all())


def test_times_per_pixel_are_each_pixels_own_process():
    process = cld()
    t = torch.tensor([[[0.1, 0.5], [0.3, 0.9]], [[0.2, 0.2], [0.7, 1.0]]], dtype=torch.float64)
    law = process.marginal(t)
    alone = process.marginal(t.flatten())
    assert torch.allclose(law.covariance.coef.flatten(0, 1), alone.covariance.coef[:, 0], rtol=0, atol=1e-15)
    x0 = torch.randn(2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    single = process.marginal(0.9).mean(x0)
    assert torch.allclose(law.mean(x0)[0, :, 1, 1], single[0, :, 1, 1], rtol=0, atol=1e-15)


def test_a_pixel_that_stays_known_is_left_alone():
    """An inpainting mask as times: where the window never opens nothing happens, and the posterior there is the data."""
    process = pixel_times(f64([0.0, 1.0]), f64([1.0, 2.0]))
    x0 = f64([[0.3, -0.8]])
    noisy = process.sample(x0, 0.7, torch.ones_like(x0))
    assert float(noisy[0, 1]) == float(x0[0, 1])
    posterior = process.posterior(0.4, 0.7)
    assert float(posterior.mean(x0, noisy)[0, 1]) == float(x0[0, 1])
    assert float(posterior.covariance.coef[1]) == 0


def test_the_prior_mismatch_is_the_divergence_of_two_gaussians():
    """Against torch's own, for a process whose prior misses both mean and variance."""
    from torch.distributions import MultivariateNormal, kl_divergence

    process, event, x0, _, y = world("ouve")
    end = process.marginal(1.0)
    q = MultivariateNormal(end.mean(x0, y).flatten(1), end.covariance.matrix(event))
    prior = MultivariateNormal(y.flatten(1), process.prior().covariance.matrix(event))
    assert torch.allclose(process.mismatch(x0, y), kl_divergence(q, prior), rtol=1e-10)
    # the mean of the end is e^{-g} (x_0 - y) from the prior's
    assert torch.allclose(end.mean(x0, y) - y, math.exp(-1.5) * (x0 - y), rtol=1e-12)


def test_tables_refuse_data_that_are_not_at_time_zero():
    from sfumato.errors import ArgumentError

    with pytest.raises(ArgumentError, match=r"A\(0\)"):
        TableSDE(lambda t: (2 + t[..., None, None, None],) * 3)


def test_the_priors_density_is_that_of_the_normal_around_the_condition():
    prior, x, y = LINEAR_SDES["ir_sde"]().prior(), f64([[0.3, -1.0], [2.0, 0.1]]), f64([[0.5, 0.2], [-0.4, 1.0]])
    normal = torch.distributions.MultivariateNormal(prior.shift.apply(y), prior.covariance.matrix((2,)))
    assert torch.allclose(prior.log_prob(x, y), normal.log_prob(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["flexible", "heat"])
def test_times_per_pixel_need_operators_on_pixels(name):
    """Operators on modes, or on all numbers together, have no time of a single pixel."""
    with pytest.raises(ShapeError, match="one time per pixel"):
        LINEAR_SDES[name]().marginal(torch.full((1, 2, 2), 0.5, dtype=torch.float64))


def test_the_clock_runs_as_published():
    """Speeds of Song et al. 2021: from 0.1 to 20."""
    assert Clock().rate(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist() == [0.1, 20.0]
