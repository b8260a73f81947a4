r"""Restorers of degraded data, `R(D(x, s), s) = x` as well as can be: what cold diffusion samples with.

In closed form, one ridge regression a level, `argmin_R E |R(D(x, s)) - x|^2 + ridge |R|^2` over affine maps; or a network, by descent on

    E_s E_x mean |R(D(x, s), s) - x|,

whose minimiser is the conditional *median* of each element, where the square's would be its mean.

Source: Bansal et al. 2022 (arXiv 2208.09392), section 3.1.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoise import Network
from sfumato.errors import ArgumentError, ShapeError
from sfumato.learn.training.descent import descend, pick_rows
from sfumato.learn.training.settings import FitSettings
from sfumato.noise.general.degradation import Degradation, check_level


class RidgeRestorer:
    """The best affine restorer of every level.

    Arguments:
        degrade: the degradation.
        data: clean data `(n, *event)`.
        ridge: of the squared weights, the constant's among them, against the mean square error; positive.
    """

    def __init__(self, degrade: Degradation, data: Float[Tensor, "n *event"], ridge: int | float = 1e-4) -> None:
        if not 0 < ridge < math.inf:
            raise ArgumentError("ridge", ridge, "a positive number")
        clean, self.levels = data.to(torch.float64).flatten(1), degrade.levels
        self.event_shape = tuple(data.shape[1:])
        self._maps = [self._fit(_with_one(degrade(data, s).to(torch.float64).flatten(1)), clean, ridge) for s in range(1, self.levels + 1)]

    @staticmethod
    def _fit(seen: Tensor, clean: Tensor, ridge: int | float) -> Tensor:
        gram = seen.T @ seen / len(seen) + ridge * torch.eye(seen.shape[1], dtype=seen.dtype)
        return torch.cholesky_solve(seen.T @ clean / len(seen), torch.linalg.cholesky(gram))

    def __call__(self, x: Float[Tensor, "batch *event"], level: int) -> Float[Tensor, "batch *event"]:
        """Clean data of data at a level from 1 on."""
        if tuple(x.shape[1:]) != self.event_shape:
            raise ShapeError("x", tuple(x.shape), f"events of shape {self.event_shape}")
        if not 1 <= level <= self.levels:
            raise ArgumentError("level", level, f"a level from 1 to {self.levels}")
        return (_with_one(x.flatten(1)) @ self._maps[level - 1].to(x.dtype)).reshape(x.shape)


def _with_one(flat: Tensor) -> Tensor:
    return torch.cat([flat, flat.new_ones(len(flat), 1)], 1)


class NetworkRestorer(nn.Module):
    """`R(x, s) = x + F(x, c(s))`, with the levels spread over the span of noise features that networks resolve.

    Arguments:
        network: `F`; one that starts at zero makes `R` start at the identity.
        degrade: the degradation.
    """

    def __init__(self, network: Network, degrade: Degradation) -> None:
        super().__init__()
        self.network, self.degrade = network, degrade

    def forward(self, x: Float[Tensor, "batch *event"], level: int | Tensor) -> Float[Tensor, "batch *event"]:
        """Clean data; `level` is one for all, or one per sample."""
        share = torch.as_tensor(level, dtype=x.dtype) / self.degrade.levels
        return x + self.network(x, (5 * share - 2.5).expand(len(x)))


def fit_restorer(restorer: NetworkRestorer, data: Float[Tensor, "n *event"], settings: FitSettings) -> Tensor:
    """Train a restorer in place by the mean absolute error; its losses `(steps,)`.

    Each batch has a level of its own, drawn evenly, so that the degradation is asked once.

    Raises:
        ArgumentError: a loss that is not finite.
    """
    degrade = restorer.degrade
    check_level(degrade, 1)

    def loss(generator: torch.Generator) -> Tensor:
        clean = data[pick_rows(len(data), settings.batch_size, generator)]
        level = int(torch.randint(1, degrade.levels + 1, (), generator=generator))
        return (restorer(degrade(clean, level), level) - clean).abs().mean()

    return descend(restorer, loss, settings)
