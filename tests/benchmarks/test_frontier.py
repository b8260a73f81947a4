"""The frontier's parts: budgets are kept, the law's error is exact, targets compare the right numbers."""

from __future__ import annotations

import pytest
from benchmarks.frontier import GRIDS, TARGETS, _published, _rows
from benchmarks.frontier_law import law_error, most_steps

from sfumato.atlas.solvers.worlds import g4
from sfumato.noise import BetaTable
from sfumato.sample import PRESETS, Exponential, Linearisation, ddim, uniform_log_snr
from sfumato.tune.candidates import Grid, Ground

GROUND = Ground(BetaTable.linear(), g4().gaussian(), g4())
FEW = (Grid("log-snr", 0.1), Grid("quadratic"))


def test_every_published_solver_spends_what_it_can_of_a_budget(monkeypatch):
    """At 5 evaluations Heun makes 5 of 3 steps; every solver that follows the flow is there, none above the budget, none far below it."""
    monkeypatch.setattr("benchmarks.frontier.GRIDS", FEW[1:])
    spent = {p.name.split(" · ")[0]: p.evaluations for p in _published(GROUND, 5)}
    assert set(spent) == {name for name, solver in PRESETS.items() if solver.deterministic}
    assert spent["heun"] == 5
    assert all(2 <= n <= 5 for n in spent.values())
    assert len(GRIDS) == len(set(map(str, GRIDS)))


def test_a_solver_that_draws_noise_takes_as_many_steps_as_the_budget_pays_for():
    for solver in (s for s in PRESETS.values() if not s.deterministic):
        programs = most_steps(solver, GROUND, FEW, 4)
        assert set(programs) == {str(grid) for grid in FEW}
        assert all(3 <= p.evaluations <= 4 for p in programs.values())


def test_the_laws_error_is_that_of_the_discretisation():
    """The prior's own 3e-4 for the integrator that is exact in the Gaussian world; half at twice the steps for a solver of order 1."""
    process = GROUND.process
    errors = []
    for n in (40, 80):
        times = uniform_log_snr(process, n, t_min=float(process.time_of_ratio(0.01)))
        errors.append(law_error(ddim().compile(process, times), GROUND))
        assert law_error(Exponential(Linearisation.gaussian(GROUND.law)).compile(process, times), GROUND) < 3e-4 < errors[-1]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2)


def test_targets_compare_what_was_chosen_first_and_can_be_missed():
    def told(*errors: float) -> dict[str, dict[str, object]]:
        return {str(i): {"error": e, "choice": f"{i} · log-snr"} for i, e in enumerate(errors)}

    budget = {"published": told(0.5, 0.1), "ours": told(0.4), "fitted": told(0.3, 0.01), "diffusers": told(0.9)}
    rows = _rows("world", {"self_error": 0.0} | {str(n): budget for n in TARGETS})
    ratios = [row for row in rows if row.passed is not None]
    assert [row.value for row in ratios] == pytest.approx([0.75, 0.75])
    assert all(row.passed for row in ratios)
    budget["fitted"] = told(0.36)
    assert not any(row.passed for row in _rows("world", {"self_error": 0.0, "5": budget}) if row.passed is not None)
