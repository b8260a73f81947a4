"""Data that may not fit in memory: batches that can be gone through several times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, DataError

Batches = Tensor | Iterable[Tensor]
"""One tensor `(n, *event)`, or an iterable of such (a list, a DataLoader) that can be iterated again and again."""


class Stream:
    """Batches as flat float64 vectors, each checked to be finite and of one event shape.

    Arguments:
        batches: see `Batches`.

    Raises:
        ArgumentError: an iterator, which would be empty the second time.
        DataError: no batch at all; while iterating: a batch that is no tensor, of another event shape, or not finite.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = [batches] if isinstance(batches, Tensor) else batches
        if not isinstance(self._batches, Iterable):
            raise ArgumentError("batches", type(batches).__name__, "a tensor, or an iterable of tensors (n, *event)")
        if iter(self._batches) is self._batches:
            raise ArgumentError(
                "batches", "an iterator", "an iterable that can be gone through several times", "Pass a list or a DataLoader."
            )
        first = next((b for b in self._batches if not isinstance(b, Tensor) or len(b)), None)
        if first is None:
            raise DataError("batches", "no samples", "at least one sample")
        self.event_shape = tuple(self._checked(first).shape[1:])
        self.dim = first[0].numel()
        self.device = first.device

    def __iter__(self) -> Iterator[Float[Tensor, "n dim"]]:
        for batch in self._batches:
            if tuple(self._checked(batch).shape[1:]) != self.event_shape:
                raise DataError("batches", f"events of shape {tuple(batch.shape[1:])}", f"the first batch's event shape {self.event_shape}")
            flat = batch.detach().reshape(len(batch), self.dim).to(torch.float64)
            if not bool(torch.isfinite(flat).all()):
                raise DataError("batches", f"{int((~torch.isfinite(flat)).sum())} values that are NaN or infinite", "finite data")
            yield flat

    @staticmethod
    def _checked(batch: object) -> Tensor:
        if not isinstance(batch, Tensor) or batch.ndim < 2 or batch.is_complex():
            given = f"a tensor of shape {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
            raise DataError("batches", given, "real tensors (n, *event)", "Drop labels first.")
        return batch
