"""Bridges: against the Ornstein-Uhlenbeck closed forms, against conditioning one joint Gaussian, and the theorem on straight lines."""

import dataclasses
import math

import pytest
import torch
from scipy.integrate import solve_ivp

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import bridge, linear_transition, noise_bridge
from sfumato.noise import EDM, FlowMatching, VariancePreserving

F64 = torch.float64


def system(dim=3):
    g = torch.Generator().manual_seed(0)
    A, B = torch.randn(2, dim, dim, dtype=F64, generator=g)
    return A - torch.eye(dim, dtype=F64), torch.randn(dim, dtype=F64, generator=g), B @ B.T / 2 + 0.1 * torch.eye(dim, dtype=F64)


def test_transition_solves_the_moment_equations():
    """m' = A m + c and Q' = A Q + Q A^T + 2 D by SciPy's DOP853."""
    A, c, D = system()
    step, start = linear_transition(A, c, D, 0.7), torch.tensor([1.0, -2.0, 0.5], dtype=F64)

    def rates(t, y):
        m, Q = torch.tensor(y[:3]), torch.tensor(y[3:]).reshape(3, 3)
        return torch.cat([A @ m + c, (A @ Q + Q @ A.T + 2 * D).reshape(-1)]).numpy()

    y = torch.tensor(solve_ivp(rates, (0, 0.7), [*start.tolist(), *[0.0] * 9], method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1])
    torch.testing.assert_close(step.phi @ start + step.shift, y[:3], rtol=0, atol=1e-10)
    torch.testing.assert_close(step.covariance, y[3:].reshape(3, 3), rtol=0, atol=1e-10)


def test_transitions_compose():
    A, c, D = system()
    first, second, both = (linear_transition(A, c, D, h) for h in (0.3, 0.5, 0.8))
    torch.testing.assert_close(second.phi @ first.phi, both.phi, rtol=0, atol=1e-13)
    torch.testing.assert_close(second.phi @ first.shift + second.shift, both.shift, rtol=0, atol=1e-13)
    torch.testing.assert_close(second.phi @ first.covariance @ second.phi.T + second.covariance, both.covariance, rtol=0, atol=1e-13)


def test_bridge_is_the_joint_gaussian_conditioned():
    """The (x_t, x_T) covariance conditioned on x_T with a plain inverse; at the ends the mean is the end and the covariance 0."""
    A, c, D = system()
    a, b = torch.tensor([1.0, 0.0, -1.0], dtype=F64), torch.tensor([0.5, 2.0, 0.3], dtype=F64)
    before, after, whole = (linear_transition(A, c, D, h) for h in (0.4, 0.6, 1.0))
    cross = before.covariance @ after.phi.T
    gain = cross @ torch.linalg.inv(whole.covariance)
    mean, covariance = bridge(a, b, before, after)
    torch.testing.assert_close(mean, before.phi @ a + before.shift + gain @ (b - whole.phi @ a - whole.shift), rtol=0, atol=1e-12)
    torch.testing.assert_close(covariance, before.covariance - gain @ cross.T, rtol=0, atol=1e-12)
    end, nothing = bridge(a, b, whole, linear_transition(A, c, D, 0))
    torch.testing.assert_close(end, b, rtol=0, atol=1e-11)
    assert float(nothing.abs().max()) < 1e-12


def test_ornstein_uhlenbeck_bridge_is_the_sinh_formula():
    """f = -x, D = 1/2: mean (a sinh(T-t) + b sinh t)/sinh T, variance sinh t sinh(T-t)/sinh T."""
    eye = torch.eye(1, dtype=F64)
    for t in (0.1, 0.5, 0.8):
        steps = [linear_transition(-eye, torch.zeros(1, dtype=F64), eye / 2, h) for h in (t, 1 - t)]
        mean, covariance = bridge(torch.tensor([-2.0], dtype=F64), torch.tensor([3.0], dtype=F64), *steps)
        assert float(mean) == pytest.approx((-2 * math.sinh(1 - t) + 3 * math.sinh(t)) / math.sinh(1), rel=1e-12)
        assert float(covariance) == pytest.approx(math.sinh(t) * math.sinh(1 - t) / math.sinh(1), rel=1e-12)


@pytest.mark.parametrize("process", [EDM(2.0), VariancePreserving(), FlowMatching()])
def test_noise_bridge_is_straight_in_the_squared_ratio(process):
    """In u = x/alpha, v = k^2 the mean is the straight line and the variance (v - v_s)(v_u - v)/(v_u - v_s), for any scalar process."""
    s, u, times = 0.1, 0.9, torch.linspace(0.1, 0.9, 9, dtype=F64)
    clean, noisy = torch.tensor([[1.0, -1.0]], dtype=F64), torch.tensor([[0.2, 2.0]], dtype=F64)
    mean, variance = noise_bridge(process, clean, noisy, s, u, times)
    v, alpha = process.ratio(times) ** 2, process.alpha(times)
    share = ((v - v[0]) / (v[-1] - v[0]))[:, None, None]
    straight = clean / alpha[0] + (noisy / alpha[-1] - clean / alpha[0]) * share
    torch.testing.assert_close(mean, alpha[:, None, None] * straight, rtol=0, atol=1e-11)
    torch.testing.assert_close(variance, alpha**2 * (v - v[0]) * (v[-1] - v) / (v[-1] - v[0]), rtol=0, atol=1e-11)


def test_noise_bridge_from_pure_noise_is_the_forward_process():
    """Where no signal is left the noisy end tells nothing."""
    times = torch.tensor([0.4], dtype=F64)
    one = torch.ones(2, dtype=F64)
    mean, variance = noise_bridge(FlowMatching(), one, 5 * one, 0.0, 1.0, times)
    # x_t = alpha x_0 + sigma eps and x_1 = eps: the end is the noise itself
    step = FlowMatching().transition(0.4, 1.0)
    assert float(step.phi) == 0
    torch.testing.assert_close(mean[0], 0.6 * one, rtol=0, atol=1e-14)
    assert float(variance) == pytest.approx(0.16)


def test_bad_input():
    A, c, D = system()
    step = linear_transition(A, c, D, 0.5)
    with pytest.raises(ArgumentError, match="duration"):
        linear_transition(A, c, D, -1.0)
    with pytest.raises(ShapeError, match="before"):
        bridge(torch.zeros(2, dtype=F64), torch.zeros(2, dtype=F64), step, step)
    with pytest.raises(ShapeError, match="after"):
        bridge(c, c, step, dataclasses.replace(step, covariance=step.covariance.diagonal()))
    silent = linear_transition(A, c, torch.zeros(3, 3, dtype=F64), 0.5)
    with pytest.raises(ArgumentError, match="singular"):
        bridge(c, c, silent, silent)
    with pytest.raises(ArgumentError, match="s, u"):
        noise_bridge(EDM(), c, c, 0.5, 0.5, torch.tensor([0.5], dtype=F64))
    with pytest.raises(ArgumentError, match="times"):
        noise_bridge(EDM(), c, c, 0.2, 0.5, torch.tensor([0.6], dtype=F64))
