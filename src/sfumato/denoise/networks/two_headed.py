r"""One network, two answers: the clean data, and how far the reverse chain's variances lie between their bounds.

The network has twice the channels of the event. It sees the scaled noisy data twice and answers `(F, h)`, from which

    D = c_skip x + c_out F,        u = (h + 1) / 2,

with the scalings of `Preconditioned` for data of mean 0 and variance `sigma_data^2`. Source: Nichol & Dhariwal 2021 (arXiv 2102.09672),
section 3.1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoise.scaled.preconditioned import noise_label
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.process import Time, over_events
from sfumato.noise.scalars.scalar import ScalarProcess


class TwoHeaded(nn.Module, Denoiser):
    """A denoiser that also says its variances, see the module; as a `Denoiser` it gives the clean data alone.

    Arguments:
        network: `F(x, c_noise, condition)` on events of twice as many channels (the first axis of an event).
        process: whose noisy data it sees.
        sigma_data: the data's standard deviation.
    """

    def __init__(self, network: nn.Module, process: ScalarProcess, sigma_data: float = 0.5) -> None:
        super().__init__()
        if not sigma_data > 0:
            raise ArgumentError("sigma_data", sigma_data, "a positive standard deviation")
        self.network, self.process, self.sigma_data = network, process, sigma_data

    def forward(
        self, x: Float[Tensor, "batch *event"], t: Time, condition: Tensor | None = None
    ) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, "batch *event"]]:
        """`(D, u)`, each shaped as `x`."""
        alpha, sigma = (c.to(x.device) for c in self.process.levels(t))
        c_in = torch.rsqrt((alpha * self.sigma_data) ** 2 + sigma**2)
        label = noise_label(alpha, sigma).to(x.dtype).expand(len(x))
        seen = over_events(c_in, x) * x
        said = self.network(torch.cat([seen, seen], 1), label, condition)
        if said.shape != (len(x), 2 * x.shape[1], *x.shape[2:]):
            raise ShapeError("network", tuple(said.shape), f"an answer with twice the channels of {tuple(x.shape)}")
        f, h = said.chunk(2, 1)
        skip, out = alpha * (self.sigma_data * c_in) ** 2, sigma * self.sigma_data * c_in
        return over_events(skip, x) * x + over_events(out, x) * f, (h + 1) / 2

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        answer: Tensor = self(x, t, condition)[0]
        return answer
