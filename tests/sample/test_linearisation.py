from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, FlowMatching, Trigonometric, VariancePreserving
from sfumato.sample import Exponential, Linearisation, uniform_log_snr

PROCESSES = [VariancePreserving(), EDM(), FlowMatching(), Trigonometric()]


def level(lam):
    """Variance preserving `alpha` and `sigma`."""
    return math.sqrt(1 / (1 + math.exp(-2 * lam))), math.sqrt(1 / (1 + math.exp(2 * lam)))


def by_quad(base, end, nodes, variance, power, alpha_sigma):
    """The docstring's integral by QUADPACK, on the formula as printed; logarithms only keep it from overflowing."""
    alpha, sigma = alpha_sigma

    def log_size(lam):
        return 0.0 if math.isinf(variance) else 0.5 * np.logaddexp(math.log(variance) if variance else -math.inf, -2 * lam)

    out, sizes = [], []
    for n, own in enumerate(nodes):

        def kernel(lam, n=n, own=own):
            lagrange = math.prod((lam - m) / (own - m) for j, m in enumerate(nodes) if j != n)
            return lagrange * math.exp(-2 * power * lam - (2 * power + 1) * log_size(lam))

        # QUADPACK does better on pieces that begin and end where the kernel turns
        turn = [-0.5 * math.log(variance)] if 0 < variance < math.inf else []
        edges = [base, *(e for e in sorted({*turn, 0.0}) if base < e < end), end]
        pieces = [quad(kernel, a, b, epsabs=0, epsrel=1e-12, limit=200)[0] for a, b in pairwise(edges)]
        scale = alpha if math.isinf(variance) else math.sqrt(alpha**2 * variance + sigma**2)
        relative = 1.0 if math.isinf(own) else math.exp(2 * power * (log_size(own) + own))
        out.append(scale * relative * sum(pieces))
        sizes.append(scale * relative * sum(abs(p) for p in pieces))
    return out, sizes


VARIANCES = [0.0, 1e-4, 0.3, 1.0, 30.0, 1e4, math.inf]


