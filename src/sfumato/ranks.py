"""Work that several processes share: which rows are whose.

A launcher (`accelerate launch`, `torchrun`) starts one process per device; each is a *rank*. Sample `i` is a function of `(seed, i)`, so
ranks need not talk while they compute: each takes whole chunks of consecutive rows, and the rows are put together at the end. Since a
chunk has the same size whoever computes it, the result is that of one process bit for bit on equal devices.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from sfumato.errors import ArgumentError
from sfumato.voice import launched

_PATIENCE = timedelta(days=1)
"""How long a rank waits for another; the launcher ends all of them as soon as one has died."""


@dataclass(frozen=True)
class Ranks:
    """This process among the others.

    Arguments:
        index: its rank, from 0.
        count: how many there are.
        device: what it computes on.

    Raises:
        ArgumentError: a rank outside its count.
    """

    index: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ArgumentError("index, count", (self.index, self.count), "a rank from 0 to count - 1")

    @property
    def first(self) -> bool:
        """Whether this is the rank that decides, writes and prints."""
        return self.index == 0

    def share(self, n: int, chunk: int) -> tuple[int, int]:
        """`(start, rows)`: this rank's part of `n` rows, in whole chunks of `min(chunk, n)`; the last one may reach beyond `n`.

        Raises:
            ArgumentError: no rows, or a chunk of none.
        """
        if n < 1 or chunk < 1:
            raise ArgumentError("n, chunk", (n, chunk), "at least 1 row")
        size = min(chunk, n)
        chunks = -(-n // size)
        # the first rank always has work, so that it knows what rows look like
        low, high = (-(-chunks * i // self.count) for i in (self.index, self.index + 1))
        return low * size, (high - low) * size

    def rows(self, draw: Callable[[int, int], Tensor], n: int, chunk: int = 256) -> Tensor:
        """`n` rows of which every rank computes its share; all ranks get all, on the CPU if there are several.

        With `draw = lambda start, rows: sampler.sample(rows, seed, first=start, chunk=min(chunk, n))` these are the samples that
        `sampler.sample(n, seed, chunk=chunk)` draws in one process.

        Arguments:
            draw: `(start, rows)` to rows `start, ..., start + rows - 1`, a function of their numbers alone. Asked for whole chunks, so
                perhaps for rows beyond `n`, which are thrown away; not asked where there is nothing to do.
            n: how many rows.
            chunk: how many are computed together.
        """
        start, count = self.share(n, chunk)
        if self.count == 1:
            return draw(start, count)[:n]
        mine = draw(start, count) if count else None
        shape, dtype = self.agree(None if mine is None else (tuple(mine.shape[1:]), mine.dtype))
        counts = [Ranks(i, self.count).share(n, chunk)[1] for i in range(self.count)]
        # backends gather equal parts only
        padded = torch.zeros(max(counts), *shape, dtype=dtype, device=self.device)
        if mine is not None:
            padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:c].cpu() for part, c in zip(parts, counts, strict=True)])[:n]

    def agree(self, value: Any) -> Any:
        """The first rank's value, on all of them; it has to be picklable."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]


def join() -> Ranks:
    """Meet the other processes that the launcher has started; without a launcher, one process on the best device it has.

    The device is a GPU of CUDA's if there is one, else the CPU; `ACCELERATE_USE_CPU=1` asks for the CPU.
    """
    wanted = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes", "y", "on")
    if launched()[1] == 1:
        return Ranks(device=torch.device("cuda" if wanted else "cpu"))
    from accelerate import PartialState

    # accelerate joins a group on the CPU only if it is told to; whoever asks it later finds this state
    state = PartialState(cpu=not wanted, timeout=_PATIENCE)
    return Ranks(state.process_index, state.num_processes, state.device)


def leave() -> None:
    """Part from the other processes, if there are any."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
