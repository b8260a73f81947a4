r"""A linear score `-k(t) x` fitted to noisy estimates, with its Fokker-Planck residual as a penalty: the regulariser where all is exact.

    min_k  sum_i w_i (k(t_i) - k_i)^2 + strength * sum_j t_j rho(t_j)^2,        rho = -(k' + 2 F k + g^2 k^2) / 2,

over monotone cubic interpolants (PCHIP) in `log t` of values at the `t_i`, and 100 times `t_j` equally
spaced there. The residual of a learned score grows as `1/t`, hence the weight `t`.
Source: Deveney et al. 2023 (arXiv 2311.15996), eq. 13, for a score that is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.errors import ArgumentError

_GRID = 100


@dataclass(frozen=True)
class LinearScore:
    """`k(t)`, by its values at the knots.

    Arguments:
        times, values: of the knots; held constant outside of them.
        converged: whether the fit came to rest.
    """

    times: tuple[float, ...]
    values: tuple[float, ...]
    converged: bool

    def functions(self) -> tuple[Callable[[float], float], Callable[[float], float]]:
        """`k` and `dk/dt`."""
        from scipy.interpolate import PchipInterpolator

        curve = PchipInterpolator(np.log(self.times), self.values)
        slope = curve.derivative()
        return lambda t: float(curve(np.log(t))), lambda t: float(slope(np.log(t))) / t


def fit_linear_score(
    times: Sequence[float],
    estimates: Sequence[float],
    weights: Sequence[float],
    strength: float,
    *,
    drift: float = -1.0,
    noise: float = 1.0,
    quadratic: float = 1.0,
) -> LinearScore:
    """The penalised least squares fit, by Levenberg and Marquardt's method from the estimates.

    Arguments:
        times: of the knots, rising, positive.
        estimates: noisy `k_i`.
        weights: `w_i >= 0`.
        strength: of the penalty.
        drift, noise: `F` and `g` of `dx = F x dt + g dw`.
        quadratic: a factor on the residual's `k^2`; anything but 1 is a wrong equation, for controls.

    Raises:
        ArgumentError: times that do not rise, another number of estimates or weights, a negative strength or weight.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.optimize import least_squares

    t, k0, w = (np.asarray(v, dtype=float) for v in (times, estimates, weights))
    if len(t) < 3 or not (np.diff(t) > 0).all() or t[0] <= 0 or not len(t) == len(k0) == len(w):
        raise ArgumentError("times, estimates, weights", (len(t), len(k0), len(w)), "at least 3 rising positive times, one of each a time")
    if strength < 0 or w.min() < 0 or not np.isfinite(k0).all():
        raise ArgumentError("strength, weights", (strength, float(w.min())), "numbers of at least 0, and finite estimates")
    fine = np.geomspace(t[0], t[-1], _GRID)
    scale = np.sqrt(strength * fine)

    def misfit(values: np.ndarray) -> np.ndarray:
        curve = PchipInterpolator(np.log(t), values)
        k, rate = curve(np.log(fine)), curve(np.log(fine), 1) / fine
        rho = -(rate + 2 * drift * k + quadratic * noise**2 * k**2) / 2
        return np.concatenate([np.sqrt(w) * (values - k0), scale * rho])

    found = least_squares(misfit, k0, method="lm" if strength else "trf", max_nfev=4000)
    return LinearScore(tuple(t.tolist()), tuple(found.x.tolist()), bool(found.success))
