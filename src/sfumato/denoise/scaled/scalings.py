r"""What a preconditioner knows of the data before any training: their mean and the variances of their modes."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError

Term = tuple[Tensor, Tensor, Tensor]
"""Gains `(modes,)` or `(batch, modes)`, events `x`, and `project(x)`: stands for the operator with these gains, applied to `x`."""


class Scalings(ABC):
    """A mean `mu` and a covariance `Sigma` with positive eigenvalues, whose eigenvectors events can be written in.

    Immutable; it follows the dtype and device of what it is applied to.
    """

    kind: ClassVar[str]

    @abstractmethod
    def mean_like(self, x: Float[Tensor, "batch *event"]) -> Tensor:
        """The mean, in `x`'s dtype and on its device; it broadcasts against `x`."""

    @abstractmethod
    def spectrum_like(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " modes"]:
        """The eigenvalues of `Sigma`, float64, on `x`'s device."""

    @abstractmethod
    def project(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch rank"]:
        """The coefficients of `x` along the eigenvectors that are kept."""

    @abstractmethod
    def combine(self, *terms: Term) -> Float[Tensor, "batch *event"]:
        """The sum of the terms."""

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Plain data that says what `tensors` are, with the `kind`."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved next to the plain data."""


class Isotropic(Scalings):
    """`Sigma = sigma_data^2 I` and a constant mean: the scalings of Karras et al. 2022 (arXiv 2206.00364, table 1) where the mean is 0.

    Arguments:
        sigma_data: the data's standard deviation about the mean.
        mean: one number for every coordinate.

    Raises:
        ArgumentError: a `sigma_data` or a mean that float32 cannot compute with: a variance outside (1e-36, 1e36), a mean beyond 1e36.
    """

    kind = "isotropic"

    def __init__(self, sigma_data: float = 0.5, mean: float = 0.0) -> None:
        if not 1e-18 < sigma_data < 1e18:
            raise ArgumentError("sigma_data", sigma_data, "a positive standard deviation in (1e-18, 1e18)")
        if not abs(mean) < 1e36:
            raise ArgumentError("mean", mean, "a finite number below 1e36", "A mean per coordinate goes with `GaussianScalings`.")
        self.sigma_data, self.mean = float(sigma_data), float(mean)

    def mean_like(self, x: Float[Tensor, "batch *event"]) -> Tensor:
        return torch.full((), self.mean, dtype=x.dtype, device=x.device)

    def spectrum_like(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " modes"]:
        return torch.full((1,), self.sigma_data**2, dtype=torch.float64, device=x.device)

    def project(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch rank"]:
        return x.flatten(1)[:, :0]

    def combine(self, *terms: Term) -> Float[Tensor, "batch *event"]:
        return functools.reduce(torch.add, (gains.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) * x for gains, x, _ in terms))

    def to_config(self) -> dict[str, Any]:
        return {"kind": self.kind, "sigma_data": self.sigma_data, "mean": self.mean}

    def tensors(self) -> dict[str, Tensor]:
        return {}
