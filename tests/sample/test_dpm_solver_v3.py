"""DPM-Solver-v3: its statistics against closed forms and the flow, its special cases against known solvers, its orders."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import FlowMatching, VariancePreserving
from sfumato.sample import Exponential, Linearisation, ddim, dpm_solver, run, uniform_log_snr, unipc
from sfumato.sample.fits.statistics import Statistics, coordinates, measure_statistics
from sfumato.sample.fits.statistics_solver import dpm_solver_v3, measured, run_shifted
from sfumato.sample.judges.consistency import probability_flow

PROCESS = VariancePreserving()
LEVELS = torch.linspace(-4, 2, 61, dtype=torch.float64)
ENDS = tuple(float(PROCESS.time(v)) for v in (-4.0, 2.0))


def grid(steps):
    return uniform_log_snr(PROCESS, steps, *ENDS)


def constant(jacobian, slope, space=None):
    ones = torch.ones(len(LEVELS), 1 if space is None else space.dim, dtype=torch.float64)
    return Statistics(LEVELS, jacobian * ones, slope * ones, 0 * ones, space)


@pytest.fixture(scope="module")
def world(g4):
    """The mixture's belief, its statistics, and 32 paths."""
    denoiser = g4.denoiser(PROCESS)
    statistics = measure_statistics(denoiser, g4.sample(512, 5), LEVELS, 5, coordinates((2,)))
    x = g4.through(PROCESS, ENDS[0]).sample(32, 0)
    return denoiser, statistics, x, probability_flow(denoiser, x, *ENDS)


def error(world, solver, steps, given=None):
    denoiser, statistics, x, truth = world
    statistics = statistics if given is None else given
    program = solver.compile(PROCESS, grid(steps))
    end = run_shifted(program, statistics, denoiser.denoise, x) if program.space else run(program, denoiser.denoise, x)
    return float((end - truth).abs().max())


@pytest.mark.parametrize("space", [None, coordinates((2,))], ids=["scalar", "coordinates"])
@pytest.mark.parametrize(
    ("jacobian", "slope", "known"),
    [(1.0, 0.0, Linearisation.data()), (0.0, -1.0, Linearisation.noise())],
    ids=["data", "noise"],
)
@pytest.mark.parametrize(("order", "corrector"), [(1, False), (2, False), (3, True)])
def test_two_tables_are_data_and_noise_prediction(jacobian, slope, known, order, corrector, space):
    """`l = 1, s = b = 0` and `l = 0, s = -1, b = 0`, coefficient by coefficient."""
    solver = dpm_solver_v3(constant(jacobian, slope, space), order, corrector=corrector)
    ours, theirs = (s.compile(PROCESS, grid(7)).dense() for s in (solver, Exponential(known, order, corrector)))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.expand_as(a), rtol=0, atol=1e-11)


