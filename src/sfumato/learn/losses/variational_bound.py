r"""The variational bound on the log-likelihood, in discrete and in continuous time, term by term.

    -log p(x_0) <= KL(q(x_1 | x_0) || prior) + sum_i KL(q(x_s | x_t, x_0) || p(x_s | x_t)) + E[-log p(x_0 | x_first)]

with the reverse steps of `sfumato.sample.steps.reverse_chain`. With ever more steps the sum becomes, for every choice of variances between
its bounds, the integral over half the log-SNR

    int E |eps - eps_hat|^2 d lambda = E_{lambda ~ p} |eps - eps_hat|^2 / p(lambda),

and for the exact denoiser the bound is tight up to the prior. The estimate subtracts `share (|eps|^2 - d)`, of mean zero, where at little
noise `eps_hat` is small and the error is nearly `|eps|^2`. Sources: Ho et al. 2020 (arXiv 2006.11239), eq. 5; Kingma et al. 2021 (arXiv
2107.00630), eqs. 11-15.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.learn.losses.likelihood_times import DensityTimes
from sfumato.metrics import Estimate
from sfumato.noise import over_events
from sfumato.sample.steps.reverse_chain import ReverseChain

Decoder = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(x_0, D, log_variance) -> -log p(x_0 | x_first)` per number, in nats; the log-variance broadcasts."""


@dataclass(frozen=True)
class VariationalBound:
    """The bound's terms per sample, in nats: `prior + diffusion + reconstruction` is at least `-log p` on average.

    Arguments:
        prior, diffusion, reconstruction: `(batch,)`, float64.
        standard_error: of their sum, from the draws of times and noise; NaN for a single draw.
        dim: numbers per sample.
    """

    prior: Float[Tensor, " batch"]
    diffusion: Float[Tensor, " batch"]
    reconstruction: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    dim: int

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """The bound on `-log p(x_0)`."""
        return self.prior + self.diffusion + self.reconstruction

    @property
    def bits_per_dimension(self) -> Float[Tensor, " batch"]:
        """`total / (d log 2)`."""
        return self.total / (self.dim * math.log(2))

    def mean_bits_per_dimension(self) -> Estimate:
        """The mean over these samples; its standard error is that of the draws, the samples being given."""
        error = float(self.standard_error.square().sum().sqrt()) / len(self.total)
        return Estimate(float(self.bits_per_dimension.mean()), error / (self.dim * math.log(2)))


def gaussian_decoder(x0: Tensor, said: Tensor, log_variance: Tensor) -> Tensor:
    """`-log N(x_0; D, v)`: for data that are densities."""
    return 0.5 * (math.log(2 * math.pi) + log_variance + (x0 - said) ** 2 * torch.exp(-log_variance))


@dataclass(frozen=True)
class LevelDecoder:
    """`-log` of the mass that `N(D, v)` has in the level's cell; the first and the last level's cells are open (Ho et al. 2020, eq. 13).

    Arguments:
        low, high: the first and the last level.
        width: how far apart levels stand.
    """

    low: float = -1.0
    high: float = 1.0
    width: float = 2 / 255

    def __call__(self, x0: Tensor, said: Tensor, log_variance: Tensor) -> Tensor:
        precision = torch.exp(-log_variance / 2)
        up = torch.where(x0 > self.high - self.width / 2, math.inf, (x0 + self.width / 2 - said) * precision)
        down = torch.where(x0 < self.low + self.width / 2, -math.inf, (x0 - self.width / 2 - said) * precision)
        # the mass is that of the mirrored cell, and in the lower tail logarithms of the normal's mass keep their digits
        flip = down > 0
        top, bottom = torch.where(flip, -down, up), torch.where(flip, -up, down)
        upper, lower = torch.special.log_ndtr(top), torch.special.log_ndtr(bottom)
        return -(upper + torch.log(-torch.expm1((lower - upper).clamp(max=-torch.finfo(upper.dtype).tiny))))


