r"""Training a mixture of reverse steps: the published bound, which forgets its latent, and one that does not.

With `l_k = log N(x_s; mu(x_t, eta_k), v I)` and `K` latents a pair,

    "mean"      -1/K sum_k l_k               an upper bound of -log p by Jensen: a weighted squared error, and as published
    "mixture"   -log 1/K sum_k exp(l_k)      a tighter one, tight as K grows (Burda et al. 2016, arXiv 1509.00519); ours for this model

The least of a squared error over functions of `(x_t, eta)` is the conditional mean, which does not depend on `eta`: the first bound's
optimum is one Gaussian. Source: Li et al. 2023 (arXiv 2309.14068), eq. 13.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.data import check_finite
from sfumato.denoise.networks.soft_mixture import SoftKernel
from sfumato.errors import ArgumentError
from sfumato.learn.training.settings import FitSettings

Bound = Literal["mixture", "mean"]
"""See the module."""


def soft_kernel_loss(
    kernel: SoftKernel,
    noisy: Float[Tensor, "batch *event"],
    less_noisy: Float[Tensor, "batch *event"],
    step: int,
    generator: torch.Generator,
    *,
    latents: int = 8,
    bound: Bound = "mixture",
) -> Float[Tensor, "batch"]:
    """The bound of `-log p(x_s | x_t)` per pair, in nats.

    Raises:
        ArgumentError: another bound, or no latents.
    """
    if bound not in get_args(Bound) or latents < 1:
        raise ArgumentError("bound, latents", (bound, latents), f"one of {', '.join(get_args(Bound))}, and at least one")
    n, dim = len(noisy), noisy[0].numel()
    eta = torch.randn(latents * n, kernel.network.latent, generator=generator, dtype=noisy.dtype, device=noisy.device)
    mean = kernel.mean(noisy.repeat(latents, *[1] * (noisy.ndim - 1)), step, eta)
    square = (mean.reshape(latents, *less_noisy.shape) - less_noisy).square().flatten(2).sum(2)
    spread = kernel.log_variance[step]
    each = -0.5 * (square * torch.exp(-spread) + dim * (spread + math.log(2 * math.pi)))
    return -each.mean(0) if bound == "mean" else math.log(latents) - torch.logsumexp(each, 0)


def fit_soft_mixture(
    kernel: SoftKernel, data: Float[Tensor, "n *event"], settings: FitSettings, *, latents: int = 8, bound: Bound = "mixture"
) -> Float[Tensor, "steps"]:
    """Train in place with Adam, one random reverse step of all at a time; the losses, in nats.

    Arguments:
        kernel: of events as the data's.
        data: clean.
        settings: steps, batch size, rate and its schedule, clip and seed are used; no average is kept.
        latents, bound: see `soft_kernel_loss`.

    Raises:
        DataError: NaN or infinite data.
        ArgumentError: a loss that is no longer finite; another bound.
    """
    check_finite(data, "data")
    generator, process = torch.Generator().manual_seed(settings.seed), kernel.process
    optimizer, losses = torch.optim.Adam(kernel.parameters()), []
    for number in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(number)
        step = int(torch.randint(len(kernel.times) - 1, (), generator=generator))
        clean = data[torch.randint(len(data), (settings.batch_size,), generator=generator)]
        eps, more = (torch.randn(clean.shape, generator=generator, dtype=clean.dtype) for _ in range(2))
        less_noisy = process.sample(clean, kernel.times[step + 1], eps)
        jump = process.transition(kernel.times[step + 1], kernel.times[step])
        noisy = float(jump.phi) * less_noisy + float(jump.covariance) ** 0.5 * more
        loss = soft_kernel_loss(kernel, noisy, less_noisy, step, generator, latents=latents, bound=bound).mean()
        if not bool(torch.isfinite(loss)):
            raise ArgumentError("loss", float(loss), f"a finite number at step {number}", "Lower the learning rate.")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(kernel.parameters(), settings.clip)
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)