def test_the_jacobian_is_the_posterior_covariance(world, g4):
    """`l = 1 - (alpha / sigma)^2 E Cov[x_0 | x]`, diagonal, on the very samples that were used; probes estimate the same."""
    _, statistics, _, _ = world
    rough = measure_statistics(g4.denoiser(PROCESS), g4.sample(512, 5), LEVELS[::20], 5, coordinates((2,)), probes=4)
    from sfumato.seeds import noise

    for i in (20, 40, 60):
        t = float(PROCESS.time(float(LEVELS[i])))
        x = PROCESS.sample(g4.sample(512, 5), t, noise(5, 512, (2,), dtype=torch.float64).draw(0))
        spread = g4.posterior_covariance(x, PROCESS, t).diagonal(dim1=1, dim2=2).mean(0)
        exact = 1 - float(PROCESS.ratio(t)) ** -2 * spread
        torch.testing.assert_close(statistics.jacobian[i], exact, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(rough.jacobian[i // 20], exact, rtol=0, atol=0.05)


def test_slope_and_drift_are_the_regression_of_the_residual_along_the_flow(world, g4):
    """Independent of the formula for `f1`: follow 512 paths of the flow for a moment, and regress what `f` does on `f`."""
    from sfumato.seeds import noise

    denoiser, statistics, _, _ = world
    split, i, d = measured(statistics), 35, 1e-3
    lam = float(LEVELS[i])
    times = [float(PROCESS.time(v)) for v in (lam, lam - d, lam + d)]
    x = PROCESS.sample(g4.sample(512, 5), times[0], noise(5, 512, (2,), dtype=torch.float64).draw(0))

    def residual(x, t):
        k = float(PROCESS.half_log_snr(t))
        return (1 - torch.from_numpy(split.curves[0](k))) * x / float(PROCESS.alpha(t)) - denoiser.denoise(x, t)

    f = residual(x, times[0])
    back, ahead = (residual(probability_flow(denoiser, x, times[0], t), t) for t in times[1:])
    rate = (ahead - back) / (2 * d)
    slope = ((f - f.mean(0)) * (rate - rate.mean(0))).mean(0) / f.var(0, correction=0)
    torch.testing.assert_close(statistics.slope[i], slope, rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(statistics.drift[i], rate.mean(0) - slope * f.mean(0), rtol=2e-3, atol=1e-4)


def test_a_gaussian_is_exact_in_one_step():
    """There `f` does not depend on the state (`Var f = 0`, `s = 0`) and its drift is `b`. DDIM misses by more than 1."""
    law = Gaussian(
        torch.tensor([0.5, -1.0], dtype=torch.float64), SpectralCovariance.diagonal(torch.tensor([2.0, 0.1], dtype=torch.float64))
    )
    x = law.through(PROCESS, ENDS[0]).sample(32, 0)
    exact = law.flow(PROCESS, *ENDS)(x)
    denoise, errors = law.denoiser(PROCESS).denoise, []
    for nodes in (25, 100):
        levels = torch.linspace(-4, 2, nodes, dtype=torch.float64)
        statistics = measure_statistics(law.denoiser(PROCESS), law.sample(8, 1), levels, 1, coordinates((2,)))
        k = torch.exp(-levels)[:, None]
        torch.testing.assert_close(statistics.jacobian, k**2 / (torch.tensor([2.0, 0.1], dtype=torch.float64) + k**2), rtol=1e-6, atol=1e-8)
        assert not bool(statistics.slope.any())
        solver = dpm_solver_v3(statistics, 1, corrector=False)
        end = run_shifted(solver.compile(PROCESS, grid(1)), statistics, denoise, x)
        errors.append(float((end - exact).abs().max()))
    assert errors[0] < 1e-4
    assert errors[1] < errors[0] / 500
    assert float((run(ddim().compile(PROCESS, grid(1)), denoise, x) - exact).abs().max()) > 1


@pytest.mark.parametrize(("order", "steps"), [(1, 60), (2, 60), (3, 80)])
def test_predictors_have_their_order(world, order, steps):
    """Measured: 0.98, 1.99 and 2.97."""
    solver = dpm_solver_v3(world[1], order, corrector=False)
    assert math.log2(error(world, solver, steps) / error(world, solver, 2 * steps)) == pytest.approx(order, abs=0.15 if order < 3 else 0.2)


def test_the_corrector_adds_an_order_and_pseudo_derivatives_cap_it(world):
    exact, pseudo = dpm_solver_v3(world[1], 2), dpm_solver_v3(world[1], 3, pseudo="corrector")
    assert math.log2(error(world, exact, 80) / error(world, exact, 160)) == pytest.approx(3, abs=0.2)
    assert math.log2(error(world, pseudo, 60) / error(world, pseudo, 120)) == pytest.approx(2, abs=0.2)


def test_few_steps_are_more_accurate_than_with_either_prediction(world):
    assert error(world, dpm_solver_v3(world[1], 1, corrector=False), 6) < 0.6 * error(world, ddim(), 6)
    ours = error(world, dpm_solver_v3(world[1], 2), 10)
    assert all(ours < error(world, solver, 10) for solver in (dpm_solver(2), unipc(2), unipc(3)))


def test_statistics_of_another_level_are_no_help(world):
    """Negative control: the curves turned upside down leave a consistent solver that is worse than the right one."""
    right = world[1]
    wrong = Statistics(LEVELS, right.jacobian.flip(0), right.slope.flip(0), right.drift.flip(0), right.space)
    assert error(world, dpm_solver_v3(wrong, 2), 10, wrong) > 3 * error(world, dpm_solver_v3(right, 2), 10)


def test_a_half_corrector_corrects_late_points_only(world):
    """Before the level a corrected row repeats the predicted one."""
    half = dpm_solver_v3(world[1], 2, correct_from=-1.0).compile(PROCESS, grid(6))
    whole, none = (dpm_solver_v3(world[1], 2, corrector=c).compile(PROCESS, grid(6)) for c in (True, False))
    states, data, _ = half.dense()
    torch.testing.assert_close(states[2], states[1], rtol=0, atol=1e-13)
    torch.testing.assert_close(data[2], data[1], rtol=0, atol=1e-13)
    assert half.evaluations == whole.evaluations == none.evaluations == 6
    assert float((half.dense()[1][10] - whole.dense()[1][10]).abs().max()) < 1e-12


def test_what_was_not_measured_is_refused(world, g4):
    _, statistics, x, _ = world
    with pytest.raises(ArgumentError, match="levels that were measured"):
        dpm_solver_v3(statistics).compile(PROCESS, uniform_log_snr(PROCESS, 4))
    with pytest.raises(ArgumentError, match="order"):
        dpm_solver_v3(statistics, 4)
    with pytest.raises(ArgumentError, match="rising"):
        Statistics(LEVELS.flip(0), statistics.jacobian, statistics.slope, statistics.drift, statistics.space)
    with pytest.raises(ArgumentError, match="jacobian"):
        Statistics(LEVELS, statistics.jacobian[:, :1], statistics.slope, statistics.drift, statistics.space)
    with pytest.raises(ArgumentError, match="samples"):
        measure_statistics(g4.denoiser(PROCESS), g4.sample(1, 0), LEVELS, 0)
    with pytest.raises(ArgumentError, match="these statistics"):
        run_shifted(ddim().compile(PROCESS, grid(3)), statistics, g4.denoiser(PROCESS).denoise, x)


@pytest.mark.parametrize("space", [None, coordinates((2,))], ids=["scalar", "coordinates"])
def test_a_gaussian_is_exact_from_any_level(space):
    """From behind the first measured level the shift into the coordinates is not 0, nor on the way out; wrong ones miss by 0.1 and more.
    The statistics are closed forms: `l = 1 / (1 + v exp(2 lambda))`, `f = -l m` whatever the state, and `b = -l' m`.
    """
    given = ([0.5, 0.5], [0.4, 0.4]) if space is None else ([0.5, -1.0], [2.0, 0.1])
    means, variances = (torch.tensor(v, dtype=torch.float64) for v in given)
    law = Gaussian(means, SpectralCovariance.diagonal(variances))
    times, modes = tuple(float(PROCESS.time(v)) for v in (-1.0, 0.5)), 1 if space is None else 2
    levels = torch.linspace(-4, 2, 200, dtype=torch.float64)
    grown = variances[:modes] * torch.exp(2 * levels)[:, None]
    jacobian = 1 / (1 + grown)
    statistics = Statistics(levels, jacobian, 0 * jacobian, 2 * grown * jacobian**2 * means[:modes], space)
    x = law.through(PROCESS, times[0]).sample(4, 0)
    program = dpm_solver_v3(statistics, 1, corrector=False).compile(PROCESS, times)
    end = run_shifted(program, statistics, law.denoiser(PROCESS).denoise, x)
    torch.testing.assert_close(end, law.flow(PROCESS, *times)(x), rtol=0, atol=1e-7)


def test_integrals_are_refused_where_their_exponentials_leave_the_range():
    """Over 6 in half log-SNR constant curves integrate to 6 times themselves; `S` and `L + S` stay below 700, of either sign."""
    for jacobian, slope in ((0.0, 116.0), (0.0, -116.0), (116.0, 0.0), (58.0, 58.0), (-58.0, -58.0), (-116.0, 116.0), (200.0, -100.0)):
        measured(constant(jacobian, slope))
    for jacobian, slope in ((0.0, 117.0), (0.0, -117.0), (117.0, 0.0), (59.0, 59.0), (-59.0, -59.0), (-117.0, 117.0), (-20.0, -100.0)):
        with pytest.raises(ArgumentError, match="slopes whose integral"):
            measured(constant(jacobian, slope))


@pytest.mark.parametrize("times", [(1.0, 0.5), (0.5, 0.0)])
def test_levels_without_signal_or_noise_were_not_measured(times):
    """Half log-SNR is infinite there, of either sign."""
    with pytest.raises(ArgumentError, match="levels that were measured"):
        dpm_solver_v3(constant(1.0, 0.0), 1, corrector=False).compile(FlowMatching(), times)
    split, levels = measured(constant(1.0, 0.0)), FlowMatching().levels(torch.tensor(times, dtype=torch.float64))
    for alpha, sigma in zip(*(v.tolist() for v in levels), strict=True):
        for part in (split.scale, split.gain):
            if alpha and sigma:
                part(alpha, sigma)
                continue
            with pytest.raises(ArgumentError, match="levels that were measured"):
                part(alpha, sigma)


def test_pseudo_derivatives_cap_the_order_of_what_takes_them():
    """A predictor by them has order 2 at most, an order 1 has none; the corrector adds one."""
    statistics = constant(0.5, 0.1)
    for pseudo, orders in (("none", [1, 2, 3]), ("corrector", [1, 2, 3]), ("predictor", [1, 2, 2]), ("both", [1, 2, 2])):
        assert [dpm_solver_v3(statistics, n, corrector=False, pseudo=pseudo).order for n in (1, 2, 3)] == orders
        assert [dpm_solver_v3(statistics, n, pseudo=pseudo).order for n in (1, 2, 3)] == [n + 1 for n in orders]
    assert dpm_solver_v3(statistics, 2).name == "dpm-solver-v3-2c"
    assert dpm_solver_v3(statistics, 3, corrector=False, pseudo="both").name == "dpm-solver-v3-3-pseudo-both"
