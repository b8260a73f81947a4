r"""Searching for a solver: every step decides for itself, and the schedule of decisions evolves.

Training-free solvers of the flow are sequences of choices: where to step, which prediction to interpolate, from which state to start,
through how many past answers, how to weigh them, and whether to correct. A `Plan` writes the choices down and compiles to a program through
the one kernel of `sample.stepping`, so that DDIM, DPM-Solver++, DEIS, UniPC and the singlestep solvers are points of the space
(`known_plans`). Evolution mutates and crosses plans at a fixed number of evaluations; a small network that has learned to rank plans may
look at many offspring so that only the promising ones are measured. Source: Liu et al. 2024 (arXiv 2312.07243).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample import Program
from sfumato.sample.extrapolation import Extrapolation, Prediction, Rule
from sfumato.sample.stepping import StepTable
from sfumato.tune.plan_ranker import PlanRanker

Corrector = Literal["none", "reuse", "renew"]
"""No correction; with the answer at the predicted point, for nothing; or the same and one more evaluation at the corrected point."""

Score = Callable[[Program], float]
"""How bad a program is, e.g. its error on calibration starts; not finite counts as worst."""

_GAP = 1e-3


@dataclass(frozen=True)
class Decision:
    """What one step does.

    Arguments:
        order: how many past answers it interpolates, 1 to 4; as many as there are, if fewer.
        prediction, rule: what is interpolated, and how two answers are weighed, see `sample.extrapolation`.
        stretch: `c` in `1 + c h`, by which all beyond the newest answer counts more.
        start: how many states further back it starts: 0 is multistep, more makes singlestep solvers.
        corrector: see `Corrector`; the last step has none.
    """

    order: int = 2
    prediction: Prediction = "data"
    rule: Rule = "exact"
    stretch: float = 0.0
    start: int = 0
    corrector: Corrector = "none"

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 4 or not 0 <= self.start <= 2 or not math.isfinite(self.stretch):
            raise ArgumentError("order, start, stretch", (self.order, self.start, self.stretch), "1 to 4, 0 to 2, and a finite number")
        if self.corrector not in get_args(Corrector):
            raise ArgumentError("corrector", repr(self.corrector), f"one of {', '.join(get_args(Corrector))}")


@dataclass(frozen=True)
class _Stretched(Extrapolation):
    """Weights `w_1 + (1 + c h) (w_p - w_1)`, `w_1` those of the answer at the step's beginning alone."""

    stretch: float = 0.0

    def weights(self, base: float, end: float, nodes: Sequence[float], level: tuple[float, float]) -> torch.Tensor:
        full = super().weights(base, end, nodes, level)
        if self.stretch == 0 or len(nodes) < 2 or base not in nodes:
            return full
        factor = 1 + self.stretch * abs(end - base)
        out = factor * full
        out[list(nodes).index(base)] += (1 - factor) * super().weights(base, end, [base], level)[0]
        return out


@dataclass(frozen=True)
class Plan:
    """A solver with its schedule: half log-SNR at the nodes, a decision a step, and whether the first answer is taken to be 0.

    Raises:
        ArgumentError: nodes that do not rise by at least 0.001, or not one decision a step.
    """

    half_log_snr: tuple[float, ...]
    decisions: tuple[Decision, ...]
    free_first: bool = False
    name: str = "plan"

    def __post_init__(self) -> None:
        if len(self.half_log_snr) != len(self.decisions) + 1 or len(self.decisions) < 1 + self.free_first:
            given = (len(self.half_log_snr), len(self.decisions))
            raise ArgumentError("half_log_snr, decisions", given, "one decision a step, and one step more than free ones")
        if not all(b - a >= _GAP for a, b in pairwise(self.half_log_snr)):
            raise ArgumentError("half_log_snr", self.half_log_snr, f"finite numbers that rise by at least {_GAP}")

    @property
    def evaluations(self) -> int:
        """How often its program asks the denoiser."""
        active = self.decisions[1:-1] if self.free_first else self.decisions[:-1]
        return len(self.decisions) - self.free_first + sum(d.corrector == "renew" for d in active)

    def compile(self, process: ScalarProcess) -> Program:
        """The table."""
        times = tuple(process.time(torch.tensor(self.half_log_snr, dtype=torch.float64)).tolist())
        table, last = StepTable(process, times), len(self.decisions)
        bases, history = [(0, 0)], [table.node(0, 0)]
        for i, d in enumerate(self.decisions, start=1):
            if i == 1 and self.free_first:
                row = table.carry(Extrapolation.of("data"), 0, 0, 1)
                bases, history = [(row, 1)], [table.node(row, 1)]
                continue
            plain = Extrapolation.of(d.prediction, d.rule)
            split = _Stretched(plain.variance, plain.power, None, plain.rule, plain.halved, d.stretch)
            base, a = bases[max(0, len(bases) - 1 - d.start)]
            row, nodes = table.step(split, base, a, i, history[-d.order :]), history[-d.order :]
            if i == last:
                break
            reached = table.node(row, i)
            if d.corrector != "none":
                row = table.step(split, base, a, i, [*nodes, reached])
                reached = table.node(row, i) if d.corrector == "renew" else reached
            history.append(reached)
            bases.append((row, i))
        return table.program(self.name)


