r"""Which noise belongs to which data: an encoder learned together with the flow, so that the generative paths become straight.

    min over encoder and flow of   E |z - x - v(x_t, t)|^2 / d + beta KL(q(z | x) || N(0, I)) / d,     z ~ q(. | x), x_t = (1 - t) x + t z.

The flow-matching loss bounds the bending of the paths, and the divergence keeps the encoder's aggregate at the prior that sampling starts
from. In `FlowMatching` the velocity is `(x_t - D)/t` whatever the coupling, so the flow is an ordinary denoiser of that process and every
sampler runs it. The divergence is of each sample's own posterior, which is stronger than matching the aggregate: a large `beta` forces
independence. Source: Lee et al. 2023 (arXiv 2301.12003), eqs. 9-12.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError
from sfumato.learn.training.settings import FitSettings
from sfumato.noise import FlowMatching


class GaussianEncoder(nn.Module):
    """`q(z | x) = N(m(x), diag(s(x)^2))`, mean and log-deviation from one network; it starts as the prior, whatever `x`.

    Arguments:
        event_shape: of the data.
        width, depth: of the perceptron.
        seed: of its first weights.
    """

    def __init__(self, event_shape: tuple[int, ...], width: int = 64, depth: int = 2, seed: int = 0) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.network = ResidualMLP((2 * math.prod(self.event_shape),), width, depth, seed=seed)

    def forward(self, x: Float[Tensor, "batch *event"]) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, "batch *event"]]:
        """`m(x)` and `log s(x)`."""
        flat = x.flatten(1)
        mean, log_std = self.network(torch.cat([flat, flat], 1), flat.new_zeros(len(x))).chunk(2, 1)
        return mean.reshape(x.shape), log_std.reshape(x.shape)

    def encode(self, x: Float[Tensor, "batch *event"], noise: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """`m(x) + s(x) noise`."""
        mean, log_std = self(x)
        return mean + log_std.exp() * noise


@dataclass(frozen=True)
class CouplingCosts:
    """Both terms of the objective, per number and example: `(n,)`."""

    matching: Float[Tensor, "n"]
    divergence: Float[Tensor, "n"]


def coupling_costs(
    denoiser: Preconditioned,
    encoder: GaussianEncoder | None,
    clean: Float[Tensor, "n *event"],
    t: Float[Tensor, "n"],
    noise: Float[Tensor, "n *event"],
) -> CouplingCosts:
    """`|z - x - v|^2 / d` and `KL / d` for each example; without an encoder `z` is the noise.

    Arguments:
        denoiser: of the process `FlowMatching()`.
        t: times in (0, 1], float64.

    Raises:
        ArgumentError: a denoiser of another process.
    """
    if denoiser.process != FlowMatching():
        raise ArgumentError("denoiser.process", denoiser.process, "FlowMatching(), the straight paths")
    code, divergence = noise, torch.zeros(len(clean), dtype=clean.dtype, device=clean.device)
    if encoder is not None:
        mean, log_std = encoder(clean)
        code = mean + log_std.exp() * noise
        divergence = (0.5 * (mean**2 + torch.exp(2 * log_std) - 1) - log_std).flatten(1).mean(1)
    noisy = denoiser.process.sample(clean, t, code)
    # z - x = (x_t - x)/t and v = (x_t - D)/t
    error = (denoiser(noisy, t) - clean).flatten(1) / t.to(clean)[:, None]
    return CouplingCosts(error.square().mean(1), divergence)


def fit_coupling(
    denoiser: Preconditioned,
    encoder: GaussianEncoder | None,
    data: Float[Tensor, "n *event"],
    settings: FitSettings,
    beta: float = 1.0,
) -> Float[Tensor, " steps"]:
    """Train flow and encoder together, in place, by Adam; the losses. Without an encoder: flow matching of the independent coupling.

    Arguments:
        data: in the parameters' dtype.
        settings: steps, batch, rate and its schedule, clipping and seed; weights are not averaged.
        beta: of the divergence, in units of a dimension; 0 lets the aggregate go where it likes.

    Raises:
        ArgumentError: a negative `beta`, or a denoiser of another process.
    """
    if not 0 <= beta < math.inf:
        raise ArgumentError("beta", beta, "a finite weight of at least 0")
    parameters = [*denoiser.parameters(), *(encoder.parameters() if encoder is not None else ())]
    optimizer, generator = torch.optim.Adam(parameters, settings.learning_rate), torch.Generator().manual_seed(settings.seed)
    losses = []
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        clean = data[torch.randint(len(data), (settings.batch_size,), generator=generator)]
        u = 1 - torch.rand(settings.batch_size, generator=generator, dtype=torch.float64)
        t = (torch.arange(settings.batch_size) + u) / settings.batch_size
        costs = coupling_costs(denoiser, encoder, clean, t, torch.randn(clean.shape, generator=generator, dtype=clean.dtype))
        loss = (costs.matching + beta * costs.divergence).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    return torch.tensor(losses, dtype=torch.float64)
