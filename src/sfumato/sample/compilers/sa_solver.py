r"""SA-Solver: Adams methods, predictor and corrector, for the reverse SDE of any noise level `tau` (Xue et al. 2023, arXiv 2309.05019).

All members of `dx = (F x - (1 + tau^2)/2 g^2 score) dt + tau g dw` share their marginals: `tau = 0` is the probability flow, 1 the usual
reverse SDE. With `tau` held over a step the linear part is exact, and a polynomial in half log-SNR through past answers is integrated
exactly (the weights are those of `stochastic`). The corrector has the predictor's noise.

Deterministic order: the predictor's `P` alone, `min(P + 1, C)` with a corrector of order `C`; as the first step is of order 1, the order of
a lone predictor is capped at 2 in the end. With `tau > 0` the mean and the variance converge with order 2 at most, and paths with order 1,
as the noise inside a step is not resolved: error `O(tau h + h^P)`, the authors' bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.extrapolation import Prediction
from sfumato.sample.compilers.stochastic import Stochastic, StochasticTable, Walk
from sfumato.sample.program import Program
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom

Finish = Literal["full", "lower", "quiet", "renewed"]
"""The last steps: as the others; of falling order; of falling order and the very last without noise; or with an answer asked anew."""


@dataclass(frozen=True)
class Band:
    """A noise level that is `tau` between two ends and 0 outside.

    Arguments:
        tau: the level inside, finite and at least 0.
        low, high: the ends, in the unit `of`.
        of: "time", or "ratio" for the noise-to-signal ratio (EDM's sigma).
    """

    tau: int | float = 1.0
    low: int | float = 0.0
    high: int | float = math.inf
    of: Literal["time", "ratio"] = "time"

    def __post_init__(self) -> None:
        if not 0 <= self.tau < math.inf:
            raise ArgumentError("tau", self.tau, "a finite noise level of at least 0")
        if not self.low < self.high:
            raise ArgumentError("low, high", (self.low, self.high), "low < high")
        if self.of not in ("time", "ratio"):
            raise ArgumentError("of", repr(self.of), "one of time, ratio")

    def __call__(self, process: ScalarProcess, t: float) -> float:
        """`tau` at a time."""
        place = t if self.of == "time" else float(process.ratio(t))
        return float(self.tau) if self.low <= place <= self.high else 0.0

    def __str__(self) -> str:
        everywhere = self.low <= 0 and self.high == math.inf
        return f"{self.tau:g}" if everywhere or self.tau == 0 else f"{self.tau:g}@{self.of}[{self.low:g},{self.high:g}]"


NoiseLevel = Callable[[ScalarProcess, float], float]
"""`tau` of a process and the time at which a step starts, e.g. a `Band`."""


@dataclass(frozen=True)
class SASolver(Solver):
    """The stochastic Adams solver, see the module. Predictor and corrector of a step share one draw.

    Arguments:
        predictor: how many past answers the predictor reads, 1 to 4.
        corrector: how many answers the corrector reads, the one at the predicted point among them; 1 to 4, or 0 for none.
        tau: the noise level, read at the start of each step.
        prediction: what is interpolated; "noise" is there to be compared with: its error grows with `tau`.
        rescaled: with two answers, put `h^2/2` for the kernel's first moment: a change of `O(h^3)`, as published for few steps.
        evaluation: with "pece", a corrected point is asked anew, at two evaluations a step.
        finish: see `Finish`; "renewed" asks once more before the step to zero noise, at the corrected point.
    """

    predictor: int = 3
    corrector: int = 4
    tau: NoiseLevel = field(default_factory=Band)
    prediction: Prediction = "data"
    rescaled: bool = False
    evaluation: Literal["pec", "pece"] = "pec"
    finish: Finish = "full"

    def __post_init__(self) -> None:
        if not 1 <= self.predictor <= 4 or not 0 <= self.corrector <= 4:
            raise ArgumentError("predictor, corrector", (self.predictor, self.corrector), "orders of 1 to 4, and 0 to 4")
        if self.prediction not in get_args(Prediction):
            raise ArgumentError("prediction", repr(self.prediction), f"one of {', '.join(get_args(Prediction))}")
        if self.evaluation not in ("pec", "pece") or (self.evaluation == "pece" and not self.corrector):
            raise ArgumentError("evaluation", repr(self.evaluation), "pec, or pece with a corrector")
        if self.finish not in get_args(Finish):
            raise ArgumentError("finish", repr(self.finish), f"one of {', '.join(get_args(Finish))}")
        if self.rescaled and self.prediction == "noise":
            raise ArgumentError("rescaled", True, "data prediction", "The published change is one of its weights.")

    @property
    def name(self) -> str:
        how = "".join(f"-{word}" for word, on in (("noise", self.prediction == "noise"), ("rescaled", self.rescaled)) if on)
        end = "" if self.finish == "full" else f"-{self.finish}"
        return f"sa-p{self.predictor}c{self.corrector}-tau{self.tau}{how}{'-pece' if self.evaluation == 'pece' else ''}{end}"

    @property
    def order(self) -> int:
        order = min(self.predictor + 1, self.corrector) if self.corrector else self.predictor
        return order if self.deterministic and self.finish in ("full", "renewed") else min(order, 2)

    @property
    def deterministic(self) -> bool:
        return isinstance(self.tau, Band) and self.tau.tau == 0

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        times = custom(times)
        table, last = StochasticTable(process, times), len(times) - 1
        renewed = self.finish == "renewed"
        if renewed and table.sigma[-1] != 0:
            raise ArgumentError("times", list(times), "times that end at zero noise", "There the answer itself is returned.")
        split = (_Rescaled if self.rescaled else Stochastic).of(self.prediction)

        def step(a: int, b: int) -> Stochastic:
            tau = 0.0 if self.finish == "quiet" and b == last else self.tau(process, times[a])
            if not 0 <= tau < math.inf:
                raise ArgumentError("tau", tau, "a finite noise level of at least 0", f"It is the one at time {times[a]:.6g}.")
            h = table.half_log_snr[b] - table.half_log_snr[a]
            return replace(split, log_kept=-(tau**2) * h if tau else 0.0)

        def anew(i: int, last: int) -> bool:
            return self.evaluation == "pece" or (renewed and i == last - 1)

        walk = Walk(self.predictor, self.corrector, self.finish in ("lower", "quiet"), anew)
        return walk.program(self.name, table, step)


@dataclass(frozen=True)
class _Rescaled(Stochastic):
    """Two answers whose first moment about the step's start is `c alpha h^2/2`, the integral without its exponential."""

    def weights(self, base: float, end: float, nodes: Sequence[float], level: tuple[float, float]) -> Tensor:
        out, h = super().weights(base, end, nodes, level), end - base
        if len(nodes) != 2:
            return out
        u = torch.tensor([[node - base] for node in nodes], dtype=torch.float64)
        missing = (1 - self.log_kept / h) * level[0] * h**2 / 2 - (u * out).sum()
        return out + missing / (u[1] - u[0]) * torch.tensor([[-1.0], [1.0]], dtype=torch.float64)


def few_steps(order: int = 3, tau: NoiseLevel | None = None) -> SASolver:
    """The authors' settings for few steps: rescaled weights, falling orders, and a last step without noise or corrector; one evaluation a
    step. `order` 3 is for weak guidance or none, 2 for strong guidance; `tau` is 1 for times in [0.2, 0.8] by default.
    """
    return SASolver(order, _corrector(order), tau or Band(1.0, 0.2, 0.8), rescaled=True, finish="quiet")


def more_steps(order: int = 3, tau: NoiseLevel | None = None) -> SASolver:
    """The authors' settings for more steps: the corrector at every noisy node and a last answer at the corrected point, on times that end
    at zero noise; one evaluation a step and one more.
    """
    return SASolver(order, _corrector(order), tau or Band(1.0, 0.2, 0.8), finish="renewed")


def _corrector(order: int) -> int:
    return 4 if order == 3 else order
