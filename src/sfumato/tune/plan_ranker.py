"""A small network that learns which of two sequences of decisions scores lower: a GRU over the steps, trained on pairs with a hinge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sfumato.errors import DataError

Features = Sequence[Sequence[float]]
"""One row of numbers a step."""


class PlanRanker:
    """`ranker(sequences)` gives one number each, lower for what should score lower; made by `fit`."""

    def __init__(self, width: int, mean: Tensor, scale: Tensor, seed: int) -> None:
        self.mean, self.scale = mean, scale
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.gru, self.head = nn.GRU(len(mean), width, batch_first=True), nn.Linear(width, 1)

    @classmethod
    def fit(cls, sequences: Sequence[Features], scores: Sequence[float], seed: int = 0, *, width: int = 32, rounds: int = 60) -> PlanRanker:
        """Learn from measured sequences, which may differ in length.

        Every round pairs each sequence with another at random and asks for a margin of 1 in the order of their scores.

        Raises:
            DataError: fewer than 10 sequences, or not one score each.
        """
        if len(sequences) < 10 or len(sequences) != len(scores):
            raise DataError("sequences, scores", (len(sequences), len(scores)), "at least 10 sequences with one score each")
        steps = torch.tensor([row for rows in sequences for row in rows])
        ranker = cls(width, steps.mean(0), steps.std(0).clamp(min=1e-6), seed)
        generator = torch.Generator().manual_seed(seed)
        value = torch.tensor(scores, dtype=torch.float64)
        optimiser = torch.optim.Adam([*ranker.gru.parameters(), *ranker.head.parameters()], 1e-2)
        packed = ranker._packed(sequences)
        for _ in range(rounds):
            other = torch.randperm(len(scores), generator=generator)
            said = ranker._said(packed)
            sign = torch.sign(value - value[other]).nan_to_num().to(said)
            loss = (torch.relu(1 - sign * (said - said[other])) * sign.abs()).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return ranker

    def __call__(self, sequences: Sequence[Features]) -> Tensor:
        """One number a sequence, `(n,)`."""
        with torch.no_grad():
            return self._said(self._packed(sequences))

    def _packed(self, sequences: Sequence[Features]) -> nn.utils.rnn.PackedSequence:
        return nn.utils.rnn.pack_sequence([(torch.tensor(s) - self.mean) / self.scale for s in sequences], enforce_sorted=False)

    def _said(self, packed: nn.utils.rnn.PackedSequence) -> Tensor:
        return self.head(self.gru(packed)[1][0])[:, 0]
