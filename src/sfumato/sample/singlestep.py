r"""Singlestep exponential solvers: `order` evaluations a step, none of them reused (DPM-Solver-2 and -3 of Lu et al. 2022, arXiv
2206.00927, algorithms 1 and 2; DPM-Solver++ 2S and 3S of arXiv 2211.01095).

Between a step's ends, `h` apart in half log-SNR, stand nodes at `r1 h` and `r2 h`:

    2S:  u1 from {b};                       X_i from {b, u1}, by the midpoint rule or exactly ("taylor")
    3S:  u1 from {b};  u2 from {b, u1};     X_i from {b, u2} ("midpoint") or {b, u1, u2} ("taylor"), exactly

where "from" lists the answers whose polynomial is integrated. Steps with an infinite end have order 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.extrapolation import Extrapolation, Prediction
from sfumato.sample.program import Program
from sfumato.sample.schedules import custom
from sfumato.sample.solver import Solver
from sfumato.sample.stepping import StepTable


@dataclass(frozen=True)
class Singlestep(Solver):
    """DPM-Solver++ ("data") or DPM-Solver ("noise") with inner nodes, see the module.

    Arguments:
        stages: evaluations a step and order, 2 or 3.
        prediction: what is interpolated.
        form: "midpoint" or "taylor".
        ratios: where the inner nodes stand, `stages - 1` rising numbers in (0, 1); by default 1/2, or 1/3 and 2/3.
    """

    stages: int = 2
    prediction: Prediction = "data"
    form: Literal["midpoint", "taylor"] = "midpoint"
    ratios: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.stages not in (2, 3):
            raise ArgumentError("stages", self.stages, "2 or 3 evaluations a step")
        if self.form not in ("midpoint", "taylor"):
            raise ArgumentError("form", repr(self.form), "one of midpoint, taylor")
        if not self.ratios:
            object.__setattr__(self, "ratios", (1 / 2,) if self.stages == 2 else (1 / 3, 2 / 3))
        inside = all(a < b for a, b in zip((0.0, *self.ratios), (*self.ratios, 1.0), strict=True))
        if len(self.ratios) != self.stages - 1 or not inside:
            raise ArgumentError("ratios", self.ratios, f"{self.stages - 1} rising numbers in (0, 1)")

    @property
    def name(self) -> str:
        return f"dpm-solver{'++' if self.prediction == 'data' else ''}-{self.stages}s{'-taylor' if self.form == 'taylor' else ''}"

    @property
    def order(self) -> int:
        return self.stages

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times, ends = self._with_inner(process, custom(times))
        midpoint = self.stages == 2 and self.form == "midpoint"
        split = Extrapolation.of(self.prediction, "midpoint" if midpoint else "exact")
        table = StepTable(process, times)
        state = 0
        for b, end in pairwise(ends):
            nodes = [table.node(state, b)]
            for i in range(b + 1, end + 1):
                used = nodes[:1] + nodes[-1:] if i == end and len(nodes) == 3 and self.form == "midpoint" else nodes
                new = table.step(split, state, b, i, used)
                nodes.append(table.node(new, i))
            state = new
        return table.program(self.name)

    def _with_inner(self, process: ScalarProcess, times: tuple[float, ...]) -> tuple[tuple[float, ...], list[int]]:
        """The times with the inner nodes, and where in them the steps end."""
        lam = process.half_log_snr(torch.tensor(times, dtype=torch.float64)).tolist()
        out, ends = [times[0]], [0]
        for (low, high), t in zip(pairwise(lam), times[1:], strict=True):
            if math.isfinite(low) and math.isfinite(high):
                out += [float(process.time(low + r * (high - low))) for r in self.ratios]
            out.append(t)
            ends.append(len(out) - 1)
        return custom(out), ends
