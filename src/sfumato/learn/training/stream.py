"""The examples of a training run: those of step `i` are a function of `(seed, i)` alone, so a run can be taken up anywhere."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sfumato.data.dataset import permutation
from sfumato.learn.losses.loss import DenoisingLoss, Examples
from sfumato.noise import ScalarProcess

_CHUNK = 2**20
"""Numbers per chunk of steps that are drawn in one go: enough that the cost per step of drawing is that of the numbers themselves."""
_STEPS = 64
"""Most steps per chunk."""
_RESIDENT = 2**30
"""Bytes of data that are kept on the training device; larger data stay where they are and travel by chunks."""


def _key(seed: int, purpose: int, index: int) -> int:
    """An independent 63-bit seed for each purpose and index."""
    return int(np.random.SeedSequence((seed % 2**64, purpose, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Stream:
    """Batches of noisy examples by step.

    Every epoch visits all data once, in its own order; a batch may span two epochs.

    Arguments:
        data: `(n, *event)`.
        labels: `(n,)`, or None.
        loss: what draws times and noise.
        process: the process of the noise.
        batch_size: examples per step, over all devices together.
        seed: of the order, the times, the noise and the label dropout.
        device: where the examples are wanted.
    """

    def __init__(
        self,
        data: Tensor,
        labels: Tensor | None,
        loss: DenoisingLoss,
        process: ScalarProcess,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        home = device if data.numel() * data.element_size() <= _RESIDENT else data.device
        self.data, self.labels = data.to(home), None if labels is None else labels.to(home)
        self.loss, self.process, self.batch_size, self.seed, self.device = loss, process, batch_size, seed, device
        self.steps = max(1, min(_STEPS, _CHUNK // (batch_size * math.prod(data.shape[1:]))))
        self._orders: dict[int, Tensor] = {}
        self._chunk: tuple[int, list[Examples]] | None = None

    def __getitem__(self, step: int) -> Examples:
        """The examples of step number `step`."""
        number, place = divmod(step, self.steps)
        if self._chunk is None or self._chunk[0] != number:
            self._chunk = (number, self._draw(number))
        return self._chunk[1][place]

    def _draw(self, chunk: int) -> list[Examples]:
        size = self.steps * self.batch_size
        rows = self._rows(chunk * size, size).to(self.data.device)
        labels = None if self.labels is None else self.labels[rows].to(self.device)
        generator = torch.Generator().manual_seed(_key(self.seed, 1, chunk))
        return self.loss.examples(self.process, self.data[rows].to(self.device), generator, labels, self.steps).split(self.steps)

    def _rows(self, first: int, count: int) -> Tensor:
        """The data's indices at places `first, ..., first + count - 1` of the endless sequence of epochs."""
        n = self.data.shape[0]
        epochs = range(first // n, (first + count - 1) // n + 1)
        self._orders = {e: self._orders[e] if e in self._orders else permutation(n, _key(self.seed, 0, e)) for e in epochs}
        start = first - epochs[0] * n
        return torch.cat([self._orders[e] for e in epochs])[start : start + count]
