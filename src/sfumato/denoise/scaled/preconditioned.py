r"""A network made a denoiser: what it sees and what it has to say are scaled to unit variance at every noise level.

For data of mean `mu` and covariance `Sigma` under `x_t = alpha x_0 + sigma eps`, with `y = x - alpha mu` and `T = alpha^2 Sigma + sigma^2`,

    D(x, t) = mu + c_skip y + c_out F(c_in y, c_noise, condition)
    c_skip = alpha Sigma T^-1,    c_out = sigma Sigma^(1/2) T^(-1/2),    c_in = T^(-1/2),    c_noise = log(sigma / alpha) / 4.

Then the network's input `c_in y` and the target `c_out^-1 (x_0 - mu - c_skip y)` both have the identity as covariance at every `t`, and
`F = 0` is the best linear denoiser of the data, whatever their law (the exact posterior mean if they are Gaussian). With
`Sigma = sigma_data^2 I`, `mu = 0` and `alpha = 1` these are the scalings of Karras et al. 2022 (arXiv 2206.00364, table 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.denoise.scaled.scalings import Isotropic, Scalings
from sfumato.denoiser import Denoiser
from sfumato.errors import ShapeError
from sfumato.noise.process import Time, over_events
from sfumato.noise.scalars.scalar import ScalarProcess

LOG_RATIO_BOUND = 10.0
"""`c_noise` is `log(sigma/alpha)/4` with the logarithm held within this bound: what a network is told at the ends, where it diverges."""


def noise_label(alpha: Tensor, sigma: Tensor) -> Tensor:
    """`c_noise = clamp(log(sigma / alpha), -10, 10) / 4`, one of them may be 0."""
    return torch.log(sigma / alpha).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND) / 4


class Preconditioned(nn.Module, Denoiser):
    """The denoiser `mu + c_skip y + c_out F(c_in y, c_noise, condition)` of the module's head.

    All coefficients are finite at both ends: at `alpha = 0` the network sees `x / sigma` and its output is scaled by `Sigma^(1/2)`; at
    `sigma = 0` the answer is `x / alpha`, whatever the network says.

    Arguments:
        network: `F(x, c_noise, condition) -> (batch, *event)` with `c_noise` `(batch,)` and `condition` passed through unread.
        process: the process whose noisy data the denoiser sees.
        scalings: the data's mean and covariance; a number stands for `Isotropic(sigma_data)`.
    """

    def __init__(self, network: nn.Module, process: ScalarProcess, scalings: Scalings | float = 0.5) -> None:
        super().__init__()
        self.network, self.process = network, process
        self.scalings = scalings if isinstance(scalings, Scalings) else Isotropic(scalings)

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """The shape of one event, if the network has one."""
        shape = getattr(self.network, "event_shape", None)
        return None if shape is None else tuple(shape)

    @property
    def classes(self) -> int | None:
        """The number of classes that the network can be conditioned on, or None."""
        return getattr(self.network, "classes", None)

    def forward(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        """`denoise`, in the form that wrappers of modules (mixed precision, several devices) expect."""
        return self.denoise(x, t, condition)

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        if self.event_shape is not None and tuple(x.shape[1:]) != self.event_shape:
            raise ShapeError("x", tuple(x.shape), f"a batch of events of shape {self.event_shape}")
        alpha, sigma = (c.to(x.device) for c in self.process.levels(t))
        label = noise_label(alpha, sigma).to(x.dtype).expand(x.shape[0])
        mean = self.scalings.mean_like(x)
        # a gain per example and mode serves once and has no differences in it: it need not be finer than what it multiplies;
        # columns, against rows of variances: () or (batch, 1) against (modes,)
        precise = torch.promote_types(x.dtype, torch.float32)
        a, s, variances = (c.to(precise) for c in (alpha[..., None], sigma[..., None], self.scalings.spectrum_like(x)))
        centred = x - over_events(a.squeeze(-1), x) * mean
        c_in = torch.addcmul(s * s, a * a, variances).rsqrt()
        modes = self.scalings.project(centred)
        said = self.network(self.scalings.combine((c_in, centred, modes)), label, condition)
        if said.shape != x.shape:
            raise ShapeError("network", tuple(said.shape), f"an answer of the shape of its input, {tuple(x.shape)}")
        said = said.to(x.dtype)
        share = variances.sqrt() * c_in
        c_skip, c_out = a * share.square(), s * share
        return mean + self.scalings.combine((c_skip, centred, modes), (c_out, said, self.scalings.project(said)))
