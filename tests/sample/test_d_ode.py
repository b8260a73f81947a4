"""D-ODE: one number an evaluation, in closed form, that transfers to starts it has not seen."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.sample import Heun, Singlestep, ddim, deis, dpm_solver, run, uniform_log_snr
from sfumato.sample.fits.calibration import Starts, subdivide, teach
from sfumato.sample.fits.distilled import changes, distil
from sfumato.sample.fits.row_fit import bend
from sfumato.sample.judges.consistency import probability_flow

PROCESS = EDM(80.0)
ENDS = (0.5, 0.02 / 80)


@pytest.fixture(scope="module")
def world(g4):
    fit, judge = (Starts.marginal(g4, PROCESS, ENDS[0], n, seed) for n, seed in ((64, 1), (256, 2)))
    return g4.denoiser(PROCESS), fit, judge, probability_flow(g4.denoiser(PROCESS), judge.states, *ENDS, 1e-10)


@pytest.mark.parametrize(
    ("solver", "options", "limit"),
    [
        (ddim(), {}, 0.25),
        (ddim(), {"prediction": "noise"}, 0.2),
        (Heun(), {}, 0.25),
        (Singlestep(2), {}, 0.25),
        (deis(2), {"prediction": "noise", "change": "directions"}, 0.55),
        (dpm_solver(2), {"change": "directions"}, 0.75),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_unseen_starts_end_closer(world, solver, options, limit):
    """Seven steps, error relative to the unfitted solver. Measured: 0.19, 0.15, 0.18, 0.20, 0.44 and 0.65, in the order above."""
    denoiser, fit, judge, truth = world
    times = subdivide(PROCESS, ENDS, 7)
    table = distil(denoiser.denoise, solver, fit, times, **options)
    plain = solver.compile(PROCESS, times)
    assert table.program.evaluations == plain.evaluations
    unfitted = float((run(plain, denoiser.denoise, judge.states) - truth).square().mean().sqrt())
    assert table.error(denoiser.denoise, judge, truth) < limit * unfitted


def test_numbers_of_scalars():
    """N - 1 for DDIM, N from the start; 2N - 1 for Heun's method, one less than its evaluations, as the paper counts them."""
    times = subdivide(PROCESS, ENDS, 5)
    assert sorted(changes(ddim().compile(PROCESS, times), times)) == [2, 3, 4, 5]
    assert sorted(changes(ddim().compile(PROCESS, times), times, "noise", from_start=True)) == [1, 2, 3, 4, 5]
    assert len(changes(Heun().compile(PROCESS, times), times)) == 9
    assert len(changes(Singlestep(3).compile(PROCESS, times), times)) == 14


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("process", [EDM(80.0), VariancePreserving()], ids=lambda p: p.kind)
def test_two_node_solvers_are_particular_scalars(prediction, process):
    """DPM-Solver++(2M) is D-DDIM at `lambda = c / w`, its own weight of the change over DDIM's weight; DEIS in noise form."""
    times = uniform_log_snr(process, 6, end=0.001)
    program, target = ddim().compile(process, times), dpm_solver(2, prediction, "taylor").compile(process, times)
    directions = changes(program, times, prediction)
    lambdas = [(float(target.rows[i].data[i - 2] / directions[i][0].data[i - 2]),) for i in sorted(directions)]
    assert all(v > 0 for (v,) in lambdas)
    bent = bend(program, directions, lambdas)
    for a, b in zip(bent.dense(), target.dense(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_the_scalar_is_the_projection_on_the_change(world):
    """`lambda = <q, missing> / <q, q>` of the second step, written out."""
    denoiser, fit, _, _ = world
    times = subdivide(PROCESS, ENDS, 4)
    teacher = teach(denoiser.denoise, Heun(), fit, times, 20)
    table = distil(denoiser.denoise, ddim(), fit, times, teacher=teacher, ridge=0.0)
    x, k = fit.states, [float(PROCESS.ratio(t)) for t in times]
    first = denoiser.denoise(x, times[0])
    x = x + (k[1] / k[0] - 1) * (x - first)
    second = denoiser.denoise(x, times[1])
    x = x + (k[2] / k[1] - 1) * (x - second)
    q = (1 - k[2] / k[1]) * (second - first)
    assert table.coefficients[0][0] == pytest.approx(float((q * (teacher.states[2] - x)).sum() / (q * q).sum()), rel=1e-9)


def test_disjoint_sets_agree(world, g4):
    denoiser, fit, judge, truth = world
    times = subdivide(PROCESS, ENDS, 5)
    teacher = [teach(denoiser.denoise, Heun(), s, times, 20) for s in (fit, Starts.marginal(g4, PROCESS, ENDS[0], 64, 3))]
    other = Starts.marginal(g4, PROCESS, ENDS[0], 64, 3)
    errors = [
        distil(denoiser.denoise, ddim(), s, times, teacher=t).error(denoiser.denoise, judge, truth)
        for s, t in zip((fit, other), teacher, strict=True)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


def test_shuffled_scalars_are_worse_than_none(world):
    """Negative control."""
    denoiser, fit, judge, truth = world
    times = subdivide(PROCESS, ENDS, 5)
    table, program = distil(denoiser.denoise, ddim(), fit, times), ddim().compile(PROCESS, times)
    shuffled = bend(program, changes(program, times), table.coefficients[::-1])
    errors = [float((run(p, denoiser.denoise, judge.states) - truth).square().mean().sqrt()) for p in (shuffled, program)]
    assert errors[0] > errors[1] > 3 * table.error(denoiser.denoise, judge, truth)


def test_a_start_without_signal_is_distilled_in_data_form(g4):
    process = FlowMatching()
    fit, judge = (Starts.prior(process, (2,), 64, seed) for seed in (1, 2))
    times, denoise = (1.0, 0.8, 0.6, 0.4, 0.2, 0.05), g4.denoiser(process).denoise
    truth = run(dpm_solver(2).compile(process, subdivide(process, times, 100)), denoise, judge.states)
    plain = float((run(ddim().compile(process, times), denoise, judge.states) - truth).square().mean().sqrt())
    assert distil(denoise, ddim(), fit, times).error(denoise, judge, truth) < 0.4 * plain
    with pytest.raises(ArgumentError, match="infinite"):
        distil(denoise, ddim(), fit, times, prediction="noise")


def test_bad_arguments_are_refused(world):
    denoiser, fit, judge, _ = world
    times = subdivide(PROCESS, ENDS, 4)
    with pytest.raises(ArgumentError, match="from_start"):
        distil(denoiser.denoise, ddim(), fit, times, from_start=True)
    for starts, at in ((judge, times), (fit, subdivide(PROCESS, ENDS, 3))):
        with pytest.raises(ArgumentError, match="teacher"):
            distil(denoiser.denoise, ddim(), fit, times, teacher=teach(denoiser.denoise, ddim(), starts, at, 2))


@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_the_direction_of_an_euler_step_is_its_answer(prediction):
    """DDIM goes along the last answer alone, so the change of directions is that of two answers."""
    times = subdivide(PROCESS, ENDS, 4)
    program = ddim().compile(PROCESS, times)
    of_steps, of_answers = (changes(program, times, prediction, change) for change in ("directions", "evaluations"))
    assert sorted(of_steps) == sorted(of_answers) == [2, 3, 4]
    for i, (row,) in of_steps.items():
        (other,) = of_answers[i]
        for part, whole in zip(row.parts(), other.parts(), strict=True):
            for j in part[1].keys() | whole[1].keys():
                zero = torch.zeros(1, dtype=torch.float64)
                assert torch.allclose(part[1].get(j, zero), whole[1].get(j, zero), rtol=1e-9, atol=1e-12)
