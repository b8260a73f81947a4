"""Densities and codes by the adaptive flow, against laws that know their density, SciPy's solver and each other."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import EDM, Cosine, FlowMatching, SubVariancePreserving, VarianceExploding, VariancePreserving
from sfumato.sample.continuous.adaptive_ode import flow, solve
from sfumato.sample.continuous.likelihood import divergence_of, log_likelihood

PROCESSES = [VarianceExploding(1e-3, 50.0), VariancePreserving(), SubVariancePreserving(), EDM(), FlowMatching(), Cosine()]


def world(law, process, n=12, ratio=1e-2):
    t = float(process.time_of_ratio(ratio))
    x = float(process.alpha(t)) * law.sample(n, 0)
    return law.denoiser(process), x, t, law.through(process, t).log_prob(x), law.through(process, 1.0).log_prob


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
def test_the_density_of_a_mixture(g4, process):
    belief, x, t, exact, terminal = world(g4, process)
    found = log_likelihood(belief, x, t, tolerance=1e-6, terminal=terminal)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.log_prob, exact, rtol=0, atol=3e-5)


def test_the_error_falls_with_the_tolerance_and_the_cost_rises(g4):
    belief, x, t, exact, terminal = world(g4, PROCESSES[0], ratio=1e-3)
    found = [log_likelihood(belief, x, t, tolerance=tolerance, terminal=terminal) for tolerance in (1e-3, 1e-5, 1e-7)]
    errors = [float((f.log_prob - exact).abs().max()) for f in found]
    assert errors[1] < 3e-4
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    costs = [float(f.evaluations.double().mean()) for f in found]
    assert costs[0] < costs[1] < costs[2]


def test_the_default_terminal_law_is_the_prior(full_gaussian):
    """With the prior in place of the marginal, log p is off by exactly their difference at the code."""
    process = EDM(5.0)
    belief, x, t, _, terminal = world(full_gaussian, process)
    own, other = (log_likelihood(belief, x, t, tolerance=1e-4, terminal=f) for f in (terminal, None))
    prior = torch.distributions.Normal(0.0, torch.tensor(5.0, dtype=torch.float64))
    torch.testing.assert_close(other.log_prob - own.log_prob, prior.log_prob(own.code).flatten(1).sum(1) - terminal(own.code))


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_probes_are_unbiased(full_gaussian, kind):
    """The mean over 100 independent estimates lies within 3.5 standard errors, which chance leaves once in 2000 times; fixed seed."""
    belief, x, t, exact, terminal = world(full_gaussian, VariancePreserving(), n=1, ratio=0.1)
    many = x.expand(100, *x.shape[1:])
    found = log_likelihood(belief, many, t, divergence=kind, probes=2, seed=3, terminal=terminal)
    away = found.log_prob - exact
    assert float(away.std()) > 0.1  # they are estimates
    assert abs(float(away.mean())) < 3.5 * float(away.std()) / 10


def test_probes_tell_how_far_they_are_off(g4):
    """With 32 probes the errors are within their own standard errors as often as chance says: |z| < 3.5 for all of 16, fixed seed; their
    mean too. The exact divergence has no such error, and a single probe does not know its own."""
    belief, x, t, exact, terminal = world(g4, VariancePreserving(), n=16, ratio=0.1)
    found = log_likelihood(belief, x, t, divergence="rademacher", probes=32, seed=3, tolerance=1e-4, terminal=terminal)
    z = (found.log_prob - exact) / found.standard_error
    assert float(z.abs().max()) < 3.5
    assert 0.5 < float(z.std()) < 1.5
    mean = found.mean_bits_per_dimension()
    assert mean.value == pytest.approx(float(-exact.mean()) / math.log(4), abs=2 * mean.standard_error)
    few = log_likelihood(belief, x, t, divergence="rademacher", probes=8, seed=4, tolerance=1e-4, terminal=terminal)
    assert float(few.standard_error.mean() / found.standard_error.mean()) == pytest.approx(2.0, rel=0.3)
    assert bool(log_likelihood(belief, x[:2], t, divergence="gaussian", seed=3).standard_error.isnan().all())
    assert float(log_likelihood(belief, x[:2], t).standard_error.abs().sum()) == 0


def test_bits_per_dimension_to_a_thousandth_with_the_exact_divergence(g4):
    belief, x, t, exact, _ = world(g4, VariancePreserving(), n=100)
    found = log_likelihood(belief, x, t).mean_bits_per_dimension()
    assert found.value == pytest.approx(float(-exact.mean()) / math.log(4), abs=1e-3)


def test_encoding_is_the_gaussian_flow_and_decoding_undoes_it(full_gaussian):
    process = VariancePreserving()
    belief, x, t, _, _ = world(full_gaussian, process, n=4)
    code = flow(belief, x, t, 1.0, tolerance=1e-7)
    torch.testing.assert_close(code.end, full_gaussian.flow(process, t, 1.0)(x), rtol=0, atol=3e-6)
    torch.testing.assert_close(flow(belief, code.end, 1.0, t, tolerance=1e-7).end, x, rtol=0, atol=3e-6)


def test_a_sample_does_not_depend_on_its_batch(g4):
    belief, x, t, _, terminal = world(g4, VariancePreserving())
    many, few = (log_likelihood(belief, v, t, terminal=terminal) for v in (x, x[4:6]))
    torch.testing.assert_close(many.log_prob[4:6], few.log_prob, rtol=1e-10, atol=1e-10)
    assert torch.equal(many.evaluations[4:6], few.evaluations)


def test_the_solver_against_scipy_and_its_order():
    """A pendulum: SciPy's DOP853 agrees, and the error follows the tolerance."""
    from scipy.integrate import solve_ivp

    y = torch.tensor([[1.0, 0.0], [2.5, 0.5]], dtype=torch.float64)
    exact = torch.stack(
        [
            torch.tensor(solve_ivp(lambda u, v: [v[1], -math.sin(v[0])], (0, 6), row, "DOP853", rtol=1e-12, atol=1e-12).y[:, -1])
            for row in y.tolist()
        ]
    )

    def rate(u, v):
        return torch.stack([v[:, 1], -torch.sin(v[:, 0])], 1)

    errors = [float((solve(rate, y, 0.0, 6.0, tolerance).end - exact).abs().max()) for tolerance in (1e-4, 1e-7, 1e-10)]
    assert errors[0] < 3e-3
    assert errors[1] < 3e-6
    assert errors[2] < 3e-9
    back = solve(rate, exact, 6.0, 0.0, 1e-10)
    torch.testing.assert_close(back.end, y, rtol=0, atol=1e-8)


