"""What may be chosen: exact numbers of evaluations, the library's schedules and tables, split seeds, a ranking that holds on others."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.noise import FlowMatching, VariancePreserving
from sfumato.sample import PRESETS, karras, reference, reference_times, run, uniform_log_snr, uniform_time
from sfumato.seeds import noise
from sfumato.tune import Recipe
from sfumato.tune.candidates import FITS, SCHEDULES, Calibration, Grid, Ground, Paths, Proposals, best, fitted, grids, shortlist, unfitted

PROCESS = VariancePreserving()
MIXTURE = GaussianMixture(
    torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64),
    torch.tensor([[1.5, 0.0], [-1.0, 1.2], [-0.6, -1.4]], dtype=torch.float64),
    [SpectralCovariance.isotropic(2, v) for v in (0.05, 0.1, 0.07)],
)
DENOISER = MIXTURE.denoiser(PROCESS)
GROUND = Ground(PROCESS, MIXTURE.gaussian(), MIXTURE)


def paths(n: int, seed: int) -> Paths:
    draws = noise(seed, n, (2,), dtype=torch.float64)
    start = PROCESS.prior_sample(draws.draw(0))
    return Paths(reference(DENOISER.denoise, start, PROCESS, GROUND.law, reference_times(PROCESS, 60)), frozenset(draws.keys))


@pytest.fixture(scope="module")
def judge():
    return paths(96, 1)


@pytest.fixture(scope="module")
def calibration():
    return Calibration(DENOISER, paths(160, 0), GROUND)


@pytest.mark.parametrize("process", [PROCESS, FlowMatching()], ids=lambda p: p.kind)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_spacing_makes_n_steps_from_its_start_over_its_last_ratio_to_no_noise(process, name):
    ground = Ground(process, GROUND.law)
    for grid in grids([name], ends=(0.1,), landings=(4.0,)):
        for n in (2, 7):
            times = SCHEDULES[name](ground, n, grid.start, grid.end)
            assert len(times) == n + 1
            assert times[-1] == 0
            assert all(a > b for a, b in pairwise(times))
            first = 1.0 if grid.start is None else float(process.time_of_ratio(4 * ground.scale))
            assert times[0] == pytest.approx(first, rel=1e-12)
            # two steps from an infinite ratio have no room for a start and an end
            if grid.end is not None and (n > 2 or process is PROCESS or grid.start is not None):
                assert float(process.ratio(times[-2])) == pytest.approx(0.1 * ground.scale, rel=1e-9)


def test_spacings_are_the_librarys_own():
    low = 0.1 * GROUND.scale
    assert SCHEDULES["log-snr"](GROUND, 6, None, 0.1) == pytest.approx(
        uniform_log_snr(PROCESS, 6, t_min=float(PROCESS.time_of_ratio(low))), rel=1e-9
    )
    assert SCHEDULES["edm"](GROUND, 6, None, 0.1) == pytest.approx(karras(PROCESS, 6, ratio_min=low), rel=1e-9)
    assert SCHEDULES["quadratic"](GROUND, 6, None, None) == uniform_time(6, power=2.0)


def test_aligned_times_cost_less_than_even_ones():
    """By the bound that they are made for; the control is the spacing that the optimiser starts from."""
    bound = {}
    for name in ("ays", "log-snr"):
        times = torch.tensor(SCHEDULES[name](GROUND, 6, None, 0.1)[:-1], dtype=torch.float64)
        bound[name] = GROUND.cost(PROCESS.ratio(times).tolist())
    assert bound["ays"] < 0.8 * bound["log-snr"]


def test_unfitted_programs_spend_exactly_n_and_the_others_have_a_reason():
    over = [Grid("quadratic"), Grid("log-snr", 0.1, 4.0)]
    for n in (4, 5):
        made = unfitted(GROUND, n, over=over)
        assert {p.evaluations for p in made} == {n}
        assert {(p.times[0], p.times[-1]) for p in made} == {(1.0, 0.0)}
        names = [p.name for p in made]
        assert len(set(names)) == len(names)
        # Heun's last step to no noise is Euler's, so it makes odd numbers
        assert ("heun · quadratic" in names) == (n == 5)
        assert ("heun · quadratic" in made.skipped) == (n == 4)
        assert all("evaluations" in reason for reason in made.skipped.values())
        assert set(made.skipped).isdisjoint(names)
    table = next(p for p in made if p.name == "dpm-solver++-2m · quadratic")
    assert table.to_dict()["rows"] == PRESETS["dpm-solver++-2m"].compile(PROCESS, uniform_time(5, power=2.0)).to_dict()["rows"]


def test_a_shortlist_finds_nearly_the_best_of_all_within_its_number(judge):
    found, skipped = shortlist(GROUND, 5, DENOISER.denoise, judge, 4.0 * GROUND.scale, 48)
    assert len(found) == 48
    assert any("48 programs" in reason for reason in skipped.values())
    every = unfitted(GROUND, 5, over=grids(["log-snr", "quadratic", "gits"], ends=(0.1,), landings=(4.0,)))
    assert found[0].error.value < 1.25 * best(every, DENOISER.denoise, judge)[0].error.value


def test_every_fit_spends_its_budget_and_learns_on_other_starts(calibration, judge):
    """Against the same kind of solver unfitted, from the same landing: a fit that learned nothing would be level with it."""
    made = fitted(calibration, 4, methods=[m for m in FITS if m != "bespoke"])
    assert {p.evaluations for p in made} == {4}
    assert set(made.skipped) == {"boundary conditions"}
    errors = {r.program.name.removeprefix("fitted · "): r.error.value for r in best(made, DENOISER.denoise, judge)}
    start = calibration.top / GROUND.scale
    plain = unfitted(GROUND, 4, over=grids(["log-snr"], ends=(0.1, 0.2, 0.4), landings=[start]))
    plain_errors = {r.program.name: r.error.value for r in best(plain, DENOISER.denoise, judge)}
    assert errors["least squares"] < 0.5 * min(plain_errors.values())
    same = min(v for name, v in plain_errors.items() if name.startswith("dpm-solver++-2m-teleported"))
    # measured: 0.69 and 0.81 of it; searched decisions include this very solver
    assert errors["distilled"] < 0.8 * same
    assert errors["search"] < same


def test_what_was_fitted_on_is_not_judged_on(calibration):
    made = fitted(calibration, 4, methods=["distilled"])
    with pytest.raises(ArgumentError, match="draws in both sets"):
        best(made, DENOISER.denoise, paths(16, 0))
    other = Paths(calibration.paths.trajectory, frozenset({(7, 0)}))
    assert len(best(made, DENOISER.denoise, other)) == 1


def test_a_recipe_holds_whatever_may_be_chosen(calibration, tmp_path):
    """Written, read and run again: the same samples, bit by bit."""
    made = fitted(calibration, 4, methods=["integration", "statistics", "search"]) + unfitted(GROUND, 4, over=[Grid("gits", None, 4.0)])
    programs = dict(enumerate(made, start=1))
    Recipe((2,), programs, 1, GROUND.law).save(tmp_path)
    read = Recipe.load(tmp_path)
    x = paths(16, 2).trajectory.states[0]
    for n, program in programs.items():
        assert torch.equal(run(read.program(n), DENOISER.denoise, x), run(program, DENOISER.denoise, x)), program.name


def test_a_program_that_breaks_is_ranked_last(judge):
    made = unfitted(GROUND, 4, over=[Grid("quadratic")])
    broken = best(Proposals(made.programs[:2]), lambda x, t: torch.full_like(x, math.nan), judge)
    assert {r.error.value for r in broken} == {math.inf}


def test_bad_input_is_refused(calibration):
    with pytest.raises(ArgumentError, match="spacings among"):
        unfitted(GROUND, 4, over=[Grid("even")])
    with pytest.raises(ArgumentError, match="at least 1 evaluation"):
        fitted(calibration, 0)
    with pytest.raises(ArgumentError, match="names of"):
        fitted(calibration, 4, methods=["cubes"])
    with pytest.raises(ArgumentError, match="at least 16 fine paths"):
        Calibration(DENOISER, paths(8, 0), GROUND)
    with pytest.raises(ArgumentError, match="chooses its own"):
        SCHEDULES["gits"](GROUND, 4, None, 0.1)
    with pytest.raises(ArgumentError, match="must be told"):
        SCHEDULES["edm"](GROUND, 4, None, None)
