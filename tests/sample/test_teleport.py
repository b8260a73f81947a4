from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import EDM, FlowMatching, Trigonometric, VariancePreserving
from sfumato.sample import (
    PRESETS,
    Ancestral,
    Exponential,
    Heun,
    Linearisation,
    Program,
    Row,
    Teleported,
    custom,
    forecast_skip,
    hybrid_sample,
    karras,
    reference,
    reference_times,
    run,
    teleport,
    uniform_log_snr,
)
from sfumato.sample.judges.skip import missed
from sfumato.seeds import noise

PROCESSES = [VariancePreserving(), EDM(), FlowMatching(), Trigonometric()]
DETERMINISTIC = [name for name, solver in PRESETS.items() if solver.deterministic]


def by_hand(program, law, denoise, x, landing):
    """The table walked row by row as its docstring says, with the law's states and answers down to the landing."""
    process, start = program.process, program.times[0]
    cut = max(j for j in program.evaluated if program.times[j] == landing)
    states, answers = [], []
    for i, (t, row) in enumerate(zip(program.times, program.rows, strict=True)):
        if i <= cut:
            states.append(law.flow(process, start, t)(x))
        else:
            states.append(sum(c * states[j] for j, c in row.states.items()) + sum(c * answers[j] for j, c in row.data.items()))
        answers.append(law.posterior_mean(states[i], process, t) if i < cut else denoise(states[i], t))
    return states[-1]


@pytest.mark.parametrize("process", [EDM(), FlowMatching()], ids=lambda p: p.kind)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_every_solver_walks_on_from_the_analytic_history(g4, process, name):
    """Against a walk of the untransformed table whose first states and answers are put in by hand."""
    law, denoise = g4.gaussian(), g4.denoiser(process).denoise
    times = custom([1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.1, 0.02])
    if not math.isfinite(float(process.half_log_snr(1.0))):
        times = custom([0.95, *times[1:]])
    program = PRESETS[name].compile(process, times)
    x = float(process.sigma(times[0])) * noise(1, 8, (2,), dtype=torch.float64).draw(0)
    moved = Teleported(PRESETS[name], law, skip=3).compile(process, times)
    expected = by_hand(program, law, denoise, x, times[3])
    torch.testing.assert_close(run(moved, denoise, x), expected, rtol=1e-10, atol=1e-11)
    assert moved.evaluations < program.evaluations


def test_it_lands_on_the_flow_and_saves_the_skipped_evaluations(full_gaussian):
    process = VariancePreserving()
    times = karras(process, 12)
    for name in ("ddim", "heun", "dpm-solver++-3m", "unipc-3-bh2", "deis-2"):
        whole, moved = (s.compile(process, times) for s in (PRESETS[name], Teleported(PRESETS[name], full_gaussian, skip=5)))
        saved = 10 if name == "heun" else 5
        assert whole.evaluations - moved.evaluations == saved
        seen = {}
        x = process.prior_sample(noise(0, 3, (3, 4), dtype=torch.float64).draw(0))
        run(moved, lambda y, t: seen.setdefault(t, y) * 0, x)  # noqa: B023
        torch.testing.assert_close(seen[times[5]], full_gaussian.flow(process, 1.0, times[5])(x))