def test_a_solve_that_does_not_arrive_is_reported():
    solved = solve(lambda u, y: y**2, torch.tensor([[2.0], [0.1]], dtype=torch.float64), 0.0, 1.0, 1e-8, 300)  # 1 / (1/2 - u) explodes
    assert solved.converged.tolist() == [False, True]
    assert float(solved.end[1]) == pytest.approx(1 / 9, rel=1e-6)


def test_bits_per_dimension_of_uniform_integers_is_their_entropy(g4):
    """256 levels, each equally likely: 8 bits."""
    belief, x, t, _, terminal = world(g4, VariancePreserving(), n=2)
    found = log_likelihood(belief, x, t, tolerance=1e-3, terminal=terminal)
    uniform = dataclasses.replace(found, log_prob=torch.full((2,), -2 * math.log(2.0), dtype=torch.float64))
    torch.testing.assert_close(uniform.bits_per_dimension(2 / 256), torch.full((2,), 8.0, dtype=torch.float64))  # a density 1/2 on [-1, 1]


def test_a_wrong_flow_has_wrong_densities(g4):
    """The negative control: a belief that is not the law's, here that of a wider one."""
    belief, x, t, exact, terminal = world(g4, VariancePreserving())
    wrong = log_likelihood(g4.gaussian().denoiser(belief.process), x, t, terminal=terminal)
    assert float((wrong.log_prob - exact).abs().max()) > 0.1


def test_bad_input(g4):
    belief, x, t, _, _ = world(g4, VariancePreserving(), n=2)
    with pytest.raises(ArgumentError, match="different times"):
        log_likelihood(belief, x, 0.0)
    with pytest.raises(ArgumentError, match="different times"):
        flow(belief, x, 0.5, 0.5)
    with pytest.raises(ArgumentError, match="tolerance"):
        flow(belief, x.to(torch.float32), t, 1.0, tolerance=1e-8)
    with pytest.raises(ArgumentError, match="probes"):
        log_likelihood(belief, x, t, divergence="rademacher", probes=0)
    found = log_likelihood(belief, x, t, tolerance=1e-2, divergence="rademacher")
    with pytest.raises(ArgumentError, match="bin_width"):
        found.bits_per_dimension(0.0)


