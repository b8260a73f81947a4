r"""Exact log-likelihoods: the flow's change of volume.

In the angle and the coordinates of `adaptive_ode`, along `dz/dtheta = (cos(theta) z - D) / sin(theta)`,

    log p_t(x) = log p_s(x_s) + d log (r_s / r_t) + int_{theta_t}^{theta_s} (d cos(theta) - r tr dD/dx) / sin(theta) dtheta,

with `r = sqrt(alpha^2 + sigma^2)`: from data at a small `t` to noise at `s = 1`. The trace is exact (a derivative per dimension), or
estimated without bias by `v^T (dD/dx) v` with random signs or normal `v`, one set of probes per sample for the whole way (Skilling 1989;
Hutchinson 1990). Every probe has an integral of its own, so several give independent estimates of one sample's log-density: their mean, and
its standard error. Source: Song et al. 2021 (arXiv 2011.13456), eqs. 39-40; the angle is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.metrics import Estimate
from sfumato.noise import Time, over_events
from sfumato.sample.continuous.adaptive_ode import Angle, check_ends, solve
from sfumato.seeds import Seed, noise

Divergence = Literal["exact", "rademacher", "gaussian"]
"""How the trace is found: all of it, or by probes of random signs or of normal numbers."""

Terminal = Callable[[Tensor], Tensor]
"""`x (batch, *event) -> log p (batch,)` at the noisy end."""


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihoods, and what the flow made of the data.

    Arguments:
        log_prob: in nats, float64.
        standard_error: of `log_prob`, from the spread of the probes: 0 with the exact divergence, NaN for a single probe.
        code: where the flow ends, at `t = 1`.
        evaluations: of the denoiser with its derivatives, per sample.
        converged: whether the solve reached its end.
    """

    log_prob: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    code: Float[Tensor, " batch *event"]
    evaluations: Int[Tensor, " batch"]
    converged: Bool[Tensor, " batch"]

    def bits_per_dimension(self, bin_width: float = 1.0) -> Float[Tensor, " batch"]:
        """`-log2 p / d` of integer data that were dequantised by uniform noise and scaled so that a level has this width.

        Raises:
            ArgumentError: a width that is not positive.
        """
        if not bin_width > 0:
            raise ArgumentError("bin_width", bin_width, "a positive width")
        return -self.log_prob / (self.code[0].numel() * math.log(2)) - math.log2(bin_width)

    def mean_bits_per_dimension(self, bin_width: float = 1.0) -> Estimate:
        """The mean of `bits_per_dimension` over these samples; its standard error is that of the probes alone, the samples being given."""
        error = float(self.standard_error.square().sum().sqrt()) / len(self.log_prob)
        return Estimate(float(self.bits_per_dimension(bin_width).mean()), error / (self.code[0].numel() * math.log(2)))