@settings(max_examples=40)
@given(
    lams=st.lists(st.integers(-50, 60), min_size=2, max_size=6, unique=True),
    ahead=st.booleans(),
    power=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_weights_are_the_integrals_of_the_docstring(lams, ahead, power):
    """Nodes at and behind the base, as a predictor has them, or at the end too, as a corrector has them."""
    lams = [v / 10 for v in sorted(lams)]
    *behind, end = lams
    base, nodes = behind[-1], behind[-3:] + ([end] if ahead else [])
    got = Linearisation(torch.tensor(VARIANCES, dtype=torch.float64), power).weights(base, end, nodes, level(end))
    for mode, variance in enumerate(VARIANCES):
        expected, sizes = by_quad(base, end, nodes, variance, power, level(end))
        for n in range(len(nodes)):
            assert abs(float(got[n, mode]) - expected[n]) <= 1e-11 * max(sizes[n], abs(expected[n]))


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("base", [-3.0, 0.0, 4.0])
def test_steps_to_zero_noise_are_the_limit_integrals(base, power):
    got = Linearisation(torch.tensor(VARIANCES, dtype=torch.float64), power).weights(base, math.inf, [base], (1.0, 0.0))
    for mode, variance in enumerate(VARIANCES):
        if variance == 0:
            assert float(got[0, mode]) == 1, "the step returns the data prediction"
            continue
        expected, _ = by_quad(base, math.inf, [base], variance, power, (1.0, 0.0))
        assert float(got[0, mode]) == pytest.approx(expected[0], rel=1e-11)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("end", [-3.0, 0.0, 5.0])
def test_steps_from_pure_noise_are_the_limit_integrals(end, power):
    variances = VARIANCES[:-1]  # pure noise has no noise prediction
    split = Linearisation(torch.tensor(variances, dtype=torch.float64), power)
    for nodes in ([-math.inf], [end], [end - 2.0, end]):
        got = split.weights(-math.inf, end, nodes, level(end))
        for mode, variance in enumerate(variances):
            expected, sizes = by_quad(-math.inf, end, nodes, variance, power, level(end))
            for n in range(len(nodes)):
                assert abs(float(got[n, mode]) - expected[n]) <= 1e-10 * sizes[n]


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_one_step_from_pure_noise_to_no_noise(power):
    split = Linearisation(torch.tensor(VARIANCES[:-1], dtype=torch.float64), power)
    got = split.weights(-math.inf, math.inf, [-math.inf], (1.0, 0.0))[0]
    assert float(got[0]) == 1
    for mode, variance in enumerate(VARIANCES[1:-1], start=1):
        expected, _ = by_quad(-math.inf, math.inf, [-math.inf], variance, power, (1.0, 0.0))
        assert float(got[mode]) == pytest.approx(expected[0], rel=1e-10)


def test_data_prediction_of_order_one_is_ddim():
    """`x_t = (sigma_t/sigma_s) x_s + alpha_t (1 - e^-h) D`, to the last digits for steps short and long."""
    for h in (1e-8, 1e-3, 0.5, 7.0):
        weight = Linearisation.data().weights(-1.0, -1.0 + h, [-1.0], level(-1.0 + h))
        # the step that is taken is the rounded one
        taken = (-1.0 + h) - (-1.0)
        assert float(weight) == pytest.approx(-level(-1.0 + h)[0] * math.expm1(-taken), rel=1e-14)


def test_noise_prediction_of_order_one_is_ddim_too():
    """`x_t = (alpha_t/alpha_s) x_s - sigma_t (e^h - 1) eps`, with `eps` read off the residual: `R = D - x/alpha = -k eps`."""
    for h in (1e-8, 1e-3, 0.5, 7.0):
        end = -1.0 + h
        weight = Linearisation.noise().weights(-1.0, end, [-1.0], level(end))
        k, (_, sigma) = math.exp(1.0), level(end)
        assert float(weight) * k == pytest.approx(sigma * math.expm1(end - (-1.0)), rel=1e-13)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("corrector", [False, True])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_no_variance_is_data_prediction_whatever_the_power(process, corrector, power):
    times = uniform_log_snr(process, 6, start=0.98, end=0.0)
    plain = Exponential(Linearisation.data(), 2, corrector).compile(process, times).dense()
    split = Exponential(Linearisation.isotropic(0.0, power), 2, corrector).compile(process, times).dense()
    for a, b in zip(plain, split, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("corrector", [False, True])
def test_infinite_variance_is_noise_prediction_and_its_limit(process, corrector):
    """The distance of the tables falls like 1/l."""
    times = uniform_log_snr(process, 6, start=0.9, end=0.02)
    plain = Exponential(Linearisation.noise(), 2, corrector).compile(process, times).dense()
    distances = []
    for variance in (1e8, 1e9):
        split = Exponential(Linearisation.isotropic(variance, 0.5), 2, corrector).compile(process, times).dense()
        distances.append(max(float((a - b).abs().max()) for a, b in zip(plain, split, strict=True)))
    assert distances[1] < 1e-3
    assert distances[0] / distances[1] == pytest.approx(10, rel=0.01)


def test_a_law_of_one_variance_is_the_isotropic_split():
    law = Gaussian(torch.zeros(3, dtype=torch.float64), SpectralCovariance.isotropic(3, 0.7))
    process = VariancePreserving()
    times = uniform_log_snr(process, 5)
    ours = Exponential(Linearisation.gaussian(law), 2, True).compile(process, times)
    plain = Exponential(Linearisation.isotropic(0.7), 2, True).compile(process, times)
    assert all(torch.equal(a, b) for a, b in zip(ours.dense(), plain.dense(), strict=True))


@pytest.mark.parametrize("process", [FlowMatching(), Trigonometric()], ids=lambda p: p.kind)
def test_one_step_all_the_way_is_the_belief_under_data_prediction(process):
    """From pure noise to no noise in one evaluation: the answer, and nothing of the start."""
    program = Exponential(Linearisation.data(), 1).compile(process, (1.0, 0.0))
    A, B, _ = program.dense()
    assert float(A[1, 0, 0]) == 0
    assert float(B[1, 0, 0]) == 1


def test_the_gain_is_the_laws_own_belief(full_gaussian):
    """`m + gamma (x - alpha m)` is the exact denoiser, up to both ends."""
    x = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    process = FlowMatching()
    split = Linearisation.gaussian(full_gaussian)
    for t in (0.0, 1e-4, 0.5, 1.0):
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        away = x.reshape(3, 12) - alpha * full_gaussian.mean
        explained = full_gaussian.mean + full_gaussian.covariance.basis.scale(split.gain(alpha, sigma), away)
        torch.testing.assert_close(explained.reshape(x.shape), full_gaussian.denoiser(process).denoise(x, t), rtol=1e-12, atol=1e-12)


def test_splits_that_cannot_be_are_refused():
    two = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ArgumentError, match="power"):
        Linearisation(two, 1.5)
    with pytest.raises(ArgumentError, match="power"):
        Linearisation(two, math.nan)
    with pytest.raises(ArgumentError, match="variance"):
        Linearisation(-two)
    with pytest.raises(ArgumentError, match="variance"):
        Linearisation(torch.tensor([math.nan]))
    with pytest.raises(ArgumentError, match="variance"):
        Linearisation(torch.ones(()))


def test_steps_that_cannot_be_are_refused():
    with pytest.raises(ArgumentError, match="nodes"):
        Linearisation.data().weights(-1.0, math.inf, [-2.0, -1.0], (1.0, 0.0))
    with pytest.raises(ArgumentError, match="nodes"):
        Linearisation.data().weights(-1.0, 0.0, [-math.inf, -1.0], level(0.0))
    with pytest.raises(ArgumentError, match="power"):
        Linearisation.isotropic(1.0, 0.0).weights(-1.0, math.inf, [-1.0], (1.0, 0.0))
    with pytest.raises(ArgumentError, match="signal"):
        Linearisation.noise().gain(0.0, 1.0)
    with pytest.raises(ArgumentError, match="signal"):
        Exponential(Linearisation.noise(), 1).compile(FlowMatching(), (1.0, 0.5))


def test_solvers_that_cannot_be_are_refused():
    with pytest.raises(ArgumentError, match="steps"):
        Exponential(steps=0)
    with pytest.raises(ArgumentError, match="steps"):
        Exponential(steps=7)
    with pytest.raises(ArgumentError, match="three times"):
        Exponential(teleport=True).compile(EDM(), (1.0, 0.0))
    for times in ((1.0,), (0.0, 1.0), (1.0, 0.5, 0.5), (1.2, 0.0)):
        with pytest.raises(ArgumentError, match="times"):
            Exponential().compile(EDM(), times)


def test_solvers_state_their_claims():
    solver = Exponential(Linearisation.data(), 3, True)
    assert (solver.name, solver.order, solver.deterministic) == ("exponential-3c", 4, True)
    assert Exponential(label="mine").name == "mine"
