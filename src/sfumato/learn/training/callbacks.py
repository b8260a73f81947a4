"""Looking at a denoiser while it is trained.

What is measured is an argument: whoever asks knows how to probe, and here is only when, and on which weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Generic, Literal, TypeVar, get_args

import torch

from sfumato.denoise import Preconditioned
from sfumato.errors import ArgumentError
from sfumato.learn.training.average import Average

Weights = Literal["raw", "averaged"]
"""Those that the optimiser moves, or their exponential average, which lags behind (by about a ninth of the steps made, see `Average`)."""

Answer = TypeVar("Answer")


def log_steps(total: int, records: int) -> tuple[int, ...]:
    """At most `records` different steps from 0 to `total`, both included, equally spaced in `log(1 + step)` as far as integers are.

    Raises:
        ArgumentError: no steps, or fewer than 2 records.
    """
    if total < 1 or records < 2:
        raise ArgumentError("total, records", (total, records), "at least 1 step and 2 records")
    spaced = torch.logspace(0, 1, records, base=1.0 + total, dtype=torch.float64) - 1
    return tuple(sorted({round(s) for s in spaced.tolist()}))


class Recorder(Generic[Answer]):
    """An `on_step` of `fit` that probes the denoiser at chosen steps and keeps the answers.

    Step 0 is the untrained network. While it is probed the denoiser is in evaluation mode, without gradients; training goes on as if
    nobody had looked. A run that is taken up again tells of the steps that it makes itself.

    Arguments:
        probe: called with the denoiser; it must not change it, nor draw from torch's global generator.
        steps: the steps to look at.
        weights: which weights the denoiser has while it is probed.

    Raises:
        ArgumentError: no steps, a negative one, or unknown weights.
    """

    def __init__(self, probe: Callable[[Preconditioned], Answer], steps: Iterable[int], weights: Weights = "raw") -> None:
        if weights not in get_args(Weights):
            raise ArgumentError("weights", repr(weights), f"one of {', '.join(get_args(Weights))}")
        self.probe, self.weights = probe, weights
        self.wanted = frozenset(steps)
        if not self.wanted or min(self.wanted) < 0:
            raise ArgumentError("steps", sorted(self.wanted)[:3], "steps of at least 0")
        self.steps: list[int] = []
        """The steps that were looked at, in order."""
        self.answers: list[Answer] = []
        """What the probe answered, one entry per step."""

    def __call__(self, done: int, denoiser: Preconditioned, average: Average) -> None:
        if done not in self.wanted:
            return
        training = denoiser.training
        denoiser.eval()
        try:
            with torch.no_grad(), average.applied(denoiser) if self.weights == "averaged" else nullcontext():
                answer = self.probe(denoiser)
        finally:
            denoiser.train(training)
        self.steps.append(done)
        self.answers.append(answer)