def known_plans(half_log_snr: Sequence[int | float]) -> list[Plan]:
    """The published solvers over given nodes, as plans of their decisions."""
    nodes = tuple(float(v) for v in half_log_snr)
    n = len(nodes) - 1

    def uniform(name: str, decision: Decision) -> Plan:
        return Plan(nodes, (decision,) * n, name=name)

    def unipc(order: int, rule: Rule) -> Plan:
        steps = tuple(Decision(min(order, n - i), rule=rule, corrector="reuse") for i in range(n))
        return Plan(nodes, steps, name=f"unipc-{order}-{'bh1' if rule == 'slope' else 'bh2'}")

    plans = [
        uniform("ddim", Decision(1)),
        uniform("dpm-solver++-2m", Decision(2, rule="midpoint")),
        uniform("dpm-solver++-3m", Decision(3, rule="midpoint")),
        uniform("deis-2", Decision(2, "noise")),
        uniform("deis-3", Decision(3, "noise")),
        unipc(2, "midpoint"),
        unipc(3, "midpoint"),
        unipc(3, "slope"),
    ]
    if n % 2 == 0:
        for prediction, name in (("data", "dpm-solver++-2s"), ("noise", "dpm-solver-2s")):
            pair = (Decision(1, prediction), Decision(2, prediction, "midpoint", start=1))  # type: ignore[arg-type]
            plans.append(Plan(nodes, pair * (n // 2), name=name))
    return plans


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
    seed: int = 0,
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
        seed: of all random choices.

    Raises:
        ArgumentError: too few evaluations or trials, or ends that do not rise.
    """
    low, high = half_log_snr
    if evaluations < 2 or trials < 40 or not low < high:
        raise ArgumentError(
            "evaluations, trials, half_log_snr", (evaluations, trials, half_log_snr), "at least 2, at least 40, rising ends"
        )
    evolution = _Evolution(score, process, (low, high), evaluations, np.random.default_rng(seed))
    even = tuple(np.linspace(low, high, evaluations + 1).tolist())
    for plan in known_plans(even):
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

    def __init__(self, score: Score, process: ScalarProcess, ends: tuple[float, float], evaluations: int, rng: np.random.Generator) -> None:
        self.score, self.process, self.ends, self.evaluations, self.rng = score, process, ends, evaluations, rng
        self.measured: list[tuple[Plan, float]] = []

    def measure(self, plan: Plan) -> None:
        value = self.score(plan.compile(self.process))
        self.measured.append((plan, value if math.isfinite(value) else math.inf))

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
        while (cost := Plan(_apart(self.ends, inner), tuple(steps), free).evaluations) != self.evaluations:
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
        return Plan(_apart(self.ends, inner), tuple(steps), free)


def _apart(ends: tuple[float, float], inner: Sequence[float]) -> tuple[float, ...]:
    """Sorted nodes between the ends, none nearer to the next than a hundredth of an even step."""
    low, high = ends
    gap = max(2 * _GAP, 0.01 * (high - low) / (len(inner) + 1))
    out, n = [low], len(inner)
    for i, v in enumerate(sorted(inner)):
        out.append(min(max(v, out[-1] + gap), high - gap * (n - i)))
    return (*out, high)


def plan_features(plan: Plan) -> list[list[float]]:
    """What a `PlanRanker` reads, one row a step: where it stands and what it decides."""
    rows = []
    for (a, b), d in zip(pairwise(plan.half_log_snr), plan.decisions, strict=True):
        kinds = [
            float(d.prediction == "noise"),
            *(float(d.rule == r) for r in get_args(Rule)),
            *(float(d.corrector == c) for c in get_args(Corrector)),
        ]
        rows.append([a, b, b - a, float(plan.free_first), float(d.order), d.stretch, float(d.start), *kinds])
    return rows
