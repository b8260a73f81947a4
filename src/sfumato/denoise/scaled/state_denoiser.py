r"""Learned beliefs `E[x_0 | state]` under any linear SDE: what samplers ask of a model, whatever view it predicts.

A state has the data and, for `K > 1` channels, auxiliary ones; the belief is about the data alone. Scalar processes have `Denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.noise import LinearSDE, LinearView, Time, as_time, convert

Predict = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`(states, times (batch,) float64, condition) -> prediction`: data `(batch, *event)`, any other view shaped as the states."""


@runtime_checkable
class StateBelief(Protocol):
    """A belief about the data under a linear SDE, which knows the process's condition; `exact.PushedDenoiser` is one, too."""

    process: LinearSDE

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """`E[x_0 | x_t = x]`, `(batch, *event)`, for states `x` and a time or one per sample."""


@dataclass(frozen=True, eq=False)
class StateDenoiser:
    """The belief of a model.

    Arguments:
        predict: the model.
        process: what it was trained under.
        view: what it predicts.
        condition: the process's `y`, `(batch or 1, *event)`, which the model sees, too; None for a process without one.
    """

    predict: Predict
    process: LinearSDE
    view: LinearView = "data"
    condition: Tensor | None = None

    def given(self, condition: Tensor) -> StateDenoiser:
        """The same model under a condition."""
        return replace(self, condition=condition)

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """`E[x_0 | x_t = x]`, `(batch, *event)`.

        Raises:
            ArgumentError: a time at which the view does not determine the data.
        """
        return self._as("data", x, t)

    def score(self, x: Tensor, t: Time) -> Tensor:
        """`grad log p_t(x)`, shaped as `x`.

        Raises:
            ArgumentError: a time at which the view does not determine the score.
        """
        return self._as("score", x, t)

    def _as(self, view: LinearView, x: Tensor, t: Time) -> Tensor:
        times = as_time(t).to(x.device).expand(len(x))
        condition = None if self.condition is None else torch.as_tensor(self.condition).to(x).expand(len(x), *self.condition.shape[1:])
        # one time for all is one operator for all
        return convert(self.process, self.predict(x, times, condition), self.view, view, x, t, condition)
