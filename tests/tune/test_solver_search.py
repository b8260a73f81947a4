"""The space of decisions holds the published solvers, plans keep their budget, and evolution finds better ones on other starts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy.stats import kendalltau

from sfumato.errors import ArgumentError, CheckpointError, DataError
from sfumato.noise import EDM, VariancePreserving
from sfumato.sample import PRESETS, consistency, measured_order, reference, run
from sfumato.tune.plan_ranker import PlanRanker
from sfumato.tune.solver_plan import Decision, Plan, known_plans
from sfumato.tune.solver_search import search_solver

PROCESS = VariancePreserving()
NODES = torch.linspace(-4, 2, 7, dtype=torch.float64).tolist()


def times_of(nodes) -> list[float]:
    return PROCESS.time(torch.tensor(nodes, dtype=torch.float64)).tolist()


@pytest.mark.parametrize("plan", known_plans(NODES), ids=lambda p: p.name)
def test_published_solvers_are_plans(plan, g4):
    """The same samples as the dedicated compiler's, to rounding."""
    nodes = NODES[::2] if plan.name.endswith("2s") else NODES
    twin = PRESETS[plan.name].compile(PROCESS, times_of(nodes))
    x = g4.through(PROCESS, times_of(NODES)[0]).sample(16, 0)
    belief = g4.denoiser(PROCESS).denoise
    assert float((run(plan.compile(PROCESS), belief, x) - run(twin, belief, x)).abs().max()) < 1e-12
    assert plan.evaluations == twin.evaluations == plan.compile(PROCESS).evaluations


def score_on(law, seed: int, n: int = 24):
    x = law.through(PROCESS, times_of(NODES)[0]).sample(n, seed)
    belief = law.denoiser(PROCESS).denoise
    times = tuple(times_of(torch.linspace(-4, 2, 41, dtype=torch.float64).tolist()))
    end = reference(belief, x, PROCESS, law.gaussian(), times).end

    def score(program) -> float:
        with torch.no_grad():
            return float((run(program, belief, x) - end).square().mean().sqrt())

    return score


@pytest.mark.parametrize("ranked", [False, True])
def test_search_keeps_its_budget_and_finds_better_plans(g4, ranked):
    """4 evaluations, 60 trials: better than every published solver on starts it did not see."""
    found = search_solver(score_on(g4, 0), PROCESS, (-4.0, 2.0), 4, 60, ranked=ranked)
    assert len(found.measured) == 60
    assert {p.evaluations for p, _ in found.measured} == {p.compile(PROCESS).evaluations for p, _ in found.measured} == {4}
    fresh = score_on(g4, 1)
    assert fresh(found.plan.compile(PROCESS)) < 0.8 * min(fresh(p.compile(PROCESS)) for p in known_plans([-4, -2.5, -1, 0.5, 2]))
    assert found.score == min(s for _, s in found.measured) < found.best_known[1]
    assert (found.ranker is not None) == ranked


def test_every_plan_of_a_search_is_consistent():
    """Any decisions leave constants constant: random plans have no data defect; and the same seed makes the same plans."""
    found = search_solver(lambda program: 1.0, PROCESS, (-4.0, 2.0), 4, 40)
    assert search_solver(lambda program: 1.0, PROCESS, (-4.0, 2.0), 4, 40).measured == found.measured
    defects = [consistency(p.compile(PROCESS)).data for p, _ in found.measured if not p.free_first]
    assert max(defects) < 1e-9


def test_an_interrupted_search_goes_on_to_the_same_end(tmp_path):
    """Interrupted after 25 of 50 scores, the last line cut short: 26 are measured anew, and the outcome is that of one run."""
    calls = []

    def score(program) -> float:
        if len(calls) == 25:
            raise KeyboardInterrupt
        calls.append(program)
        return sum(float(row.data.get(0, torch.zeros(1)).sum()) ** 2 for row in program.rows)

    journal = tmp_path / "scores"
    with pytest.raises(KeyboardInterrupt):
        search_solver(score, PROCESS, (-4.0, 2.0), 4, 50, journal=journal)
    journal.write_text(journal.read_text()[:-3])
    more = []

    def again(program) -> float:
        more.append(program)
        calls.clear()
        return score(program)

    resumed = search_solver(again, PROCESS, (-4.0, 2.0), 4, 50, journal=journal)
    assert len(more) == 26
    assert search_solver(again, PROCESS, (-4.0, 2.0), 4, 50).measured == resumed.measured
    with pytest.raises(CheckpointError, match="this very search"):
        search_solver(again, PROCESS, (-4.0, 2.0), 4, 50, seed=1, journal=journal)
    journal.write_text(journal.read_text() + "nonsense\n")
    with pytest.raises(CheckpointError, match="a checksum and a score"):
        search_solver(again, PROCESS, (-4.0, 2.0), 4, 50, journal=journal)


