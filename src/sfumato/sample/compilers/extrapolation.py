r"""How published solvers weigh two or three answers, where `Linearisation` integrates the polynomial through them.

Write a step's weights as `w_n = c_n W_n`: `W_n` is what node `n` would weigh alone, and `sum_n c_n = 1`. With the Lagrange polynomials
`l_n` of the nodes, the step from `lambda_b` to `lambda_i = lambda_b + h`, and `[n = b]` for the node at its beginning:

| nodes | rule | `c_n` | whose |
|---|---|---|---|
| 2 | exact | the mean of `l_n` under the step's kernel | DPM-Solver's "taylor" forms, DEIS, `Exponential` |
| 2 | midpoint | `l_n(lambda_b + h/2)` | DPM-Solver++ 2M and 2S, UniPC with `B = exp(h) - 1` (bh2), Heun |
| 2 | slope | `[n = b] + (l_n(lambda_b + h/2) - [n = b]) g/(exp(g) - 1)`, `g = -h` (data), `h` (noise) | UniPC with `B = h` (bh1) |
| 3 | exact | the mean of `l_n` under the step's kernel | DPM-Solver 3S, UniPC |
| any | adams | the constants of Adams-Bashforth on equal steps, e.g. 3/2 and -1/2, whatever the steps | PNDM's multistep form, iPNDM |
| 3 | halved | the same, with half of the parabola's curvature | DPM-Solver++ 3M as published and as widely copied |

All two-node rules are of order 2; so is `adams` on any smooth but uneven spacing, whatever its number of nodes (its order is theirs where
steps are equal in `k`). The halved parabola is of order 2 too, since a divided difference stands where the second derivative belongs; the
exact one is of order 3. Sources: Lu et al. 2022 (arXiv 2206.00927, 2211.01095), Zhao et al. 2023 (arXiv 2302.04867), Liu et al. 2022
(arXiv 2202.09778).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.sample.compilers.linearisation import Linearisation, lagrange

Prediction = Literal["data", "noise"]
"""What a published solver interpolates."""

Rule = Literal["exact", "midpoint", "slope", "adams"]
"""How nodes are weighed, see the module's table."""

ADAMS = {
    1: (1.0,),
    2: (-1 / 2, 3 / 2),
    3: (5 / 12, -16 / 12, 23 / 12),
    4: (-9 / 24, 37 / 24, -59 / 24, 55 / 24),
    5: (251 / 720, -1274 / 720, 2616 / 720, -2774 / 720, 1901 / 720),
}
"""Adams-Bashforth on equal steps, the newest node last."""


def lagrange_at(point: float, nodes: Sequence[float]) -> Tensor:
    """The Lagrange polynomials of the nodes at one point, `(nodes,)`."""
    return torch.stack(lagrange(torch.tensor(point, dtype=torch.float64), nodes))


@dataclass(frozen=True)
class Extrapolation(Linearisation):
    """Data or noise prediction (see `of`) under the module's rules.

    Arguments:
        rule: how two nodes are weighed.
        halved: whether three nodes are weighed as published.
    """

    rule: Rule = "exact"
    halved: bool = False

    @classmethod
    def of(cls, prediction: Prediction, rule: Rule = "exact", halved: bool = False) -> Extrapolation:
        """The rules over a prediction.

        Raises:
            ArgumentError: an unknown prediction or rule.
        """
        if prediction not in get_args(Prediction):
            raise ArgumentError("prediction", repr(prediction), f"one of {', '.join(get_args(Prediction))}")
        if rule not in get_args(Rule):
            raise ArgumentError("rule", repr(rule), f"one of {', '.join(get_args(Rule))}")
        return _published(prediction, rule, halved)

    def order(self, nodes: int) -> int:
        return min(nodes, 2) if self.halved or self.rule == "adams" else nodes

    def interpolates_to(self, end: float) -> bool:
        return self.rule == "adams" or super().interpolates_to(end)

    def weights(self, base: float, end: float, nodes: Sequence[float], level: tuple[float, float]) -> Tensor:
        pair = len(nodes) == 2 and self.rule != "exact"
        if not pair and not (len(nodes) == 3 and self.halved) and self.rule != "adams":
            return super().weights(base, end, nodes, level)
        return self.shares(base, end, nodes, level) * self.alone(base, end, nodes, level)

    def alone(self, base: float, end: float, nodes: Sequence[float], level: tuple[float, float]) -> Tensor:
        """`W_n`: what each node would weigh alone, `(nodes, modes)`."""
        lam = torch.tensor(nodes, dtype=torch.float64)[:, None]
        # a noise eps = (x / alpha - D) / k weighs its answer D by 1 / k
        return super().weights(base, end, nodes[:1], level) * (torch.exp(lam - lam[0]) if self._noise else torch.ones_like(lam))

    def shares(self, base: float, end: float, nodes: Sequence[float], level: tuple[float, float]) -> Tensor:
        """`c_n`, `(nodes, modes)`, which sum to 1.

        Raises:
            ArgumentError: more nodes than the rule has weights for.
        """
        if self.rule == "adams":
            if len(nodes) not in ADAMS:
                raise ArgumentError("nodes", len(nodes), f"1 to {len(ADAMS)} nodes under the rule adams")
            return torch.tensor(ADAMS[len(nodes)], dtype=torch.float64)[:, None]
        if len(nodes) == 2 and self.rule != "exact":
            return self._pair(base, end, nodes)[:, None]
        exact = super().weights(base, end, nodes, level) / self.alone(base, end, nodes, level)
        return _halved(exact, base, nodes) if len(nodes) == 3 and self.halved else exact

    @property
    def _noise(self) -> bool:
        return bool(torch.isinf(self.variance).all())

    def _pair(self, base: float, end: float, nodes: Sequence[float]) -> Tensor:
        middle = lagrange_at((base + end) / 2, nodes)
        if self.rule == "midpoint":
            return middle
        g = end - base if self._noise else base - end
        own = torch.tensor([float(node == base) for node in nodes], dtype=torch.float64)
        return own + (middle - own) * g / math.expm1(g)


@cache
def _published(prediction: Prediction, rule: Rule, halved: bool) -> Extrapolation:
    # solvers ask for the same one at every step; it keeps what its steps have in common
    split = Linearisation.data() if prediction == "data" else Linearisation.noise()
    return Extrapolation(split.variance, split.power, None, rule, halved)


def _halved(shares: Tensor, base: float, nodes: Sequence[float]) -> Tensor:
    """The shares of a parabola whose quadratic term about `base`, `f[0, 1, 2] u^2`, counts half."""
    u = torch.tensor([node - base for node in nodes], dtype=torch.float64)
    divided = torch.stack([1 / torch.prod(torch.cat([u[n] - u[:n], u[n] - u[n + 1 :]])) for n in range(len(nodes))])
    # three nodes reproduce u^2, so their shares give its mean
    return shares - 0.5 * divided[:, None] * (u[:, None] ** 2 * shares).sum(0)
