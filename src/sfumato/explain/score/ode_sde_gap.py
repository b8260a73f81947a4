r"""The flow and the reverse SDE of a learned score end apart exactly where the score is no solution of the Fokker-Planck equation.

With a linear score `s(x, t) = -k(t) x` under `dx = F x dt + g dw` all is Gaussian. The log-density it is the gradient of, `-k x^2 / 2`, has
the Fokker-Planck residual `rho x^2 + c(t)`, `rho = -(k' + 2 F k + g^2 k^2) / 2`. With the variances `V` of the flow and `U` of the SDE,

    V' = (2 F + g^2 k) V,        U' = 2 (F + g^2 k) U - g^2        (forward in time, both solved back from the prior),
    (1/V - k)' = -(2 F + g^2 k)(1/V - k) + 2 rho,        (U - V)' = 2 (F + g^2 k)(U - V) - g^2 V (1/V - k),

so the residual, and the prior where it is not the score's own, drive the gap and nothing else does. With absolute values under the
integrals it is a bound. Source: Deveney et al. 2023 (arXiv 2311.15996), theorem 3; the linear chain is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato.errors import ArgumentError
from sfumato.explain.explanation import Explanation

OfTime = Callable[[float], float]


@dataclass(frozen=True)
class OdeSdeGap(Explanation):
    """Standard deviations at the clean end, and what the residual says of their difference.

    Arguments:
        times, residual: `rho(t)`.
        ode, sde: standard deviations of the two laws.
        true: that of the data.
        driven: `U - V` as the integral of residual and prior mismatch.
        bound: the same with absolute values.
    """

    times: list[float]
    residual: list[float]
    ode: float
    sde: float
    true: float
    driven: float
    bound: float

    @property
    def gap(self) -> float:
        """`|sd_ODE - sd_SDE|`, the Wasserstein distance of the two laws."""
        return abs(self.ode - self.sde)

    @property
    def numbers(self) -> dict[str, float]:
        return {
            "gap": self.gap,
            "flow to data": abs(self.ode - self.true),
            "SDE to data": abs(self.sde - self.true),
            "residual": math.sqrt(float(np.mean(np.square(self.residual)))),
            "bound": self.bound / (self.ode + self.sde),
        }

    @property
    def meaning(self) -> str:
        found = self.numbers
        return (
            f"Flow and SDE of this score end {found['gap']:.3g} apart (bound by its residual: {found['bound']:.3g}); from the data the "
            f"flow is {found['flow to data']:.3g} away and the SDE {found['SDE to data']:.3g}."
        )

    def plot(self, ax: Any) -> None:
        """The residual over time; 0 for a score of a diffusion."""
        ax.plot(self.times, self.residual, color="C0", label="residual of the score")
        ax.axhline(0.0, color="C1", ls="--", label="a diffusion's")
        ax.set(xscale="log", xlabel="time", ylabel="Fokker-Planck residual, coefficient of x^2")
        ax.legend()


def linear_gap(
    k: OfTime, k_rate: OfTime, ends: tuple[float, float], prior: float, true: float, *, drift: float = -1.0, noise: float = 1.0
) -> OdeSdeGap:
    """Both laws at the clean end of `dx = drift x dt + noise dw` under the score `-k(t) x`, by DOP853 to 1e-10.

    Arguments:
        k, k_rate: the score's factor, and its derivative.
        ends: the clean and the noisy time, in the SDE's own unit.
        prior: the variance that both start from.
        true: the data's variance at the clean end, to compare with.
        drift, noise: `F` and `g`.

    Raises:
        ArgumentError: ends that do not rise from above 0, variances or noise that are not positive, a score with which one of the laws
            has no finite variance.
    """
    from scipy.integrate import solve_ivp

    if not 0 < ends[0] < ends[1] or min(prior, true) <= 0 or not noise > 0:
        raise ArgumentError("ends, prior, true, noise", (ends, prior, true, noise), "0 < clean < noisy, and positive numbers")
    g2 = noise**2

    def rho(t: float) -> float:
        return -(k_rate(t) + 2 * drift * k(t) + g2 * k(t) ** 2) / 2

    def rate(t: float, y: Any) -> list[float]:
        log_v, u, mismatch, driven, size, bound = y
        kt, v = k(t), math.exp(log_v)
        growth = 2 * (drift + g2 * kt)
        pull = 2 * drift + g2 * kt
        # the last two run backwards with absolute sources: a bound of |1/V - k| and of |U - V|
        return [
            pull,
            growth * u - g2,
            -pull * mismatch + 2 * rho(t),
            growth * driven - g2 * v * mismatch,
            -pull * size - 2 * abs(rho(t)),
            growth * bound - g2 * v * size,
        ]

    off = 1 / prior - k(ends[1])
    start = [math.log(prior), prior, off, 0.0, abs(off), 0.0]
    solved = solve_ivp(rate, (ends[1], ends[0]), start, "DOP853", rtol=1e-10, atol=1e-12)
    if not solved.success or not np.isfinite(solved.y[:, -1]).all() or solved.y[1, -1] <= 0:
        raise ArgumentError("k", k(ends[0]), "a score with which both laws have a finite variance", solved.message)
    log_v, u, _, driven, _, bound = solved.y[:, -1].tolist()
    times = np.geomspace(*ends, 200).tolist()
    return OdeSdeGap(times, [rho(t) for t in times], math.exp(log_v / 2), math.sqrt(u), math.sqrt(true), driven, bound)
