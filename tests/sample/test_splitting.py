"""Conjugate and splitting integrators for momentum processes: against DOP853, closed forms and the exact law of affine programs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, PushedDenoiser, SpectralCovariance, push
from sfumato.noise import Clock, ClockSDE, VariancePreserving, cld, linear, ouve, psld
from sfumato.sample import Bend, Conjugate, LinearDDIM, LinearEuler, ScoreKick, Splitting, StochasticSplitting, output_law, run_linear
from sfumato.seeds import noise

PSLD = psld()


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


END = 0.1


def grid(n, end=END):
    return [1.0 - (1.0 - end) * i / n for i in range(n)] + [end]


@pytest.fixture(scope="module")
def world(g4):
    """Eight states of G4 under PSLD, its denoiser, and where DOP853 takes them, to 1e-4."""
    belief, x = PushedDenoiser(g4, PSLD), push(g4, PSLD, 1.0).sample(8, 0)

    def rate(t, flat):
        return belief.velocity(torch.as_tensor(flat).reshape(x.shape), float(t)).flatten().numpy()

    end = solve_ivp(rate, (1.0, END), x.flatten().numpy(), "DOP853", rtol=1e-5, atol=1e-6).y[:, -1]
    return belief, x, torch.as_tensor(end).reshape(x.shape)


def error(world, solver, steps):
    belief, x, end = world
    return float((run_linear(solver.compile(PSLD, grid(steps)), belief.denoise, x) - end).square().mean().sqrt())


ORDERS = [(Conjugate(Bend(2.0)), 1), (Conjugate(prediction="data", nodes=2), 2), (Splitting("RSE"), 1)]


@pytest.mark.parametrize(("solver", "order"), ORDERS)
def test_orders_of_convergence(world, solver, order):
    """The slope between 24 and 48 steps."""
    assert math.log2(error(world, solver, 24) / error(world, solver, 48)) == pytest.approx(order, abs=0.35)


def test_verlet_with_the_late_score_beats_the_early_one_and_euler(world):
    late, early, euler = (error(world, s, n) for s, n in ((Splitting(), 16), (Splitting(late=False), 16), (LinearEuler(), 32)))
    assert late < early
    assert late < 0.5 * euler


def test_the_hybrid_that_holds_data_beats_verlet_at_few_steps(world):
    """And the one that holds the score does not: its exact growth and its held decay no longer cancel."""
    plain, data, score = (error(world, s, 8) for s in (Splitting(), Splitting(bend=Bend()), Splitting(bend=Bend(), prediction="score")))
    assert data < plain < score


def test_without_a_bend_the_step_is_the_exponential_integrator():
    """Holding data is generalised DDIM (a scalar fact that holds for matrices), holding the noise under one channel is, too.

    The frame of the first is made by Magnus steps, the others by constants.
    """
    point = torch.tensor([[0.7, -0.3]], dtype=torch.float64)
    for process, prediction in ((PSLD, "data"), (linear(VariancePreserving()), "cholesky noise"), (linear(VariancePreserving()), "noise")):
        x = torch.randn(process.state_shape(point), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        ours, ddim = (s.compile(process, (0.9, 0.7, 0.5)) for s in (Conjugate(prediction=prediction), LinearDDIM()))
        a, b = (run_linear(p, lambda z, t: torch.tanh(z[:, 0] if z.ndim == 3 else z), x) for p in (ours, ddim))
        assert torch.allclose(a, b, rtol=0, atol=2e-5)


def test_a_bend_of_the_identity_is_known_in_closed_form():
    """Constant coefficients and no score: `x_s = exp(F (s - t)) exp(-lam (s - t)) (1 + lam (s - t)) x_t`."""
    lam, t, s = 1.5, 0.8, 0.6
    far = Conjugate(Bend(lam, "identity"), prediction="score").compile(PSLD, (t, s)).rows[1]
    # the part of the row that is not the score's: the state's operator less what -S^{-1} x contributes
    plain = Conjugate(Bend(0.0), prediction="score").compile(PSLD, (t, s)).rows[1]
    drift = PSLD.coefs(t).phi.coef[0]
    exact = torch.linalg.matrix_exp(drift * (s - t)) * math.exp(-lam * (s - t)) * (1 + lam * (s - t))
    signal = PSLD.marginal(t).phi.coef[0]
    for row, expected in ((far, exact), (plain, torch.linalg.matrix_exp(drift * (s - t)))):
        # data = W S^{-1} A and state = linear - W S^{-1}; on x = A the score's parts cancel
        assert torch.allclose(row.states[0].coef[0] @ signal + row.data[0].coef[0], expected @ signal, rtol=0, atol=1e-10)


def test_the_splitting_step_is_the_formula_of_the_paper():
    """RSE by hand: x += h beta/2 (Gamma x - v/M + Gamma s_x), then v += h beta/2 (x' + nu v + M nu s_v), with one score."""
    gamma, nu, beta, h = 0.01, 4.01, 8.0, 0.05
    mass = 4 / (gamma - nu) ** 2
    law = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))
    belief = PushedDenoiser(law, PSLD)
    z = torch.tensor([[[0.4], [-0.2]]], dtype=torch.float64)
    s = belief.score(z, 0.9)
    x = z[:, 0] + h * beta / 2 * (gamma * z[:, 0] - z[:, 1] / mass + gamma * s[:, 0])
    v = z[:, 1] + h * beta / 2 * (x + nu * z[:, 1] + mass * nu * s[:, 1])
    out = run_linear(Splitting("RSE").compile(PSLD, (0.9, 0.9 - h)), belief.denoise, z)
    assert torch.allclose(out, torch.stack([x, v], 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [ScoreKick(), StochasticSplitting()])
def test_stochastic_schemes_have_weak_order_one(solver):
    """The exact variance of the position, without a sample."""
    law = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))
    target = push(law, PSLD, 0.02).covariances[0].dense()
    errors = [abs(float(output_law(solver.compile(PSLD, grid(n, 0.02)), law)[1][0, 0] / target[0, 0]) - 1) for n in (16, 32)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1.0, abs=0.2)


