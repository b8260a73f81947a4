r"""Steps that keep a share of the noise and draw the rest anew: the one kernel behind the stochastic solvers.

Every reverse SDE `dx = (F x - (1 + tau^2)/2 g^2 score) dt + tau g dw` has the marginals of the probability flow, whatever `tau(t) >= 0`.
Over a step from level `b` to level `i`, `h` apart in half log-SNR, its exact solution keeps the share `r` of the noise in the state:

    X_i = r (sigma_i / sigma_b) X_b + sum_n w_n D_n + sigma_i sqrt(1 - r^2) eps,        sum_n w_n = alpha_i (1 - r exp(-h)).

| share `r` | whose |
|---|---|
| `exp(-tau^2 h)`, a constant `tau` | SA-Solver (Xue et al. 2023, arXiv 2309.05019); 1 is the probability flow |
| `r^2 = 1 - eta^2 (1 - exp(-2h))` | ancestral sampling, DDIM's eta |
| `g(k_i) / g(k_b)`, a rising function of the noise-to-signal ratio | ER-SDE (Cui et al. 2023, arXiv 2309.06169), with `phi(k) = k g(k)` |

With `c = 1 - log(r)/h` the kernel of a polynomial through past answers is `c exp(-c (lambda_i - lambda))`, so its weights are those of
data prediction with `lambda` measured in units of `1/c`. The noise form holds the noise instead of the answer:
`X_i = (alpha_i / alpha_b) X_b + c sum_n w_n (D_n - X_n / alpha_n) + sigma_i sqrt((c - 1)(exp(2h) - 1)) eps`; its error grows with `tau`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.sample.compilers.extrapolation import Extrapolation, Prediction, Rule
from sfumato.sample.compilers.linearisation import Linearisation
from sfumato.sample.compilers.stepping import Node, StepTable
from sfumato.sample.program import Program


@dataclass(frozen=True)
class Stochastic(Extrapolation):
    """One step's split: a prediction under a rule (see `Extrapolation.of`), and the logarithm of the share of the noise that is kept.

    Arguments:
        log_kept: `log r`, at most 0; -inf where nothing is kept.
    """

    log_kept: float = 0.0

    @classmethod
    def of(cls, prediction: Prediction, rule: Rule = "exact", halved: bool = False) -> Stochastic:
        plain = Extrapolation.of(prediction, rule, halved)
        return cls(plain.variance, plain.power, plain.space, plain.rule, plain.halved)

    def weights(self, base: float, end: float, nodes: Sequence[float], level: tuple[float, float]) -> Tensor:
        h = end - base
        if len(nodes) == 1 and not self._noise:
            return torch.tensor([[-level[0] * math.expm1(self.log_kept - h)]], dtype=torch.float64)
        if not math.isfinite(h):
            return super().weights(base, end, nodes, level)
        c = 1 - self.log_kept / h
        if self._noise:
            return c * super().weights(base, end, nodes, level)
        # alpha = sigma puts the step's end at 0 on the stretched axis
        return super().weights(-c * h, 0.0, [c * (node - end) for node in nodes], (level[0], level[0]))

    def share(self) -> float:
        """What the state's own term keeps beside its deterministic decay."""
        return 1.0 if self._noise else math.exp(self.log_kept)

    def fresh(self, start: Node, end: Node) -> float:
        """The standard deviation of the noise that is drawn anew."""
        h = end.half_log_snr - start.half_log_snr
        if not self._noise:
            return end.sigma * math.sqrt(-math.expm1(2 * self.log_kept))
        if not math.isfinite(h):
            return 0.0
        return end.sigma * math.sqrt(-self.log_kept / h * math.expm1(2 * h))


class StochasticTable(StepTable):
    """A `StepTable` whose steps may keep a share of the noise only."""

    def noisy_step(self, split: Stochastic, row: int, a: int, b: int, nodes: Sequence[Node], draw: int, fresh: float) -> int:
        """`step`, with `fresh` times draw number `draw` added to the new row."""
        new = self.step(split, row, a, b, nodes)
        # what is not kept is not read
        states = {j: c for j, c in self._rows[new].states.items() if bool((c != 0).any())}
        noise = {draw: torch.tensor([fresh], dtype=torch.float64)} if fresh else {}
        self._rows[new] = replace(self._rows[new], states=states, noise=noise)
        return new

    @property
    def newest(self) -> int:
        """The number of the last row."""
        return len(self._rows) - 1

    def factor(self, split: Linearisation, a: int, b: int) -> Tensor:
        factor = super().factor(split, a, b)
        return split.share() * factor if isinstance(split, Stochastic) else factor


@dataclass(frozen=True)
class Walk:
    """How a stochastic multistep solver walks; no order exceeds what the history holds.

    Arguments:
        predictor: how many past answers the predictor reads.
        corrector: how many answers the corrector reads, the one at the predicted point among them; 0 for none. It has the predictor's draw.
        lower: whether no predictor's order exceeds the number of steps left, and no corrector's that number and one.
        anew: whether the answer at node `i` of `last` is asked anew at the corrected state.
    """

    predictor: int
    corrector: int = 0
    lower: bool = False
    anew: Callable[[int, int], bool] = lambda i, last: False

    def program(self, name: str, table: StochasticTable, split: Callable[[int, int], Stochastic]) -> Program:
        """The program over the table's times, where `split(i - 1, i)` is the split of step `i`. The last step is not corrected."""
        last, base, history = len(table.times) - 1, 0, [table.node(0, 0)]
        for i in range(1, last + 1):
            kind, end, draw = split(i - 1, i), table.half_log_snr[i], table.newest + 1
            fresh = kind.fresh(table.node(base, i - 1), table.node(base, i))
            used = _newest(history, min(self.predictor, last - i + 1) if self.lower else self.predictor, end)
            new = table.noisy_step(kind, base, i - 1, i, used, draw, fresh)
            if i < last:
                history.append(table.node(new, i))
            if self.corrector and i < last:
                order = min(self.corrector, last - i + 2) if self.lower else self.corrector
                new = table.noisy_step(kind, base, i - 1, i, _newest(history, order, end), draw, fresh)
                if self.anew(i, last):
                    history[-1] = table.node(new, i)
            base = new
        return table.program(name)


def _newest(history: list[Node], order: int, end: float) -> list[Node]:
    """The newest nodes, as many as the order asks; only the newest where an infinite log-SNR leaves nothing to interpolate over."""
    nodes = [n for n in history[-order:] if math.isfinite(n.half_log_snr)]
    return nodes if nodes and math.isfinite(end) else history[-1:]
