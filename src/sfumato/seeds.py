"""Noise that belongs to a sample, not to a batch.

The `j`-th draw of sample `i` under seed `s` is a pure function of `(s, i, j)`: a counter-based generator (Philox 4x64, Salmon et al.
2011) is keyed by `(s, i)` and its counter's high words are set to `j`. So sample 17 sees bit-identical noise whatever the batch size,
the number of processes, the point of resumption or the state's dtype (draws are made in float64 on the CPU and cast last).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ArgumentError

Seed = int | torch.Generator | Sequence[int]
"""An integer (sample `i` is keyed `(seed, i)`), a generator (which yields one such integer), or one integer per sample."""

_WORD = 2**64


@dataclass(frozen=True)
class Noise:
    """Addressable standard normal draws for a batch of samples.

    Arguments:
        keys: one pair `(seed, index)` per sample.
        event: the event shape, without the batch.
        dtype, device: what a draw is cast and moved to.
    """

    keys: tuple[tuple[int, int], ...]
    event: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def draw(self, j: int) -> Tensor:
        """Standard normal draw number `j >= 0`, shape `(batch, *event)`."""
        if j < 0:
            raise ArgumentError("j", j, "a draw number of at least 0")
        out = np.empty((len(self.keys), *self.event))
        bits = np.random.Philox(key=0)
        normal, fresh = np.random.Generator(bits), bits.state
        fresh["state"]["counter"] = np.array([0, 0, j, 0], dtype=np.uint64)
        for row, key in zip(out.reshape(len(self.keys), math.prod(self.event)), self.keys, strict=True):
            # one generator set anew is the same as one made anew, five times as fast
            fresh["state"]["key"] = np.array(key, dtype=np.uint64)
            bits.state = fresh
            normal.standard_normal(out=row)
        return torch.from_numpy(out).to(device=self.device, dtype=self.dtype)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice) -> Noise:
        return Noise(self.keys[rows], self.event, self.dtype, self.device)


def noise(
    seed: Seed,
    batch: int,
    event: Sequence[int],
    *,
    first: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Noise:
    """The noise of samples `first, ..., first + batch - 1` under `seed`.

    Arguments:
        seed: see `Seed`. A sequence gives every sample its own integer (its index is then 0), so its length must be `batch`.
        batch: the number of samples.
        event: the event shape.
        first: the index of the first sample, for work that is split into chunks or ranks.

    Raises:
        ArgumentError: a sequence of another length than `batch`, or a seed that is none of the three kinds.

    Example:
        >>> import torch
        >>> from sfumato.seeds import noise
        >>> many, alone = noise(7, 100, (2,)).draw(0), noise(7, 1, (2,), first=41).draw(0)
        >>> torch.equal(many[41], alone[0])
        True
    """
    if batch < 0 or first < 0:
        raise ArgumentError("batch, first", (batch, first), "counts of at least 0")
    if isinstance(seed, torch.Generator):
        seed = int(torch.randint(2**63 - 1, (), generator=seed, device=seed.device))
    if isinstance(seed, bool | float):
        raise ArgumentError("seed", seed, "an integer, a torch.Generator or one integer per sample")
    if isinstance(seed, int):
        keys = tuple((seed % _WORD, first + i) for i in range(batch))
    elif isinstance(seed, Sequence) and all(isinstance(s, int) for s in seed):
        if len(seed) != batch:
            raise ArgumentError("seed", f"{len(seed)} integers", f"one integer per sample, {batch} in all")
        keys = tuple((s % _WORD, 0) for s in seed)
    else:
        raise ArgumentError("seed", type(seed).__name__, "an integer, a torch.Generator or one integer per sample")
    return Noise(keys, tuple(event), dtype, torch.device(device))
