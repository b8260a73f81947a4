r"""Searching for a solver: every step decides for itself, and the schedule of decisions evolves.

Evolution mutates and crosses plans (`solver_plan.py`) at a fixed number of evaluations; a small network that has learned to rank plans may
look at many offspring so that only the promising ones are measured. Source: Liu et al. 2024 (arXiv 2312.07243).

All choices follow from the seed and the scores. A search with a journal writes every score down as it is measured; if it is interrupted
and started again with the same arguments, it reads the scores it knows and goes on from there, to the same end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample import Program
from sfumato.sample.compilers.extrapolation import Prediction, Rule
from sfumato.tune.plan_ranker import PlanRanker
from sfumato.tune.score_journal import ScoreJournal
from sfumato.tune.solver_plan import GAP, Corrector, Decision, Plan, known_plans, plan_features

__all__ = ["Plan", "Score", "SolverSearch", "known_plans", "plan_features", "search_solver"]

Score = Callable[[Program], float]
"""How bad a program is, e.g. its error on calibration starts; not finite counts as worst."""


@dataclass(frozen=True)
class SolverSearch:
    """What a search found: the best plan and its score, all that was measured in order, and the ranker, if one was trained."""

    plan: Plan
    score: float
    measured: tuple[tuple[Plan, float], ...]
    ranker: PlanRanker | None

    @property
    def best_known(self) -> tuple[Plan, float]:
        """The best of the published solvers it started from."""
        return min((pair for pair in self.measured if pair[0].name != "plan"), key=lambda pair: pair[1])


def search_solver(
    score: Score,
    process: ScalarProcess,
    half_log_snr: tuple[int | float, int | float],
    evaluations: int,
    trials: int,
    *,
    ranked: bool = False,
    clean: bool = False,
    seed: int = 0,
    journal: str | Path | None = None,
) -> SolverSearch:
    """Evolve a solver with a given number of evaluations.

    A quarter of the trials goes to published solvers and random plans, half to offspring of the best, the rest to small changes of the very
    best. Choose on calibration starts, and report on others.

    Arguments:
        score: of a program; called once a trial.
        half_log_snr: at the first and the last node.
        evaluations: how many each plan may take, at least 2.
        trials: how many plans are measured, at least 40.
        ranked: whether a ranker chooses which offspring are measured.
        clean: whether the last step leads to no noise; the last node before it then moves freely up to `half_log_snr[1]`.
        seed: of all random choices.
        journal: a file of scores that an interrupted search goes on from.

    Raises:
        ArgumentError: too few evaluations or trials, or ends that do not rise.
        CheckpointError: a journal of another search.
    """
    low, high = half_log_snr
    if evaluations < 2 or trials < 40 or not low < high:
        raise ArgumentError(
            "evaluations, trials, half_log_snr", (evaluations, trials, half_log_snr), "at least 2, at least 40, rising ends"
        )
    asked = {"process": process.to_dict(), "ends": [low, high], "evaluations": evaluations, "ranked": ranked, "clean": clean, "seed": seed}
    # where the phases of a search change depends on the number of trials
    known = ScoreJournal(Path(journal), {**asked, "trials": trials}) if journal is not None else None
    evolution = _Evolution(score, process, (low, high), evaluations, clean, np.random.default_rng(seed), known)
    even = np.linspace(low, high, evaluations + (not clean)).tolist()
    for plan in known_plans([*even, math.inf] if clean else even):
        evolution.measure(plan)
    while len(evolution.measured) < trials // 4:
        evolution.measure(evolution.random())
    ranker = None
    while len(evolution.measured) < trials:
        done = len(evolution.measured)
        late = done >= 3 * trials // 4
        if ranked and not late and (ranker is None or done % 20 == 0):
            ranker = PlanRanker.fit([plan_features(p) for p, _ in evolution.measured], [s for _, s in evolution.measured], seed)
        brood = [evolution.offspring(late) for _ in range(24 if ranked and not late else 1)]
        if ranker is not None and len(brood) > 1:
            order = ranker([plan_features(p) for p in brood]).argsort()
            brood = [brood[int(j)] for j in order[:4]]
        for plan in brood[: trials - done]:
            evolution.measure(plan)
    best, value = evolution.best(1)[0]
    return SolverSearch(best, value, tuple(evolution.measured), ranker)


class _Evolution:
    """Plans measured so far, and how new ones are made of them."""

    def __init__(
        self,
        score: Score,
        process: ScalarProcess,
        ends: tuple[float, float],
        evaluations: int,
        clean: bool,
        rng: np.random.Generator,
        journal: ScoreJournal | None,
    ) -> None:
        self.score, self.process, self.ends, self.evaluations, self.rng = score, process, ends, evaluations, rng
        self.clean, self.journal = clean, journal
        self.measured: list[tuple[Plan, float]] = []

    def measure(self, plan: Plan) -> None:
        def measured() -> float:
            value = self.score(plan.compile(self.process))
            return value if math.isfinite(value) else math.inf

        self.measured.append((plan, self.journal.value(repr(plan), measured) if self.journal else measured()))

    def best(self, n: int) -> list[tuple[Plan, float]]:
        return sorted(self.measured, key=lambda pair: pair[1])[:n]

    def random(self) -> Plan:
        inner = np.sort(self.rng.uniform(*self.ends, self.evaluations - 1)).tolist()
        return self._fitted(inner, [self._decision() for _ in range(self.evaluations)], bool(self.rng.random() < 0.3))

    def offspring(self, near: bool) -> Plan:
        """A changed copy of a good plan, `near` it or crossed with another."""
        parents = [p for p, _ in self.best(3 if near else 12)]
        one, two = (parents[int(j)] for j in self.rng.integers(len(parents), size=2))
        inner, steps, free = list(one.half_log_snr[1:-1]), list(one.decisions), one.free_first
        if not near and len(two.decisions) == len(steps) and self.rng.random() < 0.5:
            inner = list(two.half_log_snr[1:-1]) if self.rng.random() < 0.5 else inner
            steps = [b if self.rng.random() < 0.5 else a for a, b in zip(steps, two.decisions, strict=True)]
        width = 0.05 if near else 0.25
        inner = [v + width * float(self.rng.normal()) * float(self.rng.random() < 0.5) for v in inner]
        steps = [self._mutated(d, 0.08 if near else 0.25) for d in steps]
        return self._fitted(inner, steps, not free if not near and self.rng.random() < 0.1 else free)

    def _decision(self) -> Decision:
        pick = self.rng.choice
        kinds: tuple[Prediction, Rule, Corrector] = (
            pick(get_args(Prediction)).item(),
            pick(get_args(Rule)).item(),
            pick(get_args(Corrector), p=(0.45, 0.5, 0.05)).item(),
        )
        start = int(pick(2, p=(0.9, 0.1)))
        return Decision(int(pick([1, 2, 3, 4])), kinds[0], kinds[1], 0.2 * float(self.rng.normal()), start, kinds[2])

    def _mutated(self, d: Decision, chance: float) -> Decision:
        """Each field with its own chance."""
        fresh = self._decision()
        for field in ("order", "prediction", "rule", "start", "corrector"):
            if self.rng.random() < chance:
                d = replace(d, **{field: getattr(fresh, field)})
        return replace(d, stretch=d.stretch + 0.1 * float(self.rng.normal())) if self.rng.random() < 2 * chance else d

    def _fitted(self, inner: list[float], steps: list[Decision], free: bool) -> Plan:
        """The plan with steps taken out or put in until it has the right number of evaluations, its nodes sorted and apart."""
        while (cost := self._plan(inner, steps, free).evaluations) != self.evaluations:
            if cost > self.evaluations and len(steps) > 2:
                j = int(self.rng.integers(len(inner)))
                del inner[j], steps[j]
            elif cost > self.evaluations:
                steps = [replace(d, corrector="reuse") for d in steps]
            else:
                nodes = _apart(self.ends, inner)
                wide = max(range(len(nodes) - 1), key=lambda j: nodes[j + 1] - nodes[j])
                inner = [*nodes[1 : wide + 1], (nodes[wide] + nodes[wide + 1]) / 2, *nodes[wide + 1 : -1]]
                steps.insert(wide, replace(steps[wide], corrector="none"))
        return self._plan(inner, steps, free)

    def _plan(self, inner: Sequence[float], steps: Sequence[Decision], free: bool) -> Plan:
        nodes = _apart(self.ends, inner)
        return Plan((*nodes[:-1], math.inf) if self.clean else nodes, tuple(steps), free)


def _apart(ends: tuple[float, float], inner: Sequence[float]) -> tuple[float, ...]:
    """Sorted nodes between the ends, none nearer to the next than a hundredth of an even step."""
    low, high = ends
    gap = max(2 * GAP, 0.01 * (high - low) / (len(inner) + 1))
    out, n = [low], len(inner)
    for i, v in enumerate(sorted(inner)):
        out.append(min(max(v, out[-1] + gap), high - gap * (n - i)))
    return (*out, high)
