r"""Multivariate diffusions whose matrices are learned.

    du = -beta (D + W) S^{-1} u dt + sqrt(2 beta D) dw,       W = q - q^T,       D = d d^T or diag(softplus(d) + 1e-3),

keep `N(0, S)` for all `q` and `d`, so that the likelihood bound may choose them. Without a constraint it would only speed up the clock:
`|D|^2 + |W|^2` is held at `size^2`. Source: Singhal et al. 2023 (arXiv 2302.07261).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from sfumato.errors import ArgumentError
from sfumato.noise import LinearSDE, mdm, mdm_two_clocks

Dissipation = Literal["full", "diagonal"]
"""`D = d d^T`, or a diagonal of positive rates."""


class LearnedMDM(nn.Module):
    """A process with learned `D` and `W` and, from `process()`, the member of the family that they are now.

    Arguments:
        channels: `K`, the data and `K - 1` auxiliary channels.
        dissipation: how `D` is parametrised.
        size: `sqrt(|D|^2 + |W|^2)`, Frobenius norms.
        first, last: the speed of the clock at `t = 0` and 1.
        turn: the first and last speed of a clock that `W` has for itself (the transition is then integrated on a grid); None for the same.
        spread: the variance of the auxiliary channels at the start.
        seed: of the first `q` and `d`.

    Raises:
        ArgumentError: no channel, an unknown parametrisation, a size that is not positive.
    """

    def __init__(
        self,
        channels: int = 2,
        dissipation: Dissipation = "full",
        size: float = 2.0,
        *,
        first: float = 0.1,
        last: float = 10.0,
        turn: Sequence[float] | None = None,
        spread: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if channels < 1 or dissipation not in get_args(Dissipation) or not 0 < size < float("inf"):
            given = channels, dissipation, size
            raise ArgumentError("channels, dissipation, size", given, "at least 1 channel, full or diagonal, a positive size")
        generator = torch.Generator().manual_seed(seed)
        shape = (channels, channels) if dissipation == "full" else (channels,)
        self.q = nn.Parameter(torch.randn(channels, channels, dtype=torch.float64, generator=generator))
        self.d = nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=generator))
        self.size, self.clock, self.turn, self.spread = size, (first, last), turn, spread

    def matrices(self) -> tuple[Float[Tensor, "K K"], Float[Tensor, "K K"]]:
        """`(D, W)`."""
        dissipation = self.d @ self.d.T if self.d.ndim == 2 else torch.diag(softplus(self.d) + 1e-3)
        rotation = self.q - self.q.T
        scale = self.size / torch.sqrt(dissipation.square().sum() + rotation.square().sum())
        return scale * dissipation, scale * rotation

    def process(self) -> LinearSDE:
        """The process, differentiable in `q` and `d`; `N(0, I)` is stationary."""
        dissipation, rotation = self.matrices()
        if self.turn is not None:
            return mdm_two_clocks(dissipation, rotation, self.clock, self.turn, self.spread)
        return mdm(dissipation, rotation, None, *self.clock, self.spread)
