r"""Drift-diffusion between absorbing bounds: `dx = v dt + s dW` on `(a, b)`, `L = b - a`, stopped where it first leaves.

With `phi_n(y) = sin(n pi (y - a) / L)` and rates `r_n = n^2 pi^2 s^2 / 2 L^2`,

    p(x, t | x_0) = (2/L) e^{v (x - x_0)/s^2 - v^2 t/2 s^2} sum_n phi_n(x_0) phi_n(x) e^{-r_n t}
    g_a(t | x_0)  = (pi s^2/L^2) e^{v (a - x_0)/s^2 - v^2 t/2 s^2} sum_n n phi_n(x_0) e^{-r_n t},

`p` the density of those still inside, `g_a` that of the time of leaving at `a` (at `b`: mirrored, with `-v`). Given that the path leaves
at a bound at time `T`, its law at `t` is `p(x, t | x_0) g(T - t | x) / g(T | x_0)`, in which `v` cancels.

Source: Cox & Miller 1965, The Theory of Stochastic Processes, section 5.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError

_NEGLIGIBLE = 45.0
"""Terms with `r_n t` above this are below 1e-19 of the first."""
_SHORT = 0.3
"""Below this share of the squared width the noise has seen few reflections: the sum over images has all digits where the series cancels."""
_LOST = 1e-9
"""Least share of its terms that a sum may come out as: below it the digits have cancelled."""


@dataclass(frozen=True)
class DriftDiffusion:
    """The process of the module's head.

    Arguments:
        drift: `v`.
        noise: `s > 0`; the diffusion constant is `D = s^2 / 2`.
        lower, upper: the bounds.

    Raises:
        ArgumentError: noise or bounds that are none.
    """

    drift: float
    noise: float
    lower: float = -1.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.noise < math.inf and self.lower < self.upper):
            raise ArgumentError("noise, lower, upper", (self.noise, self.lower, self.upper), "positive noise, and lower < upper")

    def density(self, x: Float[Tensor, "n"], t: float, start: float) -> Float[Tensor, "n"]:
        """`p(x, t | x_0 = start)` of the paths still inside.

        Raises:
            ArgumentError: a start that is not inside, or a time that is not positive.
        """
        n = self._modes(t)
        terms = self._start(n, start)[:, None] * self._waves(n, x) * torch.exp(-self._rates(n) * t)[:, None]
        tilt = self.drift * (x - start) / self.noise**2 - self.drift**2 * t / (2 * self.noise**2)
        inside = (x > self.lower) & (x < self.upper)
        return torch.where(inside, 2 / self._length * torch.exp(tilt) * terms.sum(0), 0.0)

    def first_passage(self, t: float, start: float, *, upper: bool = False) -> float:
        """The density `g(t | x_0 = start)` of leaving at time `t` through the lower bound, or the upper one.

        Raises:
            ArgumentError: a start that is not inside, or a time that is not positive.
        """
        if upper:
            return self._mirrored().first_passage(t, -start)
        n = self._modes(t)
        waves = n * self._start(n, start)
        variance, gap = self.noise**2, start - self.lower
        tilt = math.exp(-self.drift * gap / variance - self.drift**2 * t / (2 * variance))
        if variance * t < _SHORT * self._length**2:
            away = gap + 2 * self._length * torch.arange(-2, 3, dtype=torch.float64)
            total = float((away * torch.exp(-(away**2) / (2 * variance * t))).sum())
            return tilt * total / math.sqrt(2 * math.pi * variance * t**3)
        return tilt * math.pi * variance / self._length**2 * float((waves * torch.exp(-self._rates(n) * t)).sum())

    def conditioned_mean(self, times: Float[Tensor, "n"], start: float, end: float, *, upper: bool = False) -> Float[Tensor, "n"]:
        """The mean of `x_t` at times in `(0, end)`, given that the path first leaves at time `end`, through the lower bound or the upper.

        Raises:
            ArgumentError: a start that is not inside, times outside `(0, end)`, or an `end` so short that the series cancels.
        """
        if upper:
            return -self._mirrored().conditioned_mean(times, -start, end)
        if not bool(((times > 0) & (times < end)).all()):
            raise ArgumentError("times", times.tolist(), f"times in (0, {end})")
        n = self._modes(min(float(times.min()), end - float(times.max())))
        waves, place = self._start(n, start), self._places(n)
        # all sums below share the decay of the first mode over the whole time, which after a long time no number can hold
        rates = self._rates(n) - self._rates(n[:1])
        # sum over modes m of the density up to t, n of the passage after it, of the integral of x phi_m phi_n
        grown = waves * torch.exp(-rates * times[:, None])
        passing = n * torch.exp(-rates * (end - times[:, None]))
        terms = n * waves * torch.exp(-rates * end)
        total = float(terms.sum())
        if not total > _LOST * float(terms.abs().sum()):
            raise ArgumentError(
                "end", end, "a time in which the noise reaches the bound", "The series has lost its digits to cancellation."
            )
        return 2 / self._length * ((grown @ place) * passing).sum(1) / total

    @property
    def _length(self) -> float:
        return self.upper - self.lower

    def _mirrored(self) -> DriftDiffusion:
        return DriftDiffusion(-self.drift, self.noise, -self.upper, -self.lower)

    def _modes(self, t: float) -> Tensor:
        if not t > 0:
            raise ArgumentError("t", t, "a positive time")
        return torch.arange(1, 2 + math.ceil(self._length / (math.pi * self.noise) * math.sqrt(2 * _NEGLIGIBLE / t)), dtype=torch.float64)

    def _rates(self, n: Tensor) -> Tensor:
        return (n * math.pi * self.noise / self._length) ** 2 / 2

    def _waves(self, n: Tensor, x: Tensor) -> Tensor:
        """`phi_n(x)`, `(modes, points)`."""
        return torch.sin(n[:, None] * math.pi * (x - self.lower) / self._length)

    def _start(self, n: Tensor, start: float) -> Tensor:
        if not self.lower < start < self.upper:
            raise ArgumentError("start", start, f"a start in ({self.lower}, {self.upper})")
        return self._waves(n, torch.tensor([start], dtype=torch.float64))[:, 0]

    def _places(self, n: Tensor) -> Tensor:
        """The integrals of `x phi_m phi_n` over `(a, b)`."""
        less, more = n[:, None] - n, n[:, None] + n
        same = less == 0
        off = (more % 2) * (self._length / math.pi) ** 2 * (1 / more**2 - 1 / torch.where(same, 1.0, less) ** 2)
        return torch.where(same, self._length**2 / 4 + self.lower * self._length / 2, off)
