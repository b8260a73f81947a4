"""The variable of a polynomial, Runge-Kutta methods, adaptive steps and thresholding: closed forms, textbook recursions, refused input."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from jaxtyping import TypeCheckError

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.noise import EDM, Cosine, FlowMatching, VariancePreserving
from sfumato.sample import RungeKutta, adaptive_dpm_solver, ddim, deis, ipndm, run, uniform_log_snr, uniform_time
from sfumato.sample.compilers.variables import NoisePolynomial
from sfumato.sample.judges.consistency import probability_flow
from sfumato.sample.steps.thresholding import Thresholded

PROCESS = VariancePreserving()
LAW = GaussianMixture(
    None, torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64), [SpectralCovariance.isotropic(2, v) for v in (0.25, 0.4)]
)
TIMES = uniform_time(7, 0.9, 0.05)


def start(process=PROCESS, t=0.9, n=6):
    return LAW.through(process, t).sample(n, 3)


def noise_weights(program, i):
    """What a row's answers weigh as noises: `eps = (x / alpha - D) / k`."""
    return {j: -float(w) * float(program.process.ratio(program.times[j])) for j, w in program.rows[i].data.items()}


@pytest.mark.parametrize("variable", ["time", "ratio"])
def test_polynomials_of_the_variable_are_integrated_exactly(variable):
    """Noises that are a cubic of the variable: the weights give `alpha_i` times its integral over k, by adaptive quadrature."""
    from scipy.integrate import quad

    program = deis(4, variable=variable).compile(PROCESS, TIMES)

    def cubic(k):
        u = float(PROCESS.time_of_ratio(k)) if variable == "time" else k
        return 1 - 2 * u + 3 * u**2 - u**3

    k = [float(PROCESS.ratio(t)) for t in TIMES]
    exact = float(PROCESS.alpha(TIMES[5])) * quad(cubic, k[4], k[5], epsrel=1e-13)[0]
    assert math.isclose(sum(w * cubic(k[j]) for j, w in noise_weights(program, 5).items()), exact, rel_tol=1e-10)


def test_polynomials_in_the_ratio_are_adams_methods_of_uneven_steps():
    """Degree 1 by hand; on EDM, whose time is the ratio, the two variables are one method."""
    process = EDM(20.0)
    a, b = (deis(3, variable=v).compile(process, TIMES).dense() for v in ("time", "ratio"))
    assert max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True)) < 1e-12
    p, s, t = (float(PROCESS.ratio(u)) for u in TIMES[2:5])
    weights = noise_weights(deis(2, variable="ratio").compile(PROCESS, TIMES), 4)
    alpha = float(PROCESS.alpha(TIMES[4]))
    assert math.isclose(weights[3], alpha * ((t - p) ** 2 - (s - p) ** 2) / (2 * (s - p)), rel_tol=1e-12)
    assert math.isclose(weights[2], alpha * (t - s) ** 2 / (2 * (p - s)), rel_tol=1e-12)


def test_a_polynomial_in_time_depends_on_how_a_process_tells_time():
    """Negative control of the variable: the same levels under another clock give other weights, unless the variable is the ratio."""
    other = Cosine()
    same = other.time(PROCESS.half_log_snr(torch.tensor(TIMES, dtype=torch.float64))).tolist()
    gaps = {}
    for variable in ("time", "ratio", "log-ratio"):
        rows = [noise_weights(deis(3, variable=variable).compile(p, t), 5) for p, t in ((PROCESS, TIMES), (other, same))]
        scale = [float(p.alpha(t[5])) for p, t in ((PROCESS, TIMES), (other, same))]
        gaps[variable] = max(abs(rows[0][j] / scale[0] - rows[1][j] / scale[1]) for j in rows[0])
    assert gaps["time"] > 1e-2
    assert max(gaps["ratio"], gaps["log-ratio"]) < 1e-10


def test_ipndm_reads_its_constants_to_the_last_step():
    """Four answers at zero noise too, in the published constants."""
    program = ipndm(4).compile(PROCESS, (0.9, 0.7, 0.5, 0.3, 0.1, 0.0))
    weights = noise_weights(program, 5)
    drop = -float(PROCESS.ratio(0.1))
    assert [round(weights[j] / drop * 24, 9) for j in (4, 3, 2, 1)] == [55, -59, 37, -9]


