r"""ER-SDE: extended reverse SDEs, told by a noise-scale function `phi` of the ratio `k` (Cui et al. 2023, arXiv 2309.06169).

Any `dx = (F x - (g^2 + s^2)/2 score) dt + s dw` with `s(t) >= 0` has the marginals of the probability flow. With `phi(k) = k g(k)`, where
`d log g / d log k = s^2/g^2` says how much noise is spent, the exact solution is linear in the answers under the measure `d(1/phi)`:

    X_i / alpha_i = R X_b / alpha_b + phi_i int_{phi_b}^{phi_i} D d(1/phi) + sqrt(k_i^2 - R^2 k_b^2) eps,      R = phi(k_i) / phi(k_b).

So the share of the noise that is kept is `g(k_i)/g(k_b)`, and `g` must not fall as `k` rises. `phi = k` is the probability flow, `k^2` the
usual reverse SDE, `k^(1 + tau^2)` SA-Solver's constant noise level. The answers are taken to be a polynomial in `k` through the newest 1
to 3 of them; its weights reproduce the moments of `u = k - k_b`,

    M_0 = 1 - R,        M_m = (k_i - k_b)^m + m phi_i int_{k_i}^{k_b} u^(m-1) / phi dk,

which gives the paper's `A_1 = M_1` and `A_2 = M_2 / 2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.compilers.stochastic import Stochastic, StochasticTable, Walk
from sfumato.sample.program import Program
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom

_ROUNDING = 1e-12


@dataclass(frozen=True)
class NoiseScale:
    """A noise-scale function `phi(k) = k g(k)`.

    Arguments:
        name: how it is called in tables.
        g: `phi(k) / k` on float64 tensors, positive and nowhere falling; its value at `k = inf` is the limit, which may be infinite.
    """

    name: str
    g: Callable[[Tensor], Tensor]

    def log_kept(self, start: float, end: float) -> float:
        """`log(g(end) / g(start))`, the logarithm of the share of the noise that a step from ratio `start` keeps.

        Raises:
            ArgumentError: the share is above 1, so that the variance of the fresh noise would be negative, or no number.
        """
        if end == 0:
            return 0.0  # no noise is left to be kept
        low, high = torch.log(self.g(torch.tensor([end, start], dtype=torch.float64))).tolist()
        share = low - high
        if math.isnan(share) or share > _ROUNDING:
            expected = "phi(k)/k that does not fall as k rises, from the last to the first ratio of the times"
            raise ArgumentError("scale", f"{self.name}, whose log(phi/k) is {high:.6g} at {start:.6g} and {low:.6g} at {end:.6g}", expected)
        return min(share, 0.0)

    def __str__(self) -> str:
        return self.name


def _power(p: float) -> NoiseScale:
    return NoiseScale(f"k^{p:g}", lambda k: k ** (p - 1))


NOISE_SCALES: Mapping[str, NoiseScale] = MappingProxyType(
    {
        "flow": NoiseScale("k", torch.ones_like),
        "reverse": _power(2.0),
        "1.5": _power(1.5),
        "2.5": _power(2.5),
        "exp-inverse": NoiseScale("k(exp(-1/k)+10)", lambda k: torch.exp(-1 / k) + 10),
        "log": NoiseScale("k^0.9 log10(1+100k^1.5)", lambda k: torch.log10(1 + 100 * k**1.5) / k**0.1),
        "er-sde": NoiseScale("k(exp(k^0.3)+10)", lambda k: torch.exp(k**0.3) + 10),
    }
)
"""The paper's functions, by name: the probability flow, the usual reverse SDE, two more powers, and three with less noise than the SDE, the
last its default. "log" is no noise scale at ratios above about 1000, where it falls.
"""


@dataclass(frozen=True)
class ERSDE(Solver):
    """The solver, see the module; one evaluation a step, the order rising from 1 as history fills.

    Arguments:
        steps: past answers that are read, 1 to 3.
        scale: the noise-scale function.
        published: with 3 answers, the step as published: a difference at the middle of a step stands for the slope at its end, which makes
            it order 2. By default, the parabola.
        rectangles: points of the left rectangle rule that the authors' code puts in the place of the integrals (100); 0 for Gauss's rule.
    """

    steps: int = 3
    scale: NoiseScale = NOISE_SCALES["er-sde"]
    published: bool = False
    rectangles: int = 0

    def __post_init__(self) -> None:
        if self.steps not in (1, 2, 3):
            raise ArgumentError("steps", self.steps, "1, 2 or 3 past answers")
        if self.published and self.steps != 3:
            raise ArgumentError("published", True, "3 past answers", "The lower orders have one form only.")
        if self.rectangles < 0:
            raise ArgumentError("rectangles", self.rectangles, "a number of points, or 0")

    @property
    def name(self) -> str:
        how = ("-published" if self.published else "") + (f"-rectangles{self.rectangles}" if self.rectangles else "")
        return f"er-sde-{self.steps}[{self.scale}]{how}"

    @property
    def order(self) -> int:
        return 2 if self.published else self.steps

    @property
    def deterministic(self) -> bool:
        return self.scale is NOISE_SCALES["flow"]

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        table, none = StochasticTable(process, custom(times)), torch.zeros(1, dtype=torch.float64)
        split = _InRatio(none, 0.0, noise_scale=self.scale, published=self.published, rectangles=self.rectangles)
        ratio = [math.exp(-v) if v > -math.inf else math.inf for v in table.half_log_snr]
        return Walk(self.steps).program(self.name, table, lambda a, b: replace(split, log_kept=self.scale.log_kept(ratio[a], ratio[b])))


@dataclass(frozen=True)
class _InRatio(Stochastic):
    """Polynomials in the ratio under the measure `d(1/phi)`."""

    noise_scale: NoiseScale = NOISE_SCALES["er-sde"]
    published: bool = False
    rectangles: int = 0

    def weights(self, base: float, end: float, nodes: Sequence[float], level: tuple[float, float]) -> Tensor:
        if len(nodes) == 1:
            return super().weights(base, end, nodes, level)
        start, step = math.exp(-base), math.exp(-end) - math.exp(-base)
        u = (torch.exp(-torch.tensor(nodes, dtype=torch.float64)) - start) / step
        k, width = self._points(base, end)
        # phi_i / phi at the points; powers of u in units of the step, so that the moments are of one size
        falling = (
            width
            * torch.exp(-end - torch.log(k))
            * self.noise_scale.g(torch.exp(-torch.tensor(end, dtype=torch.float64)))
            / self.noise_scale.g(k)
        )
        place = (k - start) / step
        moments = [-math.expm1(self.log_kept + base - end)]
        moments += [1 + m / step * float((falling * place ** (m - 1)).sum()) for m in range(1, len(nodes))]
        if self.published and len(nodes) == 3:
            moments[2] += float(u[1]) * moments[1]
        powers = u ** torch.arange(len(nodes), dtype=torch.float64)[:, None]
        return level[0] * torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64))[:, None]

    def _points(self, base: float, end: float) -> tuple[Tensor, Tensor]:
        """Ratios and weights that integrate `dk` over the step."""
        low, high = math.exp(-end), math.exp(-base)
        if self.rectangles:
            width = (high - low) / self.rectangles
            return low + width * torch.arange(self.rectangles, dtype=torch.float64), torch.tensor(width, dtype=torch.float64)
        lam, weight = self._quadrature(base, end)
        return torch.exp(-lam), weight * torch.exp(-lam)