def test_plans_that_end_without_noise_are_searched_too(g4):
    """The last node before the end is free: better than every published solver whose last node stands at its bound."""
    x = g4.through(PROCESS, times_of(NODES)[0]).sample(24, 0)
    belief = g4.denoiser(PROCESS).denoise
    fine = (*times_of(torch.linspace(-4, 6, 61, dtype=torch.float64).tolist()), 0.0)
    end = reference(belief, x, PROCESS, g4.gaussian(), fine).end
    found = search_solver(lambda p: float((run(p, belief, x) - end).square().mean().sqrt()), PROCESS, (-4.0, 2.0), 4, 60, clean=True)
    assert {p.evaluations for p, _ in found.measured} == {4}
    assert {p.compile(PROCESS).times[-1] for p, _ in found.measured} == {0.0}
    assert found.score < 0.8 * found.best_known[1]


@pytest.mark.parametrize(("decision", "order"), [(Decision(2, stretch=0.3), 2), (Decision(2, "noise"), 2), (Decision(1), 1)])
def test_plans_converge(g4, decision, order):
    """A stretch of 1 + c h keeps the order, since it vanishes with the step; measured over 30 to 60 steps, within 0.2."""

    def program(n):
        return Plan(tuple(torch.linspace(-4, 2, n + 1, dtype=torch.float64).tolist()), (decision,) * n).compile(PROCESS)

    assert measured_order(program, g4, (30, 42, 60), n=8).slope == pytest.approx(order, abs=0.2)


def test_a_free_first_step_takes_the_first_answer_to_be_zero(g4):
    """From pure noise the answer 0 keeps x / sigma: the first row of the table is that ratio alone."""
    plan = Plan((-4.0, -2.0, 0.0), (Decision(), Decision(1)), free_first=True)
    program = plan.compile(EDM())
    assert program.evaluations == plan.evaluations == 1
    assert dict(program.rows[1].data) == {}
    assert float(program.rows[1].states[0]) == pytest.approx(math.exp(-2), rel=1e-12)


def test_the_ranker_learns_an_order_and_not_from_noise():
    """Scores that are a sum over steps: rank correlation above 0.7 on sequences it did not see, near 0 after shuffled scores."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(int(rng.integers(3, 6)), 3)).tolist() for _ in range(240)]
    scores = [sum(row[0] - row[2] for row in r) for r in rows]
    ranker = PlanRanker.fit(rows[:180], scores[:180])
    blind = PlanRanker.fit(rows[:180], rng.permutation(scores[:180]).tolist())
    assert kendalltau(ranker(rows[180:]).numpy(), scores[180:]).statistic > 0.7
    assert abs(kendalltau(blind(rows[180:]).numpy(), scores[180:]).statistic) < 0.3


def test_bad_input_is_refused():
    for bad in ({"order": 5}, {"start": 3}, {"stretch": math.nan}):
        with pytest.raises(ArgumentError, match="order, start, stretch"):
            Decision(**bad)
    with pytest.raises((ArgumentError, TypeCheckError), match="corrector"):
        Decision(corrector="always")
    with pytest.raises(ArgumentError, match="one decision a step"):
        Plan((0.0, 1.0), ())
    with pytest.raises(ArgumentError, match="rise by at least"):
        Plan((0.0, 0.0), (Decision(),))
    with pytest.raises(ArgumentError, match="at least 40"):
        search_solver(lambda p: 0.0, PROCESS, (-4.0, 2.0), 4, 10)
    with pytest.raises(DataError, match="at least 10 sequences"):
        PlanRanker.fit([[[0.0]]], [1.0])
