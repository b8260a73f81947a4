"""What every noising process offers: draw noisy data, know its prior, be written down.

The everyday case is `ScalarProcess` (`x_t = alpha_t x_0 + sigma_t eps`). Other members of the linear SDE family
`dx = (F(t) x + c(t)) dt + G(t) dw` answer the same questions with operators in place of scalars, and processes on other spaces
answer `sample` and `prior_sample` alone; code that needs no more than these two methods serves them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError

Time = float | Tensor
"""A time in [0, 1], or a tensor of them: a scalar, or one per sample `(batch,)`. 0 is clean, 1 is noisy."""


def as_time(t: Time, name: str = "t") -> Tensor:
    """`t` as a float64 tensor, checked to lie in [0, 1].

    Raises:
        ArgumentError: a time outside [0, 1] or NaN.
    """
    out = t.to(torch.float64) if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)
    if not all(0 <= float(end) <= 1 for end in (torch.aminmax(out.detach()) if out.numel() else ())):
        raise ArgumentError(name, t, "times in [0, 1]", "0 is clean data, 1 is the process's noisy end.")
    return out


def over_events(coefficient: Tensor, x: Tensor) -> Tensor:
    """A float64 coefficient, scalar or `(batch,)`, cast to `x`'s dtype and shaped to multiply `x` `(batch, *event)`.

    Raises:
        ShapeError: the coefficient is neither a scalar nor one value per sample.
    """
    c = coefficient.to(device=x.device, dtype=x.dtype)
    if c.ndim == 0:
        return c
    if c.ndim != 1 or c.shape[0] not in (1, x.shape[0]):
        raise ShapeError("t", tuple(c.shape), f"a scalar or one time per sample ({x.shape[0]},)")
    return c.reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True)
class Affine:
    """The law `x_t | x_s ~ N(phi x_s + shift, covariance)` of a linear SDE between two times.

    For a scalar process all three are float64 scalars (or `(batch,)`), acting on every coordinate alike.
    """

    phi: Tensor
    shift: Tensor
    covariance: Tensor


class Process(ABC):
    """A Markov noising process, from clean data at `t = 0` to the prior at `t = 1`."""

    @abstractmethod
    def sample(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """Noisy data `x_t` `(batch, *event)`, given clean `x0`, times `t` and standard `noise` of the same shape."""

    @abstractmethod
    def prior_sample(self, noise: Tensor) -> Tensor:
        """A draw of the law that sampling starts from at `t = 1`, made of standard `noise`."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `sfumato.noise.process_from_dict` makes the same process."""
