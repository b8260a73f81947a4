r"""Gaussian laws of states whose means are linear in other states: transitions, marginals, posteriors, bridges and priors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.linear_family.operator import Operator


@dataclass(frozen=True, eq=False)
class LinearLaw:
    """`x ~ N(phi x' + shift y, covariance)`, given a state `x'` and the condition `y`.

    Arguments:
        phi: what the given state is multiplied by (for a marginal, the data: then it has one input channel).
        shift: what the condition is multiplied by; None for a process without one.
        covariance: symmetric and positive semi-definite.
    """

    phi: Operator
    shift: Operator | None
    covariance: Operator

    def mean(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """`phi x + shift y`, a state.

        Raises:
            ArgumentError, ShapeError: a condition is missing, superfluous or of the wrong shape.
        """
        return plus_shift(self.phi.apply(x), self.shift, condition)


@dataclass(frozen=True, eq=False)
class Between:
    """`x_s ~ N(start a + end b + shift y, covariance)`, given the states `a` before and `b` after it.

    Arguments:
        start: acts on the data `x_0` (a posterior) or on the state at the earlier time (a bridge).
        end: the gain `J` that acts on the later state.
        shift: acts on the condition; None for a process without one.
        covariance: what is still unknown.
    """

    start: Operator
    end: Operator
    shift: Operator | None
    covariance: Operator

    def mean(self, before: Tensor, after: Tensor, condition: Tensor | None = None) -> Tensor:
        """The mean, a state."""
        return plus_shift(self.start.apply(before) + self.end.apply(after), self.shift, condition)


@dataclass(frozen=True, eq=False)
class Prior:
    """`N(shift y, covariance)`: what sampling starts from."""

    shift: Operator | None
    covariance: Operator

    def sample(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """A draw, made of standard `noise` of the state's shape."""
        return plus_shift(self.covariance.cholesky().apply(noise), self.shift, condition)

    def log_prob(self, x: Tensor, condition: Tensor | None = None) -> Float[Tensor, " batch"]:
        """The log-density, in nats."""
        return normal_log_prob(plus_shift(x, self.shift, condition, sign=-1.0), self.covariance)


def plus_shift(x: Tensor, shift: Operator | None, condition: Tensor | None, sign: float = 1.0) -> Tensor:
    """`x + sign * shift y`.

    Raises:
        ArgumentError: a condition is missing, or given to a process that has none.
        ShapeError: the condition is not shaped as the data.
    """
    if (shift is None) != (condition is None):
        expected = "none" if shift is None else "a tensor (batch, *event): this process drifts towards it"
        raise ArgumentError("condition", "none" if condition is None else tuple(condition.shape), expected)
    if shift is None or condition is None:
        return x
    moved = shift.apply(condition)
    if moved.shape[1:] != x.shape[1:] or moved.shape[0] not in (1, x.shape[0]):
        raise ShapeError("condition", tuple(condition.shape), f"the shape of the data of states {tuple(x.shape)}")
    return x + sign * moved


def coordinates_of(x: Tensor, covariance: Operator) -> int:
    """The number of spatial coordinates of states `x` on which `covariance` acts."""
    return math.prod(x.shape[1:]) // covariance.channels[0]


def normal_log_prob(away: Tensor, covariance: Operator) -> Float[Tensor, " batch"]:
    """`log N(away; 0, covariance)` in float64, per sample.

    Raises:
        ArgumentError: a singular covariance.
    """
    x = away.to(torch.float64)
    quadratic = (x * covariance.solve(x)).flatten(1).sum(1)
    numbers = math.prod(x.shape[1:])
    return -0.5 * (quadratic + covariance.logdet(coordinates_of(x, covariance)) + numbers * math.log(2 * math.pi))
