r"""Two equal Gaussian modes at `+-d`, of variance `v` along their axis: the landscape in closed form.

In the units of clean data, at noise-to-signal ratio `k`, the density of `x_t / alpha` along the axis is `(N(d, S^2) + N(-d, S^2)) / 2` with
`S^2 = v + k^2`. It has two maxima `+-m`, `m = d tanh(m d / S^2)`, where `S < d`, below the critical ratio `sqrt(d^2 - v)`; one above.
The probability flow keeps the sign, so that a kick of `eta S` times a standard normal number switches the mode with probability

    E Phi(-|x| / (eta S)),        x ~ (N(d, S^2) + N(-d, S^2)) / 2,

which is `arctan(eta) / pi` where noise rules and falls to 0 below the critical ratio.
Source: Wang & Vastola 2023 (arXiv 2303.02490), section 3; the switching probability is derived from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sfumato.errors import ArgumentError


@dataclass(frozen=True)
class TwoModes:
    """Two equal modes at `+-distance` with a common variance along their axis.

    Raises:
        ArgumentError: a distance that is not positive, or a negative variance.
    """

    distance: float
    variance: float

    def __post_init__(self) -> None:
        if not (0 < self.distance < math.inf and 0 <= self.variance < math.inf):
            raise ArgumentError("distance, variance", (self.distance, self.variance), "a positive distance and a variance of at least 0")

    @property
    def critical_ratio(self) -> float:
        """`sqrt(d^2 - v)`, below which there are two maxima; 0 if there is one at every level."""
        return math.sqrt(max(self.distance**2 - self.variance, 0.0))

    def position(self, ratio: float) -> float:
        """The maximum `m >= 0` of the density of `x_t / alpha`; 0 from the critical ratio on."""
        from scipy.optimize import brentq

        if ratio >= self.critical_ratio:
            return 0.0
        d, q = self.distance, self.variance + ratio**2
        if q == 0:
            return d
        # m / tanh(m d / q) = d, with its other root m = 0 divided out
        return float(brentq(lambda m: m / math.tanh(m * d / q) - d, 1e-9 * d, d * (1 + 1e-12), xtol=1e-15 * d, rtol=1e-14))

    def switch_probability(self, ratio: float, eta: float) -> float:
        """The share of samples that a kick of `eta` local standard deviations times a normal number sends to the other mode.

        Raises:
            ArgumentError: an `eta` that is not positive, or modes that are points without noise.
        """
        from scipy.integrate import quad
        from scipy.stats import norm

        scale = math.hypot(math.sqrt(self.variance), ratio)
        if not 0 < eta < math.inf or not 0 < scale < math.inf:
            raise ArgumentError("ratio, eta", (ratio, eta), "a kick of positive size, and modes or noise of positive finite width")
        away = self.distance / scale

        def integrand(u: float) -> float:
            # by symmetry |x| / S has the density phi(u - away) + phi(u + away)
            return float(norm.cdf(-u / eta) * (norm.pdf(u - away) + norm.pdf(u + away)))

        return float(quad(integrand, 0.0, 40 * eta, points=[min(away, 20 * eta)], epsabs=1e-13, epsrel=1e-11, limit=200)[0])
