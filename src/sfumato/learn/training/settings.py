"""What a training run is, apart from its data, its denoiser and its loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sfumato.errors import ArgumentError

Schedule = Literal["constant", "linear", "cosine"]
"""How the learning rate falls after the warm-up: not at all, or to 0 at the last step."""


@dataclass(frozen=True)
class FitSettings:
    """How to train.

    Arguments:
        steps: optimiser steps, over all.
        batch_size: examples per step, over all devices together.
        learning_rate: of Adam, at its highest.
        warmup: steps in which it rises linearly from 0.
        schedule: how it falls.
        ema_decay: see `Average`.
        clip: largest norm of the gradient; a longer one is scaled down to it. `math.inf` for none.
        seed: of all randomness of the run; the initial weights are the network's own.

    Raises:
        ArgumentError: a value that means nothing.
    """

    steps: int
    batch_size: int = 256
    learning_rate: float = 1e-3
    warmup: int = 100
    schedule: Schedule = "linear"
    ema_decay: float = 0.999
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("warmup", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ArgumentError(name, value, f"a whole number of at least {least}")
        if not 0 < self.learning_rate < math.inf:
            raise ArgumentError("learning_rate", self.learning_rate, "a positive rate")
        if not self.clip > 0:
            raise ArgumentError("clip", self.clip, "a positive norm, or math.inf")
        if self.schedule not in get_args(Schedule):
            raise ArgumentError("schedule", repr(self.schedule), f"one of {', '.join(get_args(Schedule))}")

    def rate(self, step: int) -> float:
        """The learning rate of step number `step`."""
        done = step / self.steps
        fall = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[self.schedule]
        return self.learning_rate * min(1.0, (step + 1) / (self.warmup + 1)) * fall
