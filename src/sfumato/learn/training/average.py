r"""The exponential moving average of a network's weights: what sampling uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sfumato.errors import ArgumentError


class Average:
    r"""`e <- e + (1 - d_i)(p - e)` after step `i = 0, 1, ...`, with `d_i = min(decay, (1 + i)/(10 + i))`.

    The smaller decay of the first steps makes it forget the random start: after `i` steps it looks back over about `i / 9` of them.

    Arguments:
        module: whose parameters are averaged; the average starts at a copy of them.
        decay: the decay of a long run, in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ArgumentError("decay", decay, "a decay in [0, 1)")
        self.decay = decay
        self.tensors = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, parameters: Sequence[Tensor], step: int) -> None:
        """Take in the module's parameters, in its order, after step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.tensors.values()), list(parameters), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Put the average into the module's parameters."""
        for name, p in module.named_parameters():
            p.copy_(self.tensors[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module computes with the average inside, and with its own parameters again after."""
        own = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.copy_to(module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in module.named_parameters():
                    p.copy_(own[name])
