r"""Brownian paths that remember where they have been seen.

Between two known points a path is a Brownian bridge, beyond the last one it moves on freely:

    W(u) | W(a), W(b) ~ N(W(a) + (u - a)/(b - a) (W(b) - W(a)), (u - a)(b - u)/(b - a) I),        a < u < b.

So an adaptive solver that rejects a step and asks for a shorter one stays on the path it was on, and any number of steps may follow one
path. A fresh draw after a rejection would make rare noise rarer: steps with small noise are accepted more often.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import over_events
from sfumato.sample.steps.step import Stream


class BrownianPath:
    """One path per sample, `W(0) = 0`; every question uses one draw of the stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        keys, event = stream.noise.keys, stream.noise.event
        self._at = torch.zeros(len(keys), 1, dtype=torch.float64, device=stream.noise.device)
        self._value = torch.zeros(len(keys), 1, *event, dtype=stream.noise.dtype, device=stream.noise.device)

    def __call__(self, u: float | Float[Tensor, " batch"]) -> Float[Tensor, " batch *event"]:
        """`W(u)`, with one time per sample or one for all; remembered.

        Raises:
            ArgumentError: a time before the first that is remembered, or not finite.
        """
        when = torch.as_tensor(u, dtype=torch.float64, device=self._at.device).expand(len(self._at)).contiguous()
        if not bool((torch.isfinite(when) & (when >= self._at[:, 0])).all()):
            raise ArgumentError("u", u, "finite times, none before the first that is remembered")
        rows = torch.arange(len(when), device=when.device)
        low = torch.searchsorted(self._at, when[:, None], right=True)[:, 0] - 1
        high = (low + 1).clamp(max=self._at.shape[1] - 1)
        a, b = self._at[rows, low], self._at[rows, high]
        bridged = (high > low) & torch.isfinite(b)
        share = torch.where(bridged, (when - a) / torch.where(bridged, b - a, 1.0), 0.0)
        spread = (when - a) * torch.where(bridged, 1 - share, 1.0)
        below = self._value[rows, low]
        out = below + over_events(share, below) * (self._value[rows, high] - below)
        out = out + over_events(torch.sqrt(spread), out) * self.stream.normal()
        self._insert(when, out)
        return out

    def forget(self, before: Float[Tensor, " batch"]) -> None:
        """Forget all but the last point at or before each sample's time."""
        gone = self._at[:, 1:] <= before[:, None]
        self._at[:, :-1].masked_fill_(gone, math.inf)
        self._sort()

    def _insert(self, when: Tensor, value: Tensor) -> None:
        # a point that is known already must not be kept twice
        known = (self._at == when[:, None]).any(1)
        self._at = torch.cat([self._at, torch.where(known, math.inf, when)[:, None]], 1)
        self._value = torch.cat([self._value, value[:, None]], 1)
        self._sort()

    def _sort(self) -> None:
        self._at, order = self._at.sort(1)
        depth = int(torch.isfinite(self._at).sum(1).max())
        self._at, order = self._at[:, :depth].contiguous(), order[:, :depth]
        rows = torch.arange(len(order), device=order.device)[:, None]
        self._value = self._value[rows, order]
