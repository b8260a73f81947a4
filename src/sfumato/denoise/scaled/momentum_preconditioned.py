r"""The scalings of the fast diffusion model: a known preconditioning whose network sees the state as momentum leaves it.

With `x = s (x_0 + k eps)` and `y = x/s`, `D = c_skip y + c_out F(s y, c_noise)`, so that `c_in = s(k)` and the network sees `x` itself:

    edm     c_skip = d^2/(k^2 + d^2),   c_out = k d/sqrt(k^2 + d^2),   c_noise = log(k)/4,        d the data's deviation
    vp      c_skip = 1,                 c_out = -k,                    c_noise = (M - 1) t
    ve      c_skip = 1,                 c_out = k,                     c_noise = log(k/2)

Unlike `c_in = 1/sqrt(k^2 + d^2)` this leaves the input's size as it is, `s sqrt(k^2 + d^2)`, which is far from 1 between the ends. Sources:
Wu et al. 2023 (arXiv 2306.06991); Karras et al. 2022 (arXiv 2206.00364), table 1.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sfumato.denoise.networks.network import Network
from sfumato.denoise.scaled.preconditioned import LOG_RATIO_BOUND
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import MomentumDecay, Time, as_time, over_events

Style = Literal["edm", "vp", "ve"]
"""Whose scalings, see the module."""


class MomentumPreconditioned(nn.Module, Denoiser):
    """The denoiser of the module's head; at `t = 0` it answers `x`.

    Arguments:
        network: `F`.
        process: of the states that it sees; for others use `under`.
        style: whose scalings.
        sigma_data: the data's standard deviation, for "edm".
        labels: `M`, for "vp".

    Raises:
        ArgumentError: an unknown style, a deviation that is not positive.
    """

    def __init__(self, network: Network, process: MomentumDecay, style: Style = "edm", sigma_data: float = 0.5, labels: int = 1000) -> None:
        super().__init__()
        if style not in get_args(Style) or not 0 < sigma_data < float("inf"):
            raise ArgumentError("style, sigma_data", (style, sigma_data), f"one of {', '.join(get_args(Style))}, and a positive deviation")
        self.network, self.process, self.style, self.sigma_data, self.labels = network, process, style, float(sigma_data), labels

    def coefficients(self, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """`(c_skip, c_out, c_noise)`, float64; the logarithm of `c_noise` is held within +-10."""
        k, d = self.process.ratio(t), self.sigma_data
        log = torch.log(k).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
        if self.style == "vp":
            return torch.ones_like(k), -k, (self.labels - 1) * as_time(t).to(k.device)
        if self.style == "ve":
            return torch.ones_like(k), k, log - 0.6931471805599453
        size = torch.sqrt(k**2 + d**2)
        return (d / size) ** 2, k * d / size, log / 4

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        skip, out, label = (c.to(x.device) for c in self.coefficients(t))
        said = self.network(x, label.to(x.dtype).expand(len(x)), condition)
        if said.shape != x.shape:
            raise ShapeError("network", tuple(said.shape), f"an answer of the shape of its input, {tuple(x.shape)}")
        scale = self.process.alpha(t).to(x.device)
        return over_events(skip / scale, x) * x + over_events(out, x) * said.to(x.dtype)
