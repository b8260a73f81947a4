r"""Distilling a flow by regression on its trajectories: the states at several times at once, from the noise.

    L = sum_i w_i dist(X_i(x), x(t_i)) / M,        w_i = clamp(alpha_i / sigma_i, 1, 10^4),

over trajectories of the deterministic flow (`sfumato.sample.fits.reference`), by the operator of `sfumato.denoise.networks.flow_operator`.
The student inherits whatever error its trajectories have; a stochastic teacher has no map to learn.
Source: Zheng et al. 2022 (arXiv 2211.13449), eq. 9.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoise.networks.flow_operator import FlowOperator
from sfumato.errors import ArgumentError, ShapeError
from sfumato.learn.training.descent import descend, pick_rows
from sfumato.learn.training.settings import FitSettings
from sfumato.sample import Trajectory

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two batches of events `(n, *event)` to one number each `(n,)`: absolute or squared differences, or a distance of features."""


def absolute(a: Float[Tensor, "n *event"], b: Float[Tensor, "n *event"]) -> Float[Tensor, "n"]:
    """The mean absolute difference."""
    return (a - b).abs().flatten(1).mean(1)


def squared(a: Float[Tensor, "n *event"], b: Float[Tensor, "n *event"]) -> Float[Tensor, "n"]:
    """The mean squared difference."""
    return (a - b).square().flatten(1).mean(1)


def trajectory_weights(operator: FlowOperator) -> Float[Tensor, " times"]:
    """The `w_i` of the module's head, float64."""
    alpha, sigma = operator.process.levels(torch.tensor(operator.times, dtype=torch.float64))
    return (alpha / sigma).clamp(1.0, 1e4)


def fit_operator(
    operator: FlowOperator,
    trajectory: Trajectory,
    settings: FitSettings,
    distance: Distance = absolute,
    weights: Float[Tensor, " times"] | None = None,
) -> Tensor:
    """Train an operator in place.

    Arguments:
        operator: whose start and times are among the trajectory's.
        trajectory: of the teacher; many starts.
        settings: of the run.
        distance: see `Distance`.
        weights: one per time; default: those of the module's head.

    Returns:
        The loss of every step, float64.

    Raises:
        ArgumentError: a time of the operator at which the trajectory has no state, a loss that is not finite.
        ShapeError: not one weight per time.
    """
    missing = [t for t in (operator.start, *operator.times) if t not in trajectory.times]
    if missing:
        raise ArgumentError("trajectory.times", missing, "states at the operator's start and at all of its times")
    shares = trajectory_weights(operator) if weights is None else weights
    if len(shares) != len(operator.times):
        raise ShapeError("weights", tuple(shares.shape), f"one per time ({len(operator.times)},)")
    first, *truth = (trajectory.states[trajectory.times.index(t)] for t in (operator.start, *operator.times))

    def objective(generator: torch.Generator) -> Tensor:
        rows = pick_rows(len(first), settings.batch_size, generator)
        said = operator(first[rows])
        found = [w * distance(said[:, i], x[rows]).mean() for i, (w, x) in enumerate(zip(shares.tolist(), truth, strict=True))]
        return torch.stack(found).mean()

    return descend(operator, objective, settings)
