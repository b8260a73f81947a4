r"""The probability flow with an adaptive step size: an encoder, a decoder, and the way to exact likelihoods.

With the angle `theta = atan2(sigma, alpha)` and `z = x / sqrt(alpha^2 + sigma^2)` every scalar process has the same flow,

    dz / dtheta = (cos(theta) z - D) / sin(theta),

finite up to `alpha = 0` (`theta = pi/2`) and nearly straight where the noise is small. It is solved by the embedded pair of orders 5 and
4 of Dormand & Prince 1980 (doi 10.1016/0771-050X(80)90013-3), with a step size per sample, so that no sample depends on its batch.
Source: Song et al. 2021 (arXiv 2011.13456), section 4.3 and appendix D; the angle is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess, as_time, over_events

Rate = Callable[[Tensor, Tensor], Tensor]
"""`(u (batch,), y (batch, n)) -> dy/du (batch, n)`; rows do not mix."""

_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_DEFECT = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0


@dataclass(frozen=True)
class Solved:
    """Where an adaptive solve ended.

    Arguments:
        end: `(batch, ...)`.
        evaluations: of the rate, per sample.
        converged: whether the sample reached the end within the allowed attempts.
    """

    end: Float[Tensor, " batch *event"]
    evaluations: Int[Tensor, " batch"]
    converged: Bool[Tensor, " batch"]


def solve(
    rate: Rate,
    y: Float[Tensor, "batch n"],
    start: float,
    end: float,
    tolerance: float = 1e-5,
    max_attempts: int = 1000,
) -> Solved:
    """Integrate from `start` to `end`, rows by steps of their own; the error of a step is within `tolerance (1 + |y|)` in every coordinate.

    Raises:
        ArgumentError: a tolerance below rounding or not below 1, or equal ends.
    """
    if not 50 * torch.finfo(y.dtype).eps <= tolerance < 1:
        raise ArgumentError("tolerance", tolerance, f"a tolerance in [{50 * torch.finfo(y.dtype).eps:.2g}, 1)", "Use float64 for less.")
    if start == end or max_attempts < 1:
        raise ArgumentError("start, end, max_attempts", (start, end, max_attempts), "two different ends, and at least one attempt")
    u = torch.full((len(y),), float(start), dtype=torch.float64, device=y.device)
    h = (end - u) / 100
    used = torch.ones(len(y), dtype=torch.long, device=y.device)
    first = rate(u, y)
    for _ in range(max_attempts):
        active = (u != end) & torch.isfinite(h) & (u + h != u)
        if not bool(active.any()):
            break
        h = torch.where(active, h, 0.0)
        stages = _stages(rate, y, u, h, first)
        new = y + _mix(h, _STAGES[6], stages)
        defect = _mix(h, _DEFECT, stages)
        scale = tolerance * (1 + torch.maximum(y.abs(), new.abs()))
        # the largest, for a mean would hide a log-density among many coordinates
        error = (defect / scale).abs().amax(1).to(torch.float64)
        good = (error <= 1) & active
        used += 6 * active
        left = end - u
        u = torch.where(good, torch.where(h.abs() >= left.abs(), end, u + h), u)
        y, first = torch.where(good[:, None], new, y), torch.where(good[:, None], stages[-1], first)
        h = h * torch.where(error == 0, _GROW, _SAFETY * error**-0.2).clamp(_SHRINK, _GROW)
        h = torch.where(h.abs() > (end - u).abs(), end - u, h)
    return Solved(y, used, u == end)


def _stages(rate: Rate, y: Tensor, u: Tensor, h: Tensor, first: Tensor) -> list[Tensor]:
    stages = [first]
    for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
        stages.append(rate(u + node * h, y + _mix(h, weights, stages)))
    return stages


def _mix(h: Tensor, weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    total = sum((w * k for w, k in zip(weights[1:], stages[1:], strict=False) if w), weights[0] * stages[0])
    return over_events(h, total) * total


@dataclass(frozen=True)
class Angle:
    """A process by its angle `theta`: the levels `sin`, `cos` and the time that belong to it."""

    process: ScalarProcess

    def of(self, t: float) -> float:
        """`theta` at a time."""
        return float(torch.atan2(*reversed(self.process.levels(t))))

    def size(self, t: float) -> float:
        """`sqrt(alpha^2 + sigma^2)`."""
        return float(torch.hypot(*self.process.levels(t)))

    def time(self, theta: Tensor) -> Tensor:
        """The times of angles in `(0, pi/2]`."""
        # the tangent of the last angle may round above the last ratio
        return self.process.time_of_ratio(torch.tan(theta).clamp(max=float(self.process.ratio(1.0))))


def check_ends(t: float, s: float) -> None:
    """Both strictly above 0, where the flow's slope is 0/0.

    Raises:
        ArgumentError: they are not, or are equal.
    """
    if not float(as_time(min(t, s))) > 0 or t == s:
        raise ArgumentError("t, s", (t, s), "two different times in (0, 1]", "Stop above 0 and ask the denoiser there for the clean data.")
    as_time(max(t, s))


def flow(
    denoiser: Denoiser,
    x: Float[Tensor, " batch *event"],
    t: float,
    s: float,
    *,
    condition: Tensor | None = None,
    tolerance: float = 1e-5,
    max_attempts: int = 1000,
) -> Solved:
    """The probability flow from `x` at `t` to `s`: towards noise it encodes, towards data it decodes, and each undoes the other.

    Arguments:
        denoiser: must take one time per sample.
        x: `(batch, *event)`.
        t, s: in (0, 1], in either order.
        tolerance: absolute and relative, on `z`, per step.
        max_attempts: after so many steps a sample is reported as not converged.

    Raises:
        ArgumentError: times that are equal or 0, or a tolerance that the dtype cannot meet.

    Example:
        >>> import torch
        >>> from sfumato.exact import Gaussian, SpectralCovariance
        >>> from sfumato.noise import VariancePreserving
        >>> from sfumato.sample import flow
        >>> law = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.25))
        >>> denoiser, x = law.denoiser(VariancePreserving()), torch.ones(1, 1, dtype=torch.float64)
        >>> noise = flow(denoiser, x, 1e-3, 1.0).end  # twice the deviation, so about 2
        >>> print(f"{noise.item():.3f}, and back {flow(denoiser, noise, 1.0, 1e-3).end.item():.3f}")
        2.000, and back 1.000
    """
    check_ends(t, s)
    angle = Angle(denoiser.process)

    def rate(theta: Tensor, z: Tensor) -> Tensor:
        time = angle.time(theta)
        size = torch.hypot(*denoiser.process.levels(time))
        answer = denoiser.denoise((over_events(size, z) * z).reshape(x.shape), time, condition).flatten(1)
        return (over_events(torch.cos(theta), z) * z - answer) / over_events(torch.sin(theta), z)

    with torch.no_grad():
        solved = solve(rate, x.flatten(1) / angle.size(t), angle.of(t), angle.of(s), tolerance, max_attempts)
    return Solved(angle.size(s) * solved.end.reshape(x.shape), solved.evaluations, solved.converged)
