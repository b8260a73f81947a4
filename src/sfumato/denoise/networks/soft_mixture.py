r"""A reverse step that is a continuous mixture of Gaussians: a latent draw bends the network, and chooses where the step goes.

    p(x_s | x_t) = int p(eta) N(x_s; mu(x_t, eta), v_s I) d eta,        mu = posterior mean of x_s given x_t and x_0 = D(x_t, t, eta),
    D(x, t, eta) = network whose hidden layers are scaled and shifted by f(z, t),  z = g(eta, x, t),  eta ~ N(0, I).

`f` starts at 0, so that at first all `eta` agree. The variance is one number a step, learned, and means the width *within* a mode. Source:
Li et al. 2023 (arXiv 2309.14068), section 4; the feature-wise scales and shifts are one choice of the published hyper-network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from sfumato.denoise.networks.network import NoiseFeatures, seeded, zeroed
from sfumato.denoise.scaled.preconditioned import noise_label
from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.scalars.scalar import ScalarProcess


class FeatureMixture(nn.Module):
    """`D(x, c_noise, eta)`: a perceptron whose hidden layers a latent scales and shifts.

    Arguments:
        event_shape: the shape of one event.
        width, depth: of the hidden layers.
        latent: the dimension of `eta`.
        seed: of the initial weights.

    Raises:
        ArgumentError: sizes that are not positive.
    """

    def __init__(self, event_shape: tuple[int, ...], width: int = 64, depth: int = 2, latent: int = 4, seed: int = 0) -> None:
        super().__init__()
        if min(width, depth, latent, *event_shape) < 1:
            raise ArgumentError("event_shape, width, depth, latent", (event_shape, width, depth, latent), "sizes of at least 1")
        self.event_shape, self.latent, self.depth = tuple(event_shape), latent, depth
        size = math.prod(event_shape)
        with seeded(seed):
            self.features = NoiseFeatures()
            self.first = nn.Linear(size + self.features.size, width)
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
            self.last = nn.Linear(width, size)
            self.code = nn.Sequential(nn.Linear(latent + size + self.features.size, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
            self.bend = zeroed(nn.Linear(width, 2 * depth * width))

    def forward(
        self, x: Float[Tensor, "batch *event"], c_noise: Float[Tensor, "batch"], eta: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, "batch *event"]:
        """The clean data that this `eta` stands for."""
        seen = torch.cat([x.flatten(1), self.features(c_noise)], 1)
        scales, shifts = self.bend(self.code(torch.cat([eta, seen], 1))).chunk(2, 1)
        h = silu(self.first(seen))
        for layer, scale, shift in zip(self.layers, scales.chunk(self.depth, 1), shifts.chunk(self.depth, 1), strict=True):
            h = silu((1 + scale) * layer(h) + shift)
        return self.last(h).reshape(x.shape)


class SoftKernel(nn.Module):
    """The reverse steps over fixed times, with a learned variance each.

    Arguments:
        network: `D(x, c_noise, eta)`.
        process: whose steps they are.
        times: falling, in [0, 1], with noise at all but the last.

    Raises:
        ArgumentError: times that do not fall in [0, 1].
    """

    def __init__(self, network: FeatureMixture, process: ScalarProcess, times: Sequence[float]) -> None:
        super().__init__()
        if len(times) < 2 or any(a <= b for a, b in pairwise(times)) or not 0 <= times[-1] < times[0] <= 1:
            raise ArgumentError("times", list(times), "at least two times in [0, 1] that fall")
        self.network, self.process, self.times = network, process, tuple(times)
        nodes = torch.tensor(self.times, dtype=torch.float64)
        (alpha, sigma), step = process.levels(nodes), process.transition(nodes[1:], nodes[:-1])
        keep = step.phi * sigma[1:] ** 2 / sigma[:-1] ** 2
        tables = {"keep": keep, "pull": alpha[1:] - keep * alpha[:-1], "label": noise_label(alpha, sigma)[:-1]}
        for name, value in tables.items():
            self.register_buffer(name, value.to(torch.float32), persistent=False)
        self.keep: Tensor
        self.pull: Tensor
        self.label: Tensor
        self.log_variance = nn.Parameter(torch.log(step.covariance * sigma[1:] ** 2 / sigma[:-1] ** 2 + 1e-2).to(torch.float32))

    def mean(self, x: Float[Tensor, "batch *event"], step: int, eta: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch *event"]:
        """`mu(x_t, eta)` of step number `step`."""
        if not 0 <= step < len(self.times) - 1 or x.shape[1:] != self.network.event_shape:
            raise ShapeError("x, step", (tuple(x.shape), step), f"events {self.network.event_shape}, a step below {len(self.times) - 1}")
        said = self.network(x, self.label[step].to(x.dtype).expand(len(x)), eta)
        return self.keep[step].to(x.dtype) * x + self.pull[step].to(x.dtype) * said

    @torch.no_grad()
    def sample(self, start: Float[Tensor, "batch *event"], generator: torch.Generator) -> Float[Tensor, "batch *event"]:
        """Carry states from the first time to the last: one call a step, with a latent of its own."""
        x = start
        for step in range(len(self.times) - 1):
            eta = torch.randn(len(x), self.network.latent, generator=generator, dtype=x.dtype, device=x.device)
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = self.mean(x, step, eta) + torch.exp(0.5 * self.log_variance[step]).to(x.dtype) * noise
        return x
