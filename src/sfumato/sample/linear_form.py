r"""What samplers under a linear SDE are made of: expressions `state x + data D + shift y` with operators for coefficients.

At a noisy state `x` with the belief `D = E[x_0 | x]` and the process's condition `y`,

    score      -S^{-1} (x - A D - O y)
    forward    F x + C y
    noise      R^{-1} (x - A D - O y)

are such expressions, and so is every step of an explicit sampler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sfumato.errors import ArgumentError
from sfumato.noise import LinearSDE, Operator, Time


@dataclass(frozen=True, eq=False)
class Form:
    """`state x + data D + shift y`; what is None is 0."""

    state: Operator | None = None
    data: Operator | None = None
    shift: Operator | None = None

    def __add__(self, other: Form) -> Form:
        return Form(plus(self.state, other.state), plus(self.data, other.data), plus(self.shift, other.shift))

    def under(self, operator: Operator) -> Form:
        """The form multiplied by an operator from the left."""
        state, data, shift = (None if part is None else operator @ part for part in (self.state, self.data, self.shift))
        return Form(state, data, shift)

    def scaled(self, factor: float) -> Form:
        """The form multiplied by a number."""
        state, data, shift = (None if part is None else factor * part for part in (self.state, self.data, self.shift))
        return Form(state, data, shift)


def plus(a: Operator | None, b: Operator | None) -> Operator | None:
    """The sum of two operators of which either may be 0, written None."""
    return b if a is None else a if b is None else a + b


def identity(channels: int) -> Operator:
    """The identity on states of so many channels."""
    return Operator(torch.eye(channels, dtype=torch.float64)[None])


def residual(process: LinearSDE, t: Time) -> Form:
    """`x - A D - O y`: what of the state is noise."""
    law = process.marginal(t)
    return Form(identity(process.channels), -1.0 * law.phi, None if law.shift is None else -1.0 * law.shift)


def score_form(process: LinearSDE, t: Time) -> Form:
    """The score that the belief stands for.

    Raises:
        ArgumentError: a time at which the noise is singular.
    """
    return residual(process, t).under(-1.0 * process.marginal(t).covariance.inverse())


def forward_form(process: LinearSDE, t: Time) -> Form:
    """`F x + C y`, or `F x + C D` for a process whose path is steered to the data (`Backwards`)."""
    law = process.coefs(t)
    return toward(process, t, law.phi, law.shift)


def toward(process: LinearSDE, t: Time, state: Operator, gain: Operator | None) -> Form:
    """`state x + gain y`, where `y` is the belief if the process has no condition but the data."""
    steered = gain is not None and process.marginal(t).shift is None
    return Form(state, gain, None) if steered else Form(state, None, gain)


def noise_form(process: LinearSDE, t: Time, view: Literal["noise", "cholesky noise"] = "noise") -> Form:
    """The noise that the belief stands for, in the coordinates of the flow factor or of the Cholesky factor.

    Raises:
        ArgumentError: another view, or a time at which the noise is singular.
    """
    return residual(process, t).under(noise_factor(process, t, view).inverse())


def noise_factor(process: LinearSDE, t: Time, view: str) -> Operator:
    """The factor of `S` that the view "noise" or "cholesky noise" is in the coordinates of."""
    if view == "noise":
        return process.flow_factor(t)
    if view == "cholesky noise":
        return process.marginal(t).covariance.cholesky()
    raise ArgumentError("view", repr(view), "noise or cholesky noise")


def reverse_form(process: LinearSDE, t: Time, eta: float) -> Form:
    """`F x + C y - (1 + eta^2)/2 Q score`: the drift of the flow (`eta = 0`) or of the reverse SDE (1), in forward time."""
    return forward_form(process, t) + score_form(process, t).under((-(1 + eta**2) / 2) * process.coefs(t).covariance)
