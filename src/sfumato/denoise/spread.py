"""One denoiser that several processes answer for: the first asks, all compute, so that whatever is built on it need not know.

The first rank runs the work (tuning, explaining) as if it were alone. Its questions are cut into equal parts of the batch; the other
ranks do nothing but answer their parts. Answers differ from those of one process by the rounding of other batch sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from sfumato.denoiser import Denoiser
from sfumato.noise import Time
from sfumato.ranks import Ranks


class Spread(Denoiser):
    """The denoiser's answers, computed on the ranks' devices and brought back to where the question came from.

    Questions about which autograd keeps a record, and those of fewer rows than ranks, are answered by the first rank alone. Nothing is
    recorded for the network's own parameters.

    Arguments:
        inner: who is asked; its network is moved to the rank's device.
        ranks: who answers. Between `lead`'s beginning and its end no other collective work may be done.
    """

    def __init__(self, inner: Denoiser, ranks: Ranks) -> None:
        self.inner, self.ranks, self.process = inner, ranks, inner.process
        self.event_shape: tuple[int, ...] | None = getattr(inner, "event_shape", None)
        self.classes: int | None = getattr(inner, "classes", None)
        move(inner, ranks.device)

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        if self.ranks.count == 1 or len(x) < self.ranks.count or _tracked(x, t, condition):
            return self._answer(x, t, condition).to(x.device)
        # what is pickled must not remember a device that others do not have
        t = t.detach().cpu() if isinstance(t, Tensor) else t
        condition = None if condition is None else condition.detach().cpu()
        self.ranks.agree((tuple(x.shape[1:]), x.dtype, len(x), t, condition))
        size = -(-len(x) // self.ranks.count)
        # equal parts, as backends want them: the last row once more where there is none left
        asked = x.detach()[_padded(len(x), size * self.ranks.count)].to(self.ranks.device)
        mine = self._part(asked, len(x), t, condition)
        parts = [torch.empty_like(mine) for _ in range(self.ranks.count)]
        distributed.gather(mine, parts, dst=0)
        return torch.cat(parts)[: len(x)].to(x.device)

    def serve(self) -> None:
        """Answer the first rank's questions until it has none left."""
        while (question := self.ranks.agree(None)) is not None:
            event, dtype, n, t, condition = question
            asked = torch.empty(-(-n // self.ranks.count), *event, dtype=dtype, device=self.ranks.device)
            distributed.gather(self._part(asked, n, t, condition), None, dst=0)

    def _part(self, asked: Tensor, n: int, t: Time, condition: Tensor | None) -> Tensor:
        """This rank's part of the answer; `asked` is the whole question on the first rank, and room for their part on the others."""
        size = -(-n // self.ranks.count)
        part = torch.empty_like(asked[:size])
        distributed.scatter(part, list(torch.split(asked, size)) if self.ranks.first else None, src=0)
        rows = _padded(n, size * self.ranks.count)[self.ranks.index * size :][:size]
        time = t.expand(n)[rows] if isinstance(t, Tensor) and t.ndim else t
        with torch.no_grad():
            return self._answer(part, time, None if condition is None else condition[rows]).contiguous()

    def _answer(self, x: Tensor, t: Time, condition: Tensor | None) -> Tensor:
        device = self.ranks.device
        return self.inner.denoise(x.to(device), t, None if condition is None else condition.to(device))


@contextmanager
def lead(denoiser: Denoiser, ranks: Ranks) -> Iterator[Denoiser | None]:
    """Inside, the first rank has the denoiser to ask; the others answer for it, and then have None.

    with lead(denoiser, ranks) as asked:
        if asked is not None:
            recipe, result = tune(asked, data)
    """
    if ranks.count == 1:
        yield denoiser if ranks.device.type == "cpu" else Spread(denoiser, ranks)
        return
    spread = Spread(denoiser, ranks)
    if not ranks.first:
        spread.serve()
        yield None
        return
    try:
        yield spread
    finally:
        ranks.agree(None)


def _tracked(*values: object) -> bool:
    return torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in values)


def _padded(n: int, wanted: int) -> Tensor:
    """`0, ..., n - 1`, and then `n - 1` again until there are `wanted`."""
    return torch.arange(wanted).clamp(max=n - 1)


def move(denoiser: Any, device: torch.device) -> None:
    """Move a denoiser's network: a module, or the one inside a denoiser that is none."""
    if isinstance(denoiser, nn.Module):
        denoiser.to(device)
    elif isinstance(getattr(denoiser, "network", None), nn.Module):
        denoiser.network.to(device)
    elif isinstance(getattr(denoiser, "inner", None), Denoiser):
        move(denoiser.inner, device)
