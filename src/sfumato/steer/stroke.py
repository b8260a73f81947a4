r"""Guiding a sample through its velocity, without training: the velocity points at the data, so a picture can tell it where to go.

A velocity either leans towards the stroke, `v <- (1 - w) v + w y`, or is drawn anew from what the process says of it, were the data `y`:

    v ~ N(M_v y + S_vx / S_xx (x - M_x y),   S_vv - S_vx^2 / S_xx),

in the first steps of a run. Inpainting is the same throughout, with the belief in place of the stroke where nothing is known. Source: Chen
et al. 2024 (arXiv 2310.07805).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import LinearSDE
from sfumato.sample.linear.acceleration import AccelerationFlow
from sfumato.sample.linear.linear_program import run_linear
from sfumato.sample.run import Denoise
from sfumato.sample.times.schedules import custom
from sfumato.seeds import Noise


def lean_velocity(state: Tensor, stroke: Float[Tensor, "batch *event"], weight: float = 0.1) -> Tensor:
    """The state `(batch, 2, *event)` with the velocity `(1 - w) v + w y`.

    Raises:
        ArgumentError: a weight outside [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ArgumentError("weight", weight, "a share in [0, 1]")
    return torch.stack([state[:, 0], (1 - weight) * state[:, 1] + weight * stroke.to(state)], 1)


def draw_velocity(process: LinearSDE, state: Tensor, stroke: Float[Tensor, "batch *event"], t: float, noise: Tensor) -> Tensor:
    """The state with a velocity drawn given its position and the stroke as data.

    Arguments:
        process: with channels (x, v), all coordinates alike, such as `agm()`.
        noise: standard, of the data's shape.

    Raises:
        ArgumentError: a process of another kind, or a time without noise on the position.
    """
    law = process.marginal(t)
    if process.channels != 2 or law.covariance.basis is not None:
        raise ArgumentError("process", law.covariance.structure, "2 channels, the same for all coordinates")
    (xx, _), (vx, vv) = law.covariance.coef[0].tolist()
    if not xx > 0:
        raise ArgumentError("t", t, "a time with noise on the position")
    mean = law.mean(stroke.to(state))
    drawn = mean[:, 1] + vx / xx * (state[:, 0] - mean[:, 0]) + math.sqrt(max(vv - vx**2 / xx, 0.0)) * noise.to(state)
    return torch.stack([state[:, 0], drawn], 1)


def follow_stroke(
    denoise: Denoise,
    process: LinearSDE,
    times: Sequence[float],
    draws: Noise,
    stroke: Float[Tensor, "batch *event"],
    share: float = 0.25,
    known: Float[Tensor, "*event"] | None = None,
) -> Float[Tensor, "batch *event"]:
    """The belief at `times[-1]` of a run whose velocities follow the stroke.

    Arguments:
        denoise: `(states, t) -> E[x_0 | state]`.
        process: see `draw_velocity`.
        times: falling, the last above 0.
        draws: of the states' shape; draw 0 makes the start, draw `i` the velocities of step `i`.
        stroke: what the sample should look like.
        share: of the steps, in which velocities are drawn.
        known: 1 where the stroke holds, 0 where the belief of the moment stands for it; None for everywhere.

    Raises:
        ArgumentError: a share outside [0, 1], or times that end at 0.
        ShapeError: draws that are not one per stroke.
    """
    times = custom(times)
    if not 0 <= share <= 1 or times[-1] == 0:
        raise ArgumentError("share, times", (share, times[-1]), "a share in [0, 1], times that end above 0")
    if len(draws) != len(stroke):
        raise ShapeError("draws", len(draws), f"one per stroke, {len(stroke)}")
    state, guided = process.prior_sample(draws.draw(0)), round(share * (len(times) - 1))
    for i, (t, s) in enumerate(pairwise(times[: guided + 1]), 1):
        aim = stroke if known is None else torch.lerp(denoise(state, t), stroke.to(state), known.to(state))
        state = draw_velocity(process, state, aim, t, draws.draw(i)[:, 1])
        state = run_linear(AccelerationFlow(1).compile(process, (t, s)), denoise, state)
    if guided < len(times) - 1:
        state = run_linear(AccelerationFlow(2).compile(process, times[guided:]), denoise, state)
    return denoise(state, times[-1])