def discrete_bound(
    denoiser: Denoiser,
    x0: Float[Tensor, " batch *event"],
    chain: ReverseChain,
    share: Float[Tensor, " steps"],
    *,
    decoder: Decoder = gaussian_decoder,
    draws: int = 1,
    seed: int = 0,
    condition: Tensor | None = None,
) -> VariationalBound:
    """The bound of a chain with one variance a step; every step is evaluated, `draws` times.

    Arguments:
        denoiser: its process must be the chain's, or it is asked `under` it.
        x0: clean data.
        chain, share: the steps, and where between its bounds the logarithm of each step's variance lies.
        decoder: of the last step.

    Raises:
        ArgumentError: not one share a step, no draws.
    """
    if share.shape != (chain.steps,) or draws < 1:
        raise ArgumentError("share, draws", (tuple(share.shape), draws), f"one share a step, ({chain.steps},), and at least one draw")
    belief, dim, log_variance = denoiser.under(chain.process), x0[0].numel(), chain.log_variance(share.to(torch.float64))
    generator = torch.Generator(x0.device).manual_seed(seed)
    diffusion, reconstruction = torch.zeros(2, draws, len(x0), dtype=torch.float64, device=x0.device)
    with torch.no_grad():
        for i, t in enumerate(chain.times[:-1]):
            step, level = torch.tensor([i]), log_variance[i : i + 1].to(x0.device)
            for k in range(draws):
                eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
                said = belief.denoise(chain.process.sample(x0, t, eps), t, condition)
                if i + 1 < chain.steps:
                    error = (x0 - said).to(torch.float64).square().flatten(1)
                    diffusion[k] += chain.divergence(error, level[:, None], step).sum(1)
                else:
                    reconstruction[k] = decoder(x0.to(torch.float64), said.to(torch.float64), level).flatten(1).sum(1)
    alpha, sigma = chain.process.levels(chain.times[0])
    prior = _to_prior(x0, float(alpha), float(sigma), chain.process.prior_std)
    return VariationalBound(prior, diffusion.mean(0), reconstruction.mean(0), _error(diffusion + reconstruction), dim)


def continuous_bound(
    denoiser: Denoiser,
    x0: Float[Tensor, " batch *event"],
    times: DensityTimes,
    *,
    draws: int = 64,
    seed: int = 0,
    condition: Tensor | None = None,
) -> VariationalBound:
    """The bound of infinitely many steps, between the ends of `times`, by importance sampling over the noise level.

    The prior is `N(0, sigma^2)` at the noisy end, the decoder `N(D, (sigma/alpha)^2)` at the clean one.

    Arguments:
        denoiser: whose bound it is.
        x0: clean data.
        times: from which law levels are drawn; each sample's draws are stratified if it says so.
        draws: evaluations of the denoiser per sample.

    Raises:
        ArgumentError: no draws, or a law that reaches beyond the process's end.
    """
    if draws < 1:
        raise ArgumentError("draws", draws, "at least one draw")
    process, dim = denoiser.process, x0[0].numel()
    generator = torch.Generator().manual_seed(seed)
    t = times.draw(process, draws, generator, len(x0)).T.to(x0.device)  # (draws, batch)
    density = times.cells(process)
    found = []
    with torch.no_grad():
        for each in t:
            eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
            alpha, sigma = process.levels(each)
            said = denoiser.denoise(process.sample(x0, each, eps), each, condition)
            error = over_events(alpha / sigma, x0) * (x0 - said)
            control = alpha**2 / (alpha**2 + sigma**2) * (_square(eps) - dim)
            found.append((_square(error) - control) / density.density(process.half_log_snr(each)))
        alpha, sigma = process.levels(process.time(times.high))
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
        ratio = sigma / alpha
        said = denoiser.denoise(float(alpha) * x0 + float(sigma) * eps, process.time(times.high), condition)
        log_variance = 2 * ratio.log()
        # the error is nearly k eps, of which the mean square is known
        spread = 0.5 * (_square((x0 - said) / float(ratio)) - _square(eps))
    entropy = 0.5 * dim * (math.log(2 * math.pi) + 1 + float(log_variance))
    values = torch.stack(found)
    prior = 0.5 * math.exp(2 * times.low) * _square(x0)
    return VariationalBound(prior, values.mean(0), spread + entropy, _error(values), dim)


def _square(v: Tensor) -> Tensor:
    return v.to(torch.float64).square().flatten(1).sum(1)


def _to_prior(x0: Tensor, alpha: float, sigma: float, std: float) -> Tensor:
    """`KL(N(alpha x_0, sigma^2) || N(0, std^2))` per sample."""
    ratio = (sigma / std) ** 2
    return 0.5 * ((alpha / std) ** 2 * _square(x0) + x0[0].numel() * (ratio - 1 - math.log(ratio)))


def _error(values: Tensor) -> Tensor:
    """The standard error of the mean over draws `(draws, batch)`. Stratified draws scatter less than it says."""
    return values.std(0) / math.sqrt(len(values)) if len(values) > 1 else torch.full_like(values[0], math.nan)