def test_the_error_of_the_mean_is_that_of_independent_probes(g4):
    """Standard errors of independent samples add in squares."""
    belief, x, t, *_ = world(g4, VariancePreserving(), n=3)
    found = dataclasses.replace(log_likelihood(belief, x, t), standard_error=torch.tensor([3.0, 4.0, 12.0], dtype=torch.float64))
    assert found.mean_bits_per_dimension().standard_error == pytest.approx(13 / 3 / (2 * math.log(2)), rel=1e-12)


def test_the_divergence_is_the_trace_of_the_jacobian(g4, full_gaussian):
    """Of a mixture against autograd's whole Jacobian, sample by sample; of a Gaussian `sum alpha l / (alpha^2 l + sigma^2)` anywhere."""
    process, t = VariancePreserving(), 0.4
    x = g4.sample(3, 1)
    jacobian = torch.autograd.functional.jacobian(lambda v: g4.denoiser(process).denoise(v, t), x)
    expected = torch.stack([jacobian[i, :, i].trace() for i in range(3)])
    torch.testing.assert_close(divergence_of(g4.denoiser(process), x, t), expected, rtol=1e-12, atol=0)
    assert float(expected.std()) > 1e-3
    alpha, sigma = (float(v) for v in process.levels(t))
    own = full_gaussian.covariance.eigenvalues
    exact = (alpha * own / (alpha**2 * own + sigma**2)).sum()
    torch.testing.assert_close(
        divergence_of(full_gaussian.denoiser(process), full_gaussian.sample(2, 0), t), exact.expand(2), rtol=1e-10, atol=0
    )


def test_what_random_signs_and_normal_probes_say_of_a_linear_belief():
    """The belief `A x` at every level: along the way the estimate is `v^T A v`, so random signs are exact where A is diagonal, and else
    off by the sum of the other entries with signs; the spread of two probes is their standard error."""

    class Linear(Denoiser):
        process = VariancePreserving()

        def __init__(self, matrix):
            self.matrix = matrix

        def denoise(self, x, t, condition=None):
            return x @ self.matrix.T

    x = torch.tensor([[0.3, -0.8], [1.0, 0.1], [0.0, 0.4], [-2.0, 0.6]], dtype=torch.float64)
    even, tilted = (Linear(torch.tensor([[0.4, e], [e, 0.2]], dtype=torch.float64)) for e in (0.0, 0.3))
    exact = log_likelihood(even, x, 0.3, tolerance=1e-7)
    signs = log_likelihood(even, x, 0.3, divergence="rademacher", probes=3, tolerance=1e-7)
    torch.testing.assert_close(signs.log_prob, exact.log_prob, rtol=0, atol=1e-5)
    assert float(signs.standard_error.max()) < 1e-5
    whole = log_likelihood(tilted, x, 0.3, tolerance=1e-7).log_prob
    one = (log_likelihood(tilted, x, 0.3, divergence="rademacher", seed=1, tolerance=1e-7).log_prob - whole).abs()
    # the two signs of `2 e v_1 v_2` move every sample by as much
    torch.testing.assert_close(one, one[:1].expand(4), rtol=1e-4, atol=0)
    two = log_likelihood(tilted, x, 0.3, divergence="rademacher", probes=2, seed=1, tolerance=1e-7)
    away = (two.log_prob - whole).abs()
    for error, off in zip(two.standard_error.tolist(), away.tolist(), strict=True):
        # both probes on one side, or one on each: then the mean is right, and its error theirs
        assert (error, off) == (pytest.approx(0.0, abs=1e-5), pytest.approx(float(one[0]), rel=1e-4)) or (
            (error, off) == (pytest.approx(float(one[0]), rel=1e-4), pytest.approx(0.0, abs=1e-5))
        )
    assert len({round(v, 4) for v in away.tolist()}) == 2


def test_bits_of_one_sample_are_their_own_mean(full_gaussian):
    """Twelve numbers: a density of `2^-24` a sample is 2 bits each, and one more in bins of half the width."""
    belief, x, t, *_ = world(full_gaussian, VariancePreserving(), n=1)
    found = log_likelihood(belief, x, t, divergence="rademacher", tolerance=0.1)
    one = dataclasses.replace(found, log_prob=found.log_prob * 0 - 24 * math.log(2), standard_error=found.log_prob * 0 + 6 * math.log(2))
    assert one.mean_bits_per_dimension().value == pytest.approx(2, rel=1e-12)
    assert one.mean_bits_per_dimension(0.5).value == pytest.approx(3, rel=1e-12)
    assert one.mean_bits_per_dimension(0.5).standard_error == pytest.approx(0.5, rel=1e-12)