def test_the_exact_output_law_is_that_of_samples():
    """Two Euler-Maruyama steps and the denoising one: mean and covariance of 4000 samples within 4 standard errors."""
    law = Gaussian(torch.tensor([0.7], dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))
    program, n = LinearEuler(1.0).compile(PSLD, (1.0, 0.9, 0.8)).denoised(), 4000
    x = push(law, PSLD, 1.0).sample(n, 1)
    out = run_linear(program, PushedDenoiser(law, PSLD).denoise, x, noise(2, n, (2, 1), dtype=torch.float64)).flatten(1)
    mean, spread = output_law(program, law)
    scale = spread.diag().sqrt()
    assert bool(((out.mean(0) - mean).abs() < 4 * scale / n**0.5).all())
    assert bool(((out.T.cov() - spread).abs() < 4 * (2 / n) ** 0.5 * scale[:, None] * scale).all())


def test_evaluations_and_draws_are_as_promised():
    programs = [s.compile(PSLD, grid(3)) for s in (Splitting("RSE"), Splitting("NSE"), Splitting("RVV"), Splitting("NVV"))]
    assert [p.evaluations for p in programs] == [3, 6, 6, 9]
    reduced, naive = (StochasticSplitting("OABA", reduced=r).compile(PSLD, grid(3)) for r in (True, False))
    assert (reduced.evaluations, naive.evaluations, len(reduced.draws), len(ScoreKick().compile(PSLD, grid(3)).draws)) == (3, 9, 3, 6)
    assert np.all(np.diff(reduced.times) <= 0)
    # where the score comes first, that of the start serves the whole first step
    first = StochasticSplitting("ABO").compile(PSLD, grid(3))
    assert first.evaluations == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: StochasticSplitting("AB"), "letters"),
        (lambda: Splitting().compile(linear(VariancePreserving()), (0.9, 0.1)), "auxiliary"),
        (lambda: ScoreKick().compile(ouve(), (0.9, 0.1)), "condition"),
        (lambda: Bend(math.inf), "finite"),
        (lambda: Conjugate(nodes=5), "1 to 4"),
        (lambda: LinearEuler().compile(PSLD, (0.5, 0.7)), "fall strictly"),
        (lambda: LinearEuler(1.0).compile(cld(spread=0.0), (0.5, 0.0)).denoised(), "inverse"),
    ],
)
def test_what_means_nothing_is_refused(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        wrong()


@pytest.mark.parametrize("shared", [0.2, -0.2])
def test_noise_that_channels_share_is_refused(shared):
    """Of either sign: O gives every channel noise of its own."""
    drift = torch.tensor([[[0.0, 1.0], [-1.0, -2.0]]], dtype=torch.float64)
    eye, cross = torch.eye(2, dtype=torch.float64)[None], torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    StochasticSplitting().compile(ClockSDE(drift, eye, Clock(1.0, 1.0)), (0.9, 0.5))
    with pytest.raises(ArgumentError, match="correlated between channels"):
        StochasticSplitting().compile(ClockSDE(drift, eye + shared * cross, Clock(1.0, 1.0)), (0.9, 0.5))


def test_the_score_kick_is_exact_where_there_is_nothing_to_kick():
    """Data that have the prior's law keep it, and the score is `-P^{-1} x`: each step is `exp(-(F_0 + Q_0 P^{-1}) int beta)`, on a clock
    that speeds up, and leaves the covariance as it was.
    """
    mass, clock = 0.25, Clock(1.0, 5.0)
    drift = torch.tensor([[[0.0, 1 / mass], [-1.0, -1 / mass]]], dtype=torch.float64)
    spread, prior = torch.diag(f64([0.0, 2.0]))[None], torch.diag(f64([1.0, mass]))[None]
    start = torch.diag(f64([0.0, mass]))[None]
    process = ClockSDE(drift, spread, clock, start=start, prior=(prior[..., :0], prior))
    law = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 1.0))
    program = ScoreKick().compile(process, (0.9, 0.5, 0.4))

    class Still:
        def draw(self, j):
            return torch.zeros(2, 2, 1, dtype=torch.float64)

    columns = run_linear(program, PushedDenoiser(law, process).denoise, torch.eye(2, dtype=torch.float64)[..., None], Still())[..., 0]
    passed = 0.5 * (1.0 + 2.0 * (0.9 + 0.4))  # the integral of 1 + 4 t from 0.4 to 0.9
    exact = torch.linalg.matrix_exp(-(drift[0] + spread[0] @ prior[0].inverse()) * passed)
    torch.testing.assert_close(columns.T, exact, rtol=1e-10, atol=1e-12)
    mean, covariance = output_law(program, law)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-12)
    torch.testing.assert_close(covariance, prior[0], rtol=1e-10, atol=1e-12)
