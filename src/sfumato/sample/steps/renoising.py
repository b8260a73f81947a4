r"""Steps that jump to clean data and noise it afresh: how students of consistency distillation are sampled in more than one step.

    X_i = alpha_i D(X_{i-1}, t_{i-1}) + sigma_i eps_i

For a consistency function `D` every step has the right law, if the first has; for a posterior mean it has not. Nothing of the state is
kept, so errors do not add up. Source: Song et al. 2023 (arXiv 2303.01469), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sfumato.noise import ScalarProcess
from sfumato.sample.program import Program, Row
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom


@dataclass(frozen=True)
class Renoising(Solver):
    """Multi-step consistency sampling, see the module. Row `i` uses draw `i`; one evaluation a step."""

    @property
    def name(self) -> str:
        return "renoising"

    @property
    def order(self) -> int:
        # the limit of fine times is white noise around the belief, not the flow
        return 0

    @property
    def deterministic(self) -> bool:
        return False

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        nodes = custom(times)
        rows = [Row()]
        for i, t in enumerate(nodes[1:], start=1):
            alpha, sigma = process.levels(t)
            rows.append(Row({}, {i - 1: alpha.reshape(1)}, {i: sigma.reshape(1)} if float(sigma) else {}))
        return Program(self.name, process, nodes, tuple(rows))
