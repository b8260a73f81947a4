r"""Flexible diffusions with a learned metric `R` and symplectic form `W`.

    dx = -beta/2 (R + W) x dt + sqrt(beta R) dw,        W = q - q^T,    tr R = d,

keep `N(0, I)` for all of them. The trace is held, or learning `R` would only speed up the clock. Source: Du et al. 2023 (arXiv
2206.10365), with constant matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.errors import ArgumentError
from sfumato.noise import LinearSDE, flexible, flexible_spectrum

Kind = Literal["drift", "noise", "full", "diagonal", "spectrum"]
"""`R = I` and a learned `W`; a learned dense `R` and `W = 0`; both; a diagonal `R`; an `R` that is diagonal in cosines."""


class LearnedFlexible(nn.Module):
    """A process with learned `R` and `W`; at first `R = I`, and `W` is random or 0.

    Arguments:
        shape: of the events.
        kind: what is learned.
        rank: `q = A B^T` with so many columns; None for any `q`.
        first, last: the speed of the clock at `t = 0` and 1.
        seed: of the first `W`.

    Raises:
        ArgumentError: an unknown kind, a rank below 1.
    """

    def __init__(
        self, shape: Sequence[int], kind: Kind = "full", rank: int | None = None, *, first: float = 0.1, last: float = 20.0, seed: int = 0
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind) or (rank is not None and rank < 1):
            raise ArgumentError("kind, rank", (kind, rank), f"one of {', '.join(get_args(Kind))}, and a rank of at least 1")
        self.shape, self.kind, self.clock = tuple(shape), kind, (first, last)
        self.size = math.prod(self.shape)
        generator = torch.Generator().manual_seed(seed)
        turned, shaped = kind in ("drift", "full"), kind in ("noise", "full")
        columns = 0 if not turned else self.size if rank is None else rank
        self.a = nn.Parameter(torch.randn(self.size, columns, dtype=torch.float64, generator=generator), requires_grad=turned)
        self.b = nn.Parameter(torch.randn(self.size, columns, dtype=torch.float64, generator=generator), requires_grad=turned)
        self.root = nn.Parameter(torch.eye(self.size if shaped else 0, dtype=torch.float64), requires_grad=shaped)
        rates = self.size if kind in ("diagonal", "spectrum") else 0
        self.rates = nn.Parameter(torch.zeros(rates, dtype=torch.float64), requires_grad=rates > 0)

    def matrices(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
        """`(R, W)`; for "spectrum" in the basis of cosines."""
        eye = torch.eye(self.size, dtype=torch.float64)
        metric = eye
        if self.kind in ("noise", "full"):
            metric = self.root @ self.root.T + 1e-3 * eye
        elif self.kind in ("diagonal", "spectrum"):
            metric = torch.diag(self.rates.exp())
        q = self.a @ self.b.T
        return metric * (self.size / metric.trace()), (q - q.T) / math.sqrt(self.size)

    def process(self) -> LinearSDE:
        """The process, differentiable in what is learned; dense but for "spectrum"."""
        metric, rotation = self.matrices()
        if self.kind == "spectrum":
            return flexible_spectrum(metric.diagonal().reshape(self.shape), *self.clock)
        return flexible(metric, rotation, self.shape, *self.clock)