def test_runge_kutta_is_the_textbook_recursion():
    """The classical method of order 4, written out over the ratio and over time."""
    denoise, x0 = LAW.denoiser(PROCESS), start()
    k = [float(PROCESS.ratio(t)) for t in TIMES]

    def over_ratio(y, k):
        t = float(PROCESS.time_of_ratio(k))
        return (y - denoise.denoise(float(PROCESS.alpha(t)) * y, t)) / k

    def over_time(x, t):
        return denoise.velocity(x, t)

    for over, slope, nodes, state, scale in (
        ("ratio", over_ratio, k, x0 / PROCESS.alpha(TIMES[0]), PROCESS.alpha(TIMES[-1])),
        ("time", over_time, TIMES, x0, 1.0),
    ):
        for a, b in pairwise(nodes):
            h = b - a
            s1 = slope(state, a)
            s2 = slope(state + h / 2 * s1, a + h / 2)
            s3 = slope(state + h / 2 * s2, a + h / 2)
            s4 = slope(state + h * s3, b)
            state = state + h / 6 * (s1 + 2 * s2 + 2 * s3 + s4)
        mine = run(RungeKutta("rk4", over).compile(PROCESS, TIMES), denoise.denoise, x0)
        assert float((mine - scale * state).abs().max()) < 1e-11


def test_euler_over_a_straight_line_is_ddim():
    """On x = (1 - t) x0 + t eps Euler's steps over time, over the ratio, and DDIM are one, from pure noise on."""
    process = FlowMatching()
    times = uniform_time(8, 1.0, 0.02)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, *others = (
        run(s.compile(process, times), LAW.denoiser(process).denoise, x)
        for s in (ddim(), RungeKutta("euler", "time"), RungeKutta("euler", "ratio"))
    )
    assert all(float((one - other).abs().max()) < 1e-12 for other in others)


def test_adaptive_steps_meet_their_tolerance():
    """The error falls with the tolerance, for either order and prediction; the count of evaluations is that of the calls."""
    times = uniform_log_snr(PROCESS, 1, 0.9, 0.01)
    belief, x = LAW.denoiser(PROCESS), start()
    exact = probability_flow(belief, x, *times)
    for order, prediction in ((2, "data"), (3, "noise"), (3, "data")):
        calls = []

        class Counted(Denoiser):
            process = PROCESS

            def denoise(self, x, t, condition=None):
                calls.append(t)  # noqa: B023
                return belief.denoise(x, t)

        walks = [adaptive_dpm_solver(Counted(), x, *times, order=order, prediction=prediction, rtol=r, atol=r / 10) for r in (0.05, 1e-3)]
        errors = [float((w.state - exact).abs().max()) for w in walks]
        assert errors[1] < errors[0] / 10 < 0.01
        assert sum(w.evaluations for w in walks) == len(calls)
        assert walks[1].times[0] == times[0]
        assert walks[1].times[-1] == times[1]
        assert all(w.evaluations == order * (len(w.times) - 1 + w.rejected) for w in walks)


def test_thresholding_leaves_small_answers_alone_and_scales_large_ones():
    class Fixed(Denoiser):
        process = PROCESS

        def denoise(self, x, t, condition=None):
            return x

    x = torch.stack([torch.linspace(-0.9, 0.9, 11), 4 * torch.linspace(-1, 1, 11)]).to(torch.float64)
    out = Thresholded(Fixed(), 0.9).denoise(x, 0.5)
    assert torch.equal(out[0], x[0])
    size = float(torch.quantile(x[1].abs(), 0.9))
    assert torch.allclose(out[1], x[1].clamp(-size, size) / size, atol=1e-15)
    assert float(out.abs().max()) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: adaptive_dpm_solver(LAW.denoiser(PROCESS), start(), 0.9, 0.0),
        lambda: adaptive_dpm_solver(LAW.denoiser(PROCESS), start(), 0.1, 0.9),
        lambda: adaptive_dpm_solver(LAW.denoiser(PROCESS), start(), 0.9, 0.1, order=4),
        lambda: adaptive_dpm_solver(LAW.denoiser(PROCESS), start(), 0.9, 0.1, rtol=-1.0),
        lambda: adaptive_dpm_solver(LAW.denoiser(PROCESS), start(), 0.9, 0.1, rtol=0.0, atol=1e-18),
        lambda: Thresholded(LAW.denoiser(PROCESS), 0.0),
        lambda: Thresholded(LAW.denoiser(PROCESS), 0.9, -1.0),
        lambda: NoisePolynomial.of("time").polynomials(torch.zeros(1), [0.0]),
        lambda: deis(2, variable="ratio").compile(FlowMatching(), (1.0, 0.5)),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises((ArgumentError, TypeCheckError)):
        make()
