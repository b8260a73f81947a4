r"""A solver as a sequence of decisions: where to step, which prediction to interpolate, from which state, through how many answers.

Training-free solvers of the flow are such sequences, with how past answers are weighed and whether a step is corrected. A `Plan` writes
them down and compiles to a program through the one kernel of `sample.stepping`, so that DDIM, DPM-Solver++, DEIS, UniPC and the singlestep
solvers are points of the space (`known_plans`). Its last node may stand at infinite log-SNR: the step to no noise, which reads the newest
answer alone. Source: Liu et al. 2024 (arXiv 2312.07243).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample import Program
from sfumato.sample.compilers.extrapolation import Extrapolation, Prediction, Rule
from sfumato.sample.compilers.stepping import StepTable

Corrector = Literal["none", "reuse", "renew"]
"""No correction; with the answer at the predicted point, for nothing; or the same and one more evaluation at the corrected point."""

GAP = 1e-3
"""How far apart nodes must stand."""

_REACH = 45.0  # exp(-45) is below rounding: where a ranker sees an infinite end


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
        if self.stretch == 0 or len(nodes) < 2 or base not in nodes or math.isinf(end):
            return full
        factor = 1 + self.stretch * abs(end - base)
        out = factor * full
        out[list(nodes).index(base)] += (1 - factor) * super().weights(base, end, [base], level)[0]
        return out


@dataclass(frozen=True)
class Plan:
    """A solver with its schedule: half log-SNR at the nodes, a decision a step, and whether the first answer is taken to be 0.

    The first node is finite; the last may be infinite, i.e. no noise.

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
        if not (math.isfinite(self.half_log_snr[0]) and all(b - a >= GAP for a, b in pairwise(self.half_log_snr))):
            raise ArgumentError("half_log_snr", self.half_log_snr, f"numbers that rise by at least {GAP}")

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
            nodes = history[-d.order :] if split.interpolates_to(self.half_log_snr[i]) else history[-1:]
            row = table.step(split, base, a, i, nodes)
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


def plan_features(plan: Plan) -> list[list[float]]:
    """What a `PlanRanker` reads, one row a step: where it stands and what it decides."""
    rows = []
    for (a, end), d in zip(pairwise(plan.half_log_snr), plan.decisions, strict=True):
        b = min(end, _REACH)
        kinds = [
            float(d.prediction == "noise"),
            *(float(d.rule == r) for r in get_args(Rule)),
            *(float(d.corrector == c) for c in get_args(Corrector)),
        ]
        rows.append([a, b, b - a, float(plan.free_first), float(d.order), d.stretch, float(d.start), *kinds])
    return rows
