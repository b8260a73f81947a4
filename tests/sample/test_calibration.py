"""Calibration: seeds are kept apart, fine grids contain coarse ones, and fitted rows are least-squares solutions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.sample import Ancestral, Exponential, Heun, Linearisation, Program, ddim, run
from sfumato.sample.fits.calibration import Calibrated, Starts, subdivide, teach
from sfumato.sample.fits.least_squares import ridge_solve
from sfumato.sample.fits.row_fit import add, answer_at, bend, fit_rows, noise_at, steps_of
from sfumato.sample.program import Row

PROCESS = EDM(80.0)
TIMES = subdivide(PROCESS, (0.5, 0.02 / 80), 4)


@pytest.fixture(scope="module")
def starts(g4):
    return Starts.marginal(g4, PROCESS, 0.5, 64, 1)


def test_starts_remember_their_draws(g4):
    """The same seed gives other, later draws by number; the same draws give the same states."""
    one, other = Starts.marginal(g4, PROCESS, 0.5, 8, 1), Starts.prior(PROCESS, (2,), 8, 1)
    assert one.keys == other.keys == {(1, i) for i in range(8)}
    assert torch.equal(one.states, Starts.marginal(g4, PROCESS, 0.5, 8, 1).states)
    assert float(other.states.std()) > 40


def test_the_marginal_is_the_laws(g4):
    """Mean and variance of 4000 draws within four standard errors of the law's own."""
    x = Starts.marginal(g4, VariancePreserving(), 0.4, 4000, 3).states
    law = g4.gaussian().through(VariancePreserving(), 0.4)
    variance = law.covariance.dense().diagonal()
    assert bool(((x.mean(0) - law.mean).abs() < 4 * (variance / 4000).sqrt()).all())
    assert bool(((x.var(0) / variance - 1).abs() < 4 * (2 / 4000) ** 0.5).all())


def test_judging_on_the_calibration_draws_is_refused(g4, starts):
    table = Calibrated(ddim().compile(PROCESS, TIMES), (), starts.keys)
    denoise = g4.denoiser(PROCESS).denoise
    with pytest.raises(ArgumentError, match="not fitted on"):
        table.error(denoise, starts, starts.states)
    with pytest.raises(ArgumentError, match="not fitted on"):
        table.error(denoise, Starts.marginal(g4, PROCESS, 0.5, 1, 1), starts.states[:1])
    fresh = Starts.marginal(g4, PROCESS, 0.5, 64, 2)
    ends = run(table.program, denoise, fresh.states)
    assert table.error(denoise, fresh, ends) == 0
    with pytest.raises(ArgumentError, match="program's process"):
        table.error(denoise, Starts.marginal(g4, PROCESS, 0.6, 4, 2), ends[:4])


def test_subdivided_times_are_the_finer_grid_of_the_same_spacing():
    """Karras et al.'s spacing subdivided is that spacing with more steps; old times stay bit for bit."""
    fine = subdivide(PROCESS, TIMES, 3)
    assert fine[::3] == TIMES
    k = PROCESS.ratio(torch.tensor(fine, dtype=torch.float64)) ** (1 / 7)
    torch.testing.assert_close(k.diff(), k.diff().mean().expand(12), rtol=1e-10, atol=0)
    assert subdivide(PROCESS, TIMES, 1) == TIMES
    infinite = subdivide(FlowMatching(), (1.0, 0.5, 0.0), 2)
    assert infinite[:3] == (1.0, 0.75, 0.5)
    assert infinite[-1] == 0.0
    with pytest.raises(ArgumentError, match="parts"):
        subdivide(PROCESS, TIMES, 0)
    with pytest.raises(ArgumentError, match="fall"):
        subdivide(PROCESS, (0.5, 0.5), 2)


def test_a_teacher_is_the_solver_on_the_finer_grid(g4, starts):
    denoise = g4.denoiser(PROCESS).denoise
    path = teach(denoise, Heun(), starts, TIMES, 3)
    assert path.times == TIMES
    assert torch.equal(path.end, run(Heun().compile(PROCESS, subdivide(PROCESS, TIMES, 3)), denoise, starts.states))
    assert torch.equal(path.states[0], starts.states)
    with pytest.raises(ArgumentError, match="deterministic"):
        teach(denoise, Ancestral(1.0), starts, TIMES)
    with pytest.raises(ArgumentError, match="times"):
        teach(denoise, Heun(), starts, TIMES[1:])


