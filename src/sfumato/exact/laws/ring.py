r"""A noisy ring on the plane: uniform on a circle of radius `R`, plus Gaussian noise of standard deviation `w`.

With `v = w^2`, `r = |x|`, `a = R r / v` and `m = I_1(a) / I_0(a)`, the mean direction of the ring's point given `x`,

    p(x)     = exp(-(r^2 + R^2) / 2v) I_0(a) / (2 pi v)
    score    = (R m x/r - x) / v
    div score = (R^2 (1 - m^2) / v - 2) / v.

A scalar process makes a ring of radius `alpha R` and width `sqrt(alpha^2 w^2 + sigma^2)` of it. Bessel functions are exponentially scaled
(`I_0` itself overflows beyond 700), and `m / a` has its series at `a = 0`, so that all derivatives exist at the centre too.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.laws.law import LOG_TWO_PI
from sfumato.noise import ScalarProcess, Time, over_events
from sfumato.seeds import Noise, Seed, noise

_SERIES = (0.5, -1 / 16, 1 / 96, -11 / 6144, 19 / 61440, -473 / 8847360)
"""`I_1(a) / (a I_0(a))` in powers of `a^2`."""
_SMALL = 1e-3


def _gain(q: Tensor) -> Tensor:
    """`I_1(a) / (a I_0(a))` at `q = a^2`, smooth at 0."""
    small = q < _SMALL
    a = torch.sqrt(torch.where(small, 1.0, q))
    near = torch.where(small, q, 0.0)
    series = torch.zeros_like(q)
    for coefficient in reversed(_SERIES):
        series = series * near + coefficient
    return torch.where(small, series, torch.special.i1e(a) / (a * torch.special.i0e(a)))


class Ring:
    """The law of the module's head; events are `(2,)`.

    Arguments:
        radius: `R > 0`.
        width: `w >= 0`; a ring without width has no density.

    Raises:
        ArgumentError: a radius or width that is none.
    """

    event_shape = (2,)

    def __init__(self, radius: float, width: float) -> None:
        if not (0 < radius < math.inf and 0 <= width < math.inf):
            raise ArgumentError("radius, width", (radius, width), "a positive radius and a width of at least 0")
        self.radius, self.width = float(radius), float(width)

    def through(self, process: ScalarProcess, t: float) -> Ring:
        """The law of `x_t`, again a ring.

        Raises:
            ArgumentError: a time at which no signal is left.
        """
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        if alpha == 0:
            raise ArgumentError("t", t, "a time at which there is signal left", "Pure noise is no ring.")
        return Ring(alpha * self.radius, math.hypot(alpha * self.width, sigma))

    def sample(self, n: int, seed: Seed, *, first: int = 0) -> Float[Tensor, " n 2"]:
        """`n` samples in float64; sample `i` is a function of the seed and `i` (see `sfumato.seeds`)."""
        draws = noise(seed, n, (2,), first=first, dtype=torch.float64)
        # the angle of draw 1 is uniform
        angle = Noise(draws.keys, (2,), torch.float64).draw(1)
        return self.radius * angle / angle.norm(dim=1, keepdim=True) + self.width * draws.draw(0)

    def log_prob(self, x: Float[Tensor, " batch 2"]) -> Float[Tensor, " batch"]:
        """`log p(x)` in nats.

        Raises:
            ArgumentError: a ring without width.
        """
        v = self._variance()
        r = x.norm(dim=1)
        return torch.log(torch.special.i0e(self.radius * r / v)) - (r - self.radius) ** 2 / (2 * v) - LOG_TWO_PI - math.log(v)

    def score(self, x: Float[Tensor, " batch 2"]) -> Float[Tensor, " batch 2"]:
        """`grad log p(x)`.

        Raises:
            ArgumentError: a ring without width.
        """
        v = self._variance()
        return (self.radius**2 / v * _gain(self._argument(x, v))[:, None] - 1) * x / v

    def score_divergence(self, x: Float[Tensor, " batch 2"]) -> Float[Tensor, " batch"]:
        """The Laplacian of `log p`.

        Raises:
            ArgumentError: a ring without width.
        """
        v = self._variance()
        q = self._argument(x, v)
        return (self.radius**2 * (1 - q * _gain(q) ** 2) / v - 2) / v

    def posterior_mean(self, x: Float[Tensor, " batch *event"], process: ScalarProcess, t: Time) -> Float[Tensor, " batch *event"]:
        """`E[x_0 | x_t = x]`: with `W = alpha^2 w^2 + sigma^2` and `c = E[point on the circle]`, `c + (alpha w^2 / W) (x - alpha c)`.

        Raises:
            ShapeError: `x` is not on the plane.
            ArgumentError: a ring without width where there is no noise.
        """
        if x.ndim != 2 or x.shape[1] != 2:
            raise ShapeError("x", tuple(x.shape), "(batch, 2)")
        alpha, sigma = process.levels(t)
        spread = (alpha * self.width) ** 2 + sigma**2
        if bool((spread == 0).any()):
            raise ArgumentError("t", t, "a noisy time", "A ring without width has no posterior off the circle.")
        per_radius = over_events(alpha * self.radius / spread, x)
        centre = self.radius * per_radius * _gain((per_radius * x).square().sum(1))[:, None] * x
        return centre + over_events(alpha * self.width**2 / spread, x) * (x - over_events(alpha, x) * centre)

    def denoiser(self, process: ScalarProcess) -> RingDenoiser:
        """The exact denoiser."""
        return RingDenoiser(self, process)

    def _argument(self, x: Tensor, v: float) -> Tensor:
        return (x * (self.radius / v)).square().sum(1)

    def _variance(self) -> float:
        if self.width == 0:
            raise ArgumentError("width", 0.0, "a positive width", "A ring without width has no density.")
        return self.width**2


class RingDenoiser(Denoiser):
    """`E[x_0 | x_t]` of a ring."""

    def __init__(self, law: Ring, process: ScalarProcess) -> None:
        self.law, self.process = law, process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            raise ArgumentError("condition", tuple(condition.shape), "none")
        return self.law.posterior_mean(x, self.process, t)
