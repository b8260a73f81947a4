r"""The reverse SDE with an adaptive step size, a clock per sample and a Brownian path that survives rejections.

From `t` to `t - h` with the reverse drift `R(x, t) = F x - g^2 s(x, t)` and the path's increment `dW` over the step:

    K_1 = -h R(x, t) + g(t) dW,        K_2 = -h R(x + K_1, t - h) + g(t - h) dW,
    low = x + K_1,                     high = x + (K_1 + K_2) / 2,
    error = |(low - high) / max(absolute, relative max(|low|, |previous low|))|_2 / sqrt(d).

A step is accepted where `error <= 1`, and keeps the higher-order value; the next size is `min(t - end, safety h error^-exponent)`. Two
evaluations an attempt. Published with fresh noise after a rejection, which prefers small noise and biases the law in low dimensions
(`memory=False`); the path's memory is ours. Source: Jolicoeur-Martineau et al. 2021 (arXiv 2105.14080).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import over_events
from sfumato.sample.steps.brownian import BrownianPath
from sfumato.sample.steps.reverse_sde import reverse_drift
from sfumato.sample.steps.step import Stream

Norm = Literal["mean-square", "sum-square", "largest"]
"""How the errors of coordinates become one: `|.|_2 / sqrt(d)`, `|.|_2` or `|.|_inf`."""

_SMALLEST = 1e-12  # an error of 0 would make the next step infinite


@dataclass(frozen=True)
class Adaptive:
    """What the step size follows, with the paper's defaults for data in [-1, 1].

    Arguments:
        relative, absolute: tolerances.
        safety, exponent: of the size's rule.
        first: the first step.
        norm: of the errors.
        higher: keep the higher-order value ("extrapolation").
        previous: the state before, too, scales the relative tolerance.
        drift_error: compare the drifts of both ends alone (Lamba 2003).
        memory: stay on the Brownian path after a rejection; False draws anew, as published.
    """

    relative: float = 0.05
    absolute: float = 0.0078
    safety: float = 0.9
    exponent: float = 0.9
    first: float = 0.01
    norm: Norm = "mean-square"
    higher: bool = True
    previous: bool = True
    drift_error: bool = False
    memory: bool = True

    def __post_init__(self) -> None:
        if not (self.relative >= 0 and self.absolute >= 0 and 0 < self.relative + self.absolute < math.inf):
            raise ArgumentError("relative, absolute", (self.relative, self.absolute), "tolerances of at least 0, not both 0")
        if not (0 < self.safety < 1 and self.exponent > 0 and self.first > 0):
            given = (self.safety, self.exponent, self.first)
            raise ArgumentError("safety, exponent, first", given, "a safety in (0, 1), a positive exponent and a positive first step")
        if self.norm not in get_args(Norm):
            raise ArgumentError("norm", repr(self.norm), f"one of {', '.join(get_args(Norm))}")

    def error(self, difference: Tensor, low: Tensor, before: Tensor) -> Float[Tensor, " batch"]:
        """The scaled error of every sample, float64; above 1 it is rejected."""
        size = torch.maximum(low.abs(), before.abs()) if self.previous else low.abs()
        scaled = (difference / (self.relative * size).clamp(min=self.absolute)).flatten(1).to(torch.float64)
        if self.norm == "largest":
            return scaled.abs().amax(1)
        total = torch.linalg.vector_norm(scaled, dim=1)
        return total / math.sqrt(scaled.shape[1]) if self.norm == "mean-square" else total


@dataclass(frozen=True)
class AdaptiveSamples:
    """Samples, and what each of them cost.

    Arguments:
        samples: clean data.
        evaluations: of the denoiser, per sample, the last clean answer included.
        accepted, rejected: steps, per sample.
        converged: whether the sample reached its end within the allowed attempts; where not, it is denoised from where it stood.
    """

    samples: Float[Tensor, " batch *event"]
    evaluations: Int[Tensor, " batch"]
    accepted: Int[Tensor, " batch"]
    rejected: Int[Tensor, " batch"]
    converged: Bool[Tensor, " batch"]


def adaptive_sde(
    denoiser: Denoiser,
    x: Float[Tensor, " batch *event"],
    stream: Stream,
    settings: Adaptive | None = None,
    *,
    start: float = 1.0,
    end: float = 1e-3,
    max_attempts: int = 10_000,
) -> AdaptiveSamples:
    """Walk the reverse SDE from `x` at `start` to `end`, and ask for the clean data there.

    Arguments:
        denoiser: must take one time per sample.
        x: states at `start`.
        stream: the noise; sample `i` depends on its own draws alone.
        start, end: `0 < end < start <= 1`, with a finite reverse drift between them; `end` as published is 1e-3 for variance preserving
            and 1e-5 for exploding processes.
        max_attempts: after so many a sample is reported as not converged.

    Raises:
        ArgumentError: times out of order, or an infinite drift.
    """
    settings = Adaptive() if settings is None else settings
    if not 0 < end < start <= 1 or max_attempts < 1:
        raise ArgumentError("start, end, max_attempts", (start, end, max_attempts), "0 < end < start <= 1, and at least one attempt")
    t = torch.full((len(x),), float(start), dtype=torch.float64, device=x.device)
    h = torch.clamp(torch.full_like(t, settings.first), max=start - end)
    before, here, path = x, torch.zeros_like(x), BrownianPath(stream) if settings.memory else None
    accepted, rejected = (torch.zeros(len(x), dtype=torch.long, device=x.device) for _ in range(2))
    with torch.no_grad():
        for _ in range(max_attempts):
            active = (t > end) & (t - h < t)
            if not bool(active.any()):
                break
            h = torch.where(active, h, 0.0)
            s = torch.where(h >= t - end, end, t - h)
            there = None if path is None else path(start - s)
            moved = over_events(torch.sqrt(t - s), x) * stream.normal() if there is None else there - here
            low, high, difference = _pair(denoiser, x, t, s, h, moved, settings)
            error = settings.error(difference, low, before)
            good, bad = active & (error <= 1), active & ~(error <= 1)
            keep = good.reshape(-1, *[1] * (x.ndim - 1))
            x, before = torch.where(keep, high if settings.higher else low, x), torch.where(keep, low, before)
            t = torch.where(good, s, t)
            accepted, rejected = accepted + good, rejected + bad
            # a comparison with NaN is false, so that a sample whose error is NaN stops here
            h = torch.minimum(t - end, settings.safety * h * error.clamp(min=_SMALLEST) ** -settings.exponent)
            if path is not None and there is not None:
                here = torch.where(keep, there, here)
                path.forget(start - t)
        clean = denoiser.denoise(x, t)
    return AdaptiveSamples(clean, 2 * (accepted + rejected) + 1, accepted, rejected, t <= end)


def _pair(
    denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, h: Tensor, moved: Tensor, settings: Adaptive
) -> tuple[Tensor, Tensor, Tensor]:
    """Euler's state, the improved one, and the difference that is the error."""
    process = denoiser.process

    def drift(y: Tensor, u: Tensor) -> Tensor:
        a, b = reverse_drift(process, u)
        return over_events(-h * a, y) * y + over_events(-h * b, y) * denoiser.denoise(y, u)

    (here, there), first = (over_events(torch.sqrt(process.diffusion_squared(u)), x) * moved for u in (t, s)), drift(x, t)
    low = x + first + here
    second = drift(low, s)
    high = x + (first + here + second + there) / 2
    return low, high, (second - first) / 2 if settings.drift_error else high - low