def test_ridge_solve_is_least_squares():
    """Against torch's own solver, whatever the features' units; collinear features share; a strong ridge pulls to 0."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1e6, 1e-6], dtype=torch.float64)
    y = torch.randn(40, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(ridge_solve(x.T @ x, x.T @ y, 0.0), torch.linalg.lstsq(x, y).solution, rtol=1e-8, atol=0)
    twice = torch.stack([y, y], 1)
    torch.testing.assert_close(ridge_solve(twice.T @ twice, twice.T @ y, 0.0), torch.full((2,), 0.5, dtype=torch.float64))
    assert float(ridge_solve(x.T @ x, x.T @ y, 1e9).abs()[0]) < 1e-6
    absent = torch.stack([y, torch.zeros_like(y)], 1)
    torch.testing.assert_close(ridge_solve(absent.T @ absent, absent.T @ y, 0.0), torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_steps_end_at_the_last_row_of_their_time():
    heun = Heun().compile(PROCESS, TIMES)
    assert [(s.base, list(s.rows), s.end) for s in steps_of(heun, TIMES)][:2] == [(0, [1, 2], 2), (2, [3, 4], 4)]
    assert [s.base for s in steps_of(ddim().compile(PROCESS, TIMES), TIMES)] == [0, 1, 2, 3]


def test_fitted_rows_leave_nothing_that_their_directions_could_explain(g4, starts):
    """The normal equations: what is missing is orthogonal to every direction; and the table runs to the states of the fit."""
    denoise, program = g4.denoiser(PROCESS).denoise, ddim().compile(PROCESS, TIMES)
    target = teach(denoise, Heun(), starts, TIMES, 20)
    directions = {i: [noise_at(program, i - 1), answer_at(i - 1)] for i in range(1, 5)}
    fitted = fit_rows(program, denoise, starts, directions, lambda i, _: target.states[i], 0.0)
    end = run(fitted.program, denoise, starts.states)
    before = run(Program("head", PROCESS, TIMES[:4], fitted.program.rows[:4]), denoise, starts.states)
    missing = target.end - end
    answer = denoise(before, TIMES[3])
    for part in (answer, before - answer):
        cosine = (missing * part).sum() / (missing.norm() * part.norm())
        assert abs(float(cosine)) < 1e-9
    assert [len(c) for c in fitted.coefficients] == [2] * 4
    again = bend(program, directions, fitted.coefficients)
    assert all(torch.equal(a, b) for a, b in zip(again.dense(), fitted.program.dense(), strict=True))
    assert json.loads(json.dumps(fitted.program.to_dict())) == fitted.program.to_dict()


def test_the_fit_asks_once_a_node(g4, starts):
    asked = []

    def ask(x, t):
        asked.append(t)
        return g4.denoiser(PROCESS).denoise(x, t)

    program = Heun().compile(PROCESS, TIMES)
    fit_rows(program, ask, starts, {2: [answer_at(0)]}, lambda i, states: states[0])
    assert asked == [program.times[j] for j in program.evaluated]


def test_what_cannot_be_fitted_is_refused(g4, starts):
    denoise, program = g4.denoiser(PROCESS).denoise, ddim().compile(PROCESS, TIMES)
    spectral = Exponential(Linearisation.gaussian(g4.gaussian())).compile(PROCESS, TIMES)
    for wrong in (spectral, Ancestral(1.0).compile(PROCESS, TIMES)):
        with pytest.raises(ArgumentError, match="scalar deterministic"):
            fit_rows(wrong, denoise, starts, {}, lambda i, s: s[0])
    directions = {1: [answer_at(0)]}
    with pytest.raises(ArgumentError, match="ridge"):
        fit_rows(program, denoise, starts, directions, lambda i, s: s[0], -1.0)
    with pytest.raises(ArgumentError, match="goal"):
        fit_rows(program, denoise, starts, directions, lambda i, s: s[0] * float("nan"))
    few = Starts(PROCESS, 0.5, starts.states[:1], starts.keys)
    with pytest.raises(ArgumentError, match="unknowns"):
        fit_rows(program, denoise, few, {1: [answer_at(0)] * 2}, lambda i, s: s[0])
    with pytest.raises(ArgumentError, match="coefficients"):
        bend(program, directions, [(1.0, 2.0)])


def test_rows_add_and_cancel():
    total = add((2.0, answer_at(1)), (-2.0, answer_at(1)), (1.0, Row({0: torch.ones(1, dtype=torch.float64)})))
    assert not total.data
    assert float(total.states[0]) == 1


def test_collinear_features_share_the_shortest_solution():
    """A third feature that is the sum of two, a fourth that is absent: numpy's least squares over features of length 1."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((40, 2), (40,)))
    features = torch.cat([x, x.sum(1, keepdim=True), 0 * x[:, :1]], 1) * torch.tensor([1.0, 30.0, 0.01, 1.0], dtype=torch.float64)
    size = features[:, :3].norm(dim=0)
    shortest = np.linalg.lstsq((features[:, :3] / size).numpy(), y.numpy(), rcond=1e-10)[0]
    found = ridge_solve(features.T @ features, features.T @ y, 0.0)
    torch.testing.assert_close(found[:3] * size, torch.from_numpy(shortest), rtol=1e-10, atol=0)
    assert float(found[3]) == 0
