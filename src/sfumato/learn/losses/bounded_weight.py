r"""A weight that is held below a bound, and a bound that grows while a network learns.

    min(w(t), b),        b = first (last/first)^(step/steps) while step < steps, then last

so that the errors at little noise, which weigh most and are learned last, do not rule the first steps. Source: Wu et al. 2023 (arXiv
2306.06991).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.learn.losses.weights import EDMWeight, Weight
from sfumato.noise import ScalarProcess


@dataclass(frozen=True)
class BoundedWeight(Weight):
    """`min(weight, bound)`.

    Arguments:
        bound: `b`.
        weight: what is bounded.
    """

    bound: float
    weight: Weight = field(default_factory=EDMWeight)

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise ArgumentError("bound", self.bound, "a positive bound, or math.inf")

    def __call__(self, process: ScalarProcess, t: Tensor) -> Tensor:
        return self.weight(process, t).clamp(max=self.bound)


def growing_bound(step: int, steps: int, first: float = 5.0, last: float = 500.0) -> float:
    """The bound at a step, growing geometrically over the first `steps` of them.

    Raises:
        ArgumentError: counts below 0 or 1, bounds that are not positive.
    """
    if step < 0 or steps < 1 or not 0 < first <= last < math.inf:
        raise ArgumentError("step, steps, first, last", (step, steps, first, last), "a step, at least 1 of them, 0 < first <= last")
    return first * (last / first) ** min(step / steps, 1.0)