def log_likelihood(
    denoiser: Denoiser,
    x: Float[Tensor, " batch *event"],
    t: float = 1e-3,
    *,
    condition: Tensor | None = None,
    divergence: Divergence = "exact",
    probes: int = 1,
    seed: Seed = 0,
    tolerance: float = 1e-5,
    terminal: Terminal | None = None,
) -> Likelihood:
    """`log p_t(x)` by the flow from `t` to 1.

    Arguments:
        denoiser: differentiable, and taking one time per sample.
        x: at time `t`, `(batch, *event)`; clean data are such up to the noise of `t`.
        t: in (0, 1).
        divergence: see `Divergence`; "exact" costs a derivative per dimension.
        probes, seed: of the estimates.
        tolerance: of the solve, per step, on states and log-density alike.
        terminal: the log-density at `t = 1`; by default the process's prior.

    Raises:
        ArgumentError: an unknown divergence, no probes, or a time or a tolerance out of range.

    Example:
        >>> import torch
        >>> from sfumato.exact import Gaussian, SpectralCovariance
        >>> from sfumato.noise import VariancePreserving
        >>> from sfumato.sample import log_likelihood
        >>> law = Gaussian(torch.zeros(2, dtype=torch.float64), SpectralCovariance.isotropic(2, 0.5))
        >>> x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
        >>> process, t = VariancePreserving(), 0.01
        >>> found = log_likelihood(law.denoiser(process), x, t).log_prob
        >>> print(f"{found.item():.4f} {law.through(process, t).log_prob(x).item():.4f}")
        -1.2764 -1.2765
    """
    if divergence not in get_args(Divergence) or probes < 1:
        raise ArgumentError("divergence, probes", (divergence, probes), f"one of {', '.join(get_args(Divergence))}, and at least one probe")
    check_ends(t, 1.0)
    angle, dim = Angle(denoiser.process), x[0].numel()
    vectors = _vectors(x, divergence, probes, seed)

    def rate(theta: Tensor, y: Tensor) -> Tensor:
        z, time = y[:, :dim], angle.time(theta)
        size = torch.hypot(*denoiser.process.levels(time))
        answer, traces = _traced(denoiser, (over_events(size, z) * z).reshape(x.shape), time, vectors, condition)
        slope = over_events(torch.cos(theta), z) * z - answer.flatten(1)
        volume = dim * torch.cos(theta)[:, None] - size[:, None] * (traces.mean(1, keepdim=True) if divergence == "exact" else traces)
        return torch.cat([slope, volume.to(z.dtype)], 1) / over_events(torch.sin(theta), z)

    estimates = 1 if divergence == "exact" else probes
    start = torch.cat([x.flatten(1) / angle.size(t), x.new_zeros(len(x), estimates)], 1)
    solved = solve(rate, start, angle.of(t), angle.of(1.0), tolerance)
    code = angle.size(1.0) * solved.end[:, :dim].reshape(x.shape)
    last = _prior(denoiser.process.prior_std, code) if terminal is None else terminal(code).to(torch.float64)
    growth = solved.end[:, dim:].to(torch.float64)
    # a single probe does not tell how far it is off
    error = torch.zeros_like(last) if divergence == "exact" else growth.std(1) / math.sqrt(probes) if probes > 1 else torch.nan * last
    log_prob = last + growth.mean(1) + dim * math.log(angle.size(1.0) / angle.size(t))
    return Likelihood(log_prob, error, code, solved.evaluations, solved.converged)


def divergence_of(
    denoiser: Denoiser, x: Float[Tensor, " batch *event"], t: Time, condition: Tensor | None = None
) -> Float[Tensor, " batch"]:
    """`tr dD/dx` at `x_t = x`, exactly: a derivative per dimension. A view `a D + b x` has the divergence `a tr dD/dx + b d`."""
    return _traced(denoiser, x, t, _vectors(x, "exact", 1, 0), condition)[1].mean(1)


def _prior(std: float, x: Tensor) -> Tensor:
    flat = x.flatten(1).to(torch.float64) / std
    return -0.5 * flat.square().sum(1) - flat.shape[1] * (math.log(std) + 0.5 * math.log(2 * math.pi))


def _vectors(x: Tensor, divergence: Divergence, probes: int, seed: Seed) -> Tensor:
    """`(columns, batch, *event)` with `mean v v^T = I`, or of that mean."""
    if divergence == "exact":
        dim = x[0].numel()
        units = math.sqrt(dim) * torch.eye(dim, dtype=x.dtype, device=x.device)
        return units.reshape(dim, 1, *x.shape[1:]).expand(dim, *x.shape)
    normal = noise(seed, len(x), (probes, *x.shape[1:]), dtype=x.dtype, device=x.device).draw(0).transpose(0, 1)
    return torch.sign(normal) if divergence == "rademacher" else normal


def _traced(denoiser: Denoiser, x: Tensor, t: Time, vectors: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
    """The answer, and `v^T (dD/dx) v` for every column, `(batch, columns)` float64."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        said = denoiser.denoise(x, t, condition)
        traces = []
        for v in vectors:
            (pulled,) = torch.autograd.grad(said, x, v, retain_graph=True)
            traces.append((pulled * v).flatten(1).sum(1).to(torch.float64))
    return said.detach(), torch.stack(traces, 1)
