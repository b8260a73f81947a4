"""How fast errors fall: a power law with a confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, DataError


@dataclass(frozen=True)
class Rate:
    """`error = constant * steps^slope`, and the interval `[low, high]` of the slope."""

    slope: float
    low: float
    high: float
    constant: float

    def __str__(self) -> str:
        return f"{self.slope:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_dict(self) -> dict[str, float]:
        """The four numbers by name."""
        return asdict(self)


def fit_rate(steps: Sequence[int | float] | Tensor, errors: Sequence[int | float] | Tensor, confidence: float = 0.95) -> Rate:
    """Least squares of `log error = log constant + slope log steps`, with Student's interval of `n - 2` degrees of freedom.

    A method of order p has slope -p against its numbers of steps, and p against its step sizes. The interval is exact for independent
    log-normal errors of one relative size; a curve that is not yet in its asymptotic regime is none of these.

    Arguments:
        steps, errors: `(n,)`, positive, at least 3, and at least two different steps.
        confidence: the probability with which the interval holds the slope, in (0, 1).

    Raises:
        ArgumentError: a confidence outside (0, 1), fewer than 3 points, unequal lengths, equal steps.
        DataError: steps or errors that are not positive and finite.
    """
    from scipy.special import stdtrit

    x, y = (torch.as_tensor(v, dtype=torch.float64).flatten().cpu() for v in (steps, errors))
    if not 0 < confidence < 1:
        raise ArgumentError("confidence", confidence, "a probability in (0, 1)")
    if len(x) != len(y) or len(x) < 3:
        raise ArgumentError("steps, errors", f"{len(x)} and {len(y)} values", "as many errors as steps, at least 3")
    for name, values in (("steps", x), ("errors", y)):
        good = (values > 0) & torch.isfinite(values)
        if not bool(good.all()):
            raise DataError(name, f"{float(values[~good][0])}", "positive finite numbers", "Logarithms are fitted.")
    x, y = x.log(), y.log()
    across, freedom = x - x.mean(), len(x) - 2
    spread = float(across.square().sum())
    if bool((x == x[0]).all()):
        raise ArgumentError("steps", f"{len(x)} times the same", "at least two different numbers")
    slope = float(across @ y) / spread
    residual = y - y.mean() - slope * across
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * math.sqrt(float(residual.square().sum()) / freedom / spread)
    return Rate(slope, slope - half, slope + half, math.exp(float(y.mean()) - slope * float(x.mean())))
