r"""A belief with a network's amendment: what turns a denoiser into a student without losing what it knew.

    D(x, t) = D_base(x, t) + c_out F(c_in x, c_noise, condition),        c_out = sigma s c_in,    c_in = (alpha^2 s^2 + sigma^2)^(-1/2),

with the scalings of Karras et al. 2022 (arXiv 2206.00364, table 1) for data of standard deviation `s`. A network that ends in zeros leaves
the base as it is, and `c_out = 0` at `sigma = 0` keeps the boundary condition `D(x, 0) = D_base(x, 0)` of consistency models.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sfumato.denoise.scaled.preconditioned import noise_label
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise.process import Time, over_events


class Amended(nn.Module, Denoiser):
    """The denoiser of the module's head; only the network is trained.

    Arguments:
        base: the belief to amend; its own parameters, if any, are not registered here.
        network: `F(x, c_noise, condition) -> (batch, *event)`.
        sigma_data: the data's standard deviation `s`.

    Raises:
        ArgumentError: a standard deviation that is not positive.
    """

    def __init__(self, base: Denoiser, network: nn.Module, sigma_data: int | float = 1.0) -> None:
        if not 0 < sigma_data < math.inf:
            raise ArgumentError("sigma_data", sigma_data, "a positive standard deviation")
        super().__init__()
        # in a tuple, so that a base which is a module is not taken for a part of the student
        self._base, self.network, self.process, self.sigma_data = (base,), network, base.process, float(sigma_data)

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        alpha, sigma = (c.to(x.device) for c in self.process.levels(t))
        label = noise_label(alpha, sigma).to(x.dtype).expand(x.shape[0])
        c_in = torch.rsqrt(alpha**2 * self.sigma_data**2 + sigma**2)
        said = self.network(over_events(c_in, x) * x, label, condition).to(x.dtype)
        return self._base[0].denoise(x, t, condition) + over_events(sigma * self.sigma_data * c_in, x) * said