@pytest.mark.parametrize("process", [EDM(), FlowMatching()], ids=lambda p: p.kind)
def test_a_cold_start_of_the_gaussian_integrator_is_its_own_teleport(thin_gaussian, process):
    """Two compilers, one table."""
    solver = Exponential(Linearisation.gaussian(thin_gaussian), 2)
    times = uniform_log_snr(process, 9, t_min=0.01)
    ours = Teleported(solver, thin_gaussian, skip=3, warm=False).compile(process, times)
    theirs = replace(solver, teleport=True).compile(process, (times[0], *times[3:]))
    assert ours.times == theirs.times
    for a, b in zip(ours.dense(), theirs.dense(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_what_the_law_explains_is_free(thin_gaussian):
    """With the law's own denoiser and the law's own integrator nothing is left to err, warm or cold."""
    process = VariancePreserving()
    x = process.prior_sample(noise(3, 16, (3, 4), dtype=torch.float64).draw(0))
    solver = Exponential(Linearisation.gaussian(thin_gaussian), 3)
    for warm in (True, False):
        program = Teleported(solver, thin_gaussian, ratio=2.0, warm=warm).compile(process, karras(process, 10))
        out = run(program, thin_gaussian.denoiser(process).denoise, x)
        torch.testing.assert_close(out, thin_gaussian.flow(process, 1.0, 0.0)(x), rtol=1e-9, atol=1e-10)


def test_the_landing_of_a_stochastic_program_is_the_exact_reverse_kernel(thin_gaussian):
    """Joint second moments of `(x_t, x_s)` are those of the noised law, and ancestral sampling in ever smaller steps tends to it."""
    spectrum = thin_gaussian.covariance.spectrum
    for process in PROCESSES:
        t, s = 1.0, 0.4
        program = Teleported(Ancestral(), thin_gaussian, skip=1).compile(process, (t, s, 0.1))
        (gain,), (spread,) = program.rows[1].states.values(), program.rows[1].noise.values()
        there, here = (process.alpha(u) ** 2 * spectrum + process.sigma(u) ** 2 for u in (t, s))
        phi = process.transition(s, t).phi
        torch.testing.assert_close(gain**2 * there + spread**2, here)
        torch.testing.assert_close(gain * there, phi * here)
    process, away = EDM(), []
    t, s = 0.05, 0.005
    landing = Teleported(Ancestral(), thin_gaussian, skip=1).compile(process, (t, s, 0.001)).rows[1]
    for n in (40, 80, 160):
        grid = torch.linspace(t, s, n + 1, dtype=torch.float64).tolist()
        mean, variance = torch.ones_like(spectrum), torch.zeros_like(spectrum)
        for row, u in zip(Ancestral().compile(process, grid).rows[1:], grid, strict=False):
            ((kept, answer, fresh),) = zip(*(part.values() for _, part in row.parts()), strict=True)
            step = kept + answer * spectrum / (spectrum + (80 * u) ** 2)
            mean, variance = step * mean, step**2 * variance + fresh**2
        torch.testing.assert_close(mean, landing.states[0], msg="by the tower property its mean is exact at any step")
        away.append(float((variance - landing.noise[1] ** 2).abs().max()))
    assert math.log2(away[0] / away[1]) == pytest.approx(1, abs=0.1)
    assert math.log2(away[1] / away[2]) == pytest.approx(1, abs=0.1)


def test_a_stochastic_program_keeps_its_law(thin_gaussian):
    """Sampled variances at the end of a teleported SDE solver in the Gaussian world, five standard errors wide."""
    process, n = EDM(), 1000
    program = Teleported(PRESETS["sde-dpm-solver++-2m"], thin_gaussian, skip=4).compile(process, karras(process, 30))
    draws = noise(5, n, (3, 4), dtype=torch.float64)
    out = run(program, thin_gaussian.denoiser(process).denoise, process.prior_sample(draws.draw(0)), draws)
    z = thin_gaussian.covariance.project(out.flatten(1) - thin_gaussian.mean)
    bound = 5 * thin_gaussian.covariance.eigenvalues * math.sqrt(2 / n)
    assert bool(
        ((z.square().mean(0) - thin_gaussian.covariance.eigenvalues).abs() < bound + 0.03 * thin_gaussian.covariance.eigenvalues).all()
    )


@pytest.mark.parametrize(("name", "ratio", "nodes"), [("dpm-solver++-3m", 4.0, 16), ("unipc-2-bh2", 2.0, 32)])
def test_a_warm_history_beats_a_cold_start(g4, name, ratio, nodes):
    process, law = EDM(), g4.gaussian()
    denoise = g4.denoiser(process).denoise
    x = process.prior_sample(noise(2, 256, (2,), dtype=torch.float64).draw(0))
    truth = reference(denoise, x, process, law, reference_times(process, 80)).end
    errors = []
    for warm in (True, False):
        program = Teleported(PRESETS[name], law, ratio=ratio, warm=warm).compile(process, karras(process, nodes, ratio_min=0.02))
        errors.append(float((run(program, denoise, x) - truth).square().mean()))
    assert errors[0] < 0.7 * errors[1]


def test_a_table_survives_the_round_trip(full_gaussian):
    program = Teleported(PRESETS["unipc-2-bh2"], full_gaussian, ratio=3.0).compile(EDM(), karras(EDM(), 10))
    again = Program.from_dict(program.to_dict(), full_gaussian)
    for a, b in zip(program.dense(), again.dense(), strict=True):
        assert torch.equal(a, b)


def test_bad_input_is_named(g4, full_gaussian):
    process, law = EDM(), g4.gaussian()
    times = karras(process, 8)
    for arguments in ({}, {"skip": 2, "ratio": 3.0}, {"skip": 0}, {"ratio": -1.0}):
        with pytest.raises(ArgumentError, match=r"skip|ratio"):
            Teleported(Heun(), law, **arguments)
    with pytest.raises(ArgumentError, match="skip"):
        Teleported(Heun(), law, skip=8).compile(process, times)
    program = Heun().compile(process, times)
    with pytest.raises(ArgumentError, match="landing") as told:
        teleport(program, law, 0.123)
    # the times to choose from, in the order in which they are met
    assert str(sorted({program.times[j] for j in program.evaluated} - {program.times[0]}, reverse=True)) in str(told.value)
    with pytest.raises(ArgumentError, match="another law"):
        teleport(Exponential(Linearisation.gaussian(full_gaussian)).compile(process, times), law, times[2])
    rows = (Row(), Row({0: torch.ones(1, dtype=torch.float64)}, {0: torch.ones(1, dtype=torch.float64)}), *program.rows[2:])
    with pytest.raises(ArgumentError, match="consistent"):
        teleport(replace(program, rows=rows), law, times[2])
    one = torch.ones(1, dtype=torch.float64)
    late = Program("late", process, (1.0, 0.5, 0.2), (Row(), Row({}, {0: one}, {1: one}), Row({}, {1: one}, {1: one})))
    with pytest.raises(ArgumentError, match="noise of skipped"):
        teleport(late, law, 0.5)


class Stretched(Denoiser):
    """The exact denoiser of a Gaussian whose variances are `1 + e` times the law's."""

    def __init__(self, law, process, e):
        self.process = process
        self.inner = Gaussian(law.mean, law.covariance.map(lambda v: v * (1 + e)), law.event_shape).denoiser(process)

    def denoise(self, x, t, condition=None):
        return self.inner.denoise(x, t)


@pytest.mark.parametrize("process", [EDM(), VariancePreserving()], ids=lambda p: p.kind)
def test_the_forecast_is_the_first_order_of_the_error(full_gaussian, process):
    """The flow of a slightly wider Gaussian is known: predicted and true errors agree to the perturbation's second order."""
    x = process.prior_sample(noise(0, 64, (3, 4), dtype=torch.float64).draw(0))
    ratios = [float(process.ratio(1.0)) * 0.9**i for i in range(56)]
    gaps = []
    for e in (0.08, 0.04):
        model = Stretched(full_gaussian, process, e)
        gained, _ = missed(model, full_gaussian, x, ratios)
        predicted = full_gaussian.covariance.apply(torch.sqrt, gained[-1]).reshape(x.shape)
        t = float(process.time_of_ratio(ratios[-1]))
        own = model.inner.law.flow(process, 1.0, t)(x)
        true = full_gaussian.flow(process, t, 0.0)(own) - full_gaussian.flow(process, 1.0, 0.0)(x)
        gaps.append(float((predicted - true).norm() / true.norm()))
    assert gaps[1] < 0.03
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.25)


def test_the_forecast_on_a_mixture_and_without_the_gain(g4):
    """Against the measured error of teleporting with an accurate solver; carrying deviations along unchanged is far off."""
    process, law = EDM(), g4.gaussian()
    model = g4.denoiser(process)
    found = forecast_skip(model, law, 0.02, batch=256)
    assert found.within
    assert found.at(found.ratio) <= 0.02 < found.predicted[found.ratios.index(found.ratio) + 1]
    x = process.prior_sample(noise(0, 256, (2,), dtype=torch.float64).draw(0))
    truth = reference(model.denoise, x, process, law, reference_times(process, 80)).end
    for ratio in (6.0, 3.0):
        t = float(process.time_of_ratio(ratio))
        landed = law.flow(process, 1.0, t)(x)
        times = (t, *(u for u in reference_times(process, 80) if u < t))
        out = reference(model.denoise, landed, process, law, times).end
        measured = float((out - truth).square().sum() / truth.square().sum()) ** 0.5
        assert measured / 2 < found.at(ratio) < 2 * measured
        nearest = min(range(39), key=lambda i: abs(math.log(found.ratios[i] / ratio)))
        assert found.ungained[nearest] > 2 * measured


def test_the_law_itself_may_be_skipped_at_no_error(full_gaussian):
    found = forecast_skip(full_gaussian.denoiser(EDM()), full_gaussian, 1e-6)
    assert max(found.predicted) < 1e-12
    assert found.ratio == found.ratios[-1]
    assert found.evaluations == 40


def test_hybrid_samples_are_the_solvers_own_up_to_the_forecast(g4):
    process, law = EDM(), g4.gaussian()
    model = g4.denoiser(process)
    found = forecast_skip(model, law, 0.05)
    times = karras(process, 24, ratio_min=0.01)
    got = hybrid_sample(model, PRESETS["unipc-2-bh2"], found, times, 64, seed=4)
    x = process.prior_sample(noise(4, 64, (2,)).draw(0))
    plain = run(PRESETS["unipc-2-bh2"].compile(process, times), model.denoise, x)
    away = float((got.samples - plain).square().sum() / plain.square().sum()) ** 0.5
    assert away < 2 * got.predicted <= 0.1
    assert got.evaluations + got.saved == 24
    assert got.saved > 6
    assert got.ratio >= found.ratio


def test_a_forecast_says_when_nothing_is_within(g4):
    model = g4.denoiser(EDM())
    found = forecast_skip(model, g4.gaussian(), 1e-9)
    assert not found.within
    with pytest.raises(ArgumentError, match="forecast"):
        hybrid_sample(model, Heun(), found, karras(EDM(), 8), 4)
    with pytest.raises(ArgumentError, match="tolerance"):
        forecast_skip(model, g4.gaussian(), 2.0)
    with pytest.raises(ArgumentError, match="ratios"):
        forecast_skip(model, g4.gaussian(), ratios=[1.0, 2.0, 3.0])
    with pytest.raises(ArgumentError, match="level"):
        found.at(1e-3)


def test_a_law_without_variance_in_some_direction_carries_too():
    law = Gaussian(torch.ones(3, dtype=torch.float64), SpectralCovariance.diagonal(torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)))
    process = VariancePreserving()
    x = process.prior_sample(noise(0, 4, (3,), dtype=torch.float64).draw(0))
    program = Teleported(Exponential(Linearisation.gaussian(law)), law, ratio=1.0).compile(process, karras(process, 12))
    out = run(program, law.denoiser(process).denoise, x)
    torch.testing.assert_close(out, law.flow(process, 1.0, 0.0)(x), rtol=1e-9, atol=1e-9)
    assert bool((out[:, 1] - 1).abs().max() < 1e-12)
