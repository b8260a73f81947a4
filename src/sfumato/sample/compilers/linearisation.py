r"""Which part of the denoiser a step solves in closed form.

Split the belief, mode by mode of a Gaussian law `N(m, U diag(l) U^T)`, into the law's own answer and a residual,
`D = m + gamma (x - alpha m) + R` with `gamma = alpha l / (alpha^2 l + sigma^2)`. With `S = sqrt(l + k^2)` and `s = alpha S` the
probability flow is then, exactly,

    d (x~ / s) = R / S d lambda.

A multistep method interpolates the residual, scaled to `Q = (S/k)^(2 q) R`, as a polynomial in `lambda`:

    X~_i = (s_i / s_b) X~_b + sum_n w_n (D~_n - gamma_n X~_n),
    w_n  = s_i (S_n / k_n)^(2 q) int_{lambda_b}^{lambda_i} k^(2 q) S^(-2 q - 1) l_n(lambda) d lambda,        l_n Lagrange.

| variance | power | what it is |
|---|---|---|
| `l = 0` | any | data prediction (DPM-Solver++, Lu et al. 2022, arXiv 2211.01095) |
| `l = inf` | `q = 1/2` | noise prediction (DPM-Solver, Lu et al. 2022, arXiv 2206.00927) |
| one `l` for all modes | any | an isotropic law, the split of EDM's preconditioning |
| the data's eigenvalues | any | what the Gaussian law explains is free, and the residual alone is interpolated; ours |

`q = 0` holds the denoiser's residual constant over a step, `q = 1/2` the noise's, `q = 1` the score's. Where noise vanishes the residual
does so like `k^2`, and only `q > 0` integrates to there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.noise import ScalarProcess

_NODES = 16
_PANEL = 2.0  # widest panel in lambda on which 16 Gauss nodes integrate the kernel to rounding
_REACH = 45.0  # exp(-45) is below rounding: how far an infinite end is followed


@cache
def _gauss() -> tuple[Tensor, Tensor]:
    x, w = np.polynomial.legendre.leggauss(_NODES)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)


@dataclass(frozen=True)
class Linearisation:
    """The closed-form part of a step: a variance per mode, and the power that scales the residual.

    Arguments:
        variance: `(modes,)` float64, each in [0, inf].
        power: `q` in [0, 1].
        space: the law whose modes these are; None if the split is the same in every direction (one mode).
    """

    variance: Tensor
    power: float = 0.5
    space: Gaussian | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise ArgumentError("power", self.power, "a residual's power in [0, 1]")
        if self.variance.ndim != 1 or bool((torch.isnan(self.variance) | (self.variance < 0)).any()):
            raise ArgumentError("variance", self.variance, "variances in [0, inf], one per mode")

    @classmethod
    def data(cls) -> Linearisation:
        """Data prediction: nothing but the noise's own decay is solved."""
        return cls(torch.zeros(1, dtype=torch.float64), 0.0)

    @classmethod
    def noise(cls) -> Linearisation:
        """Noise prediction: the belief is taken to be `x / alpha`, and the noise is interpolated."""
        return cls(torch.full((1,), math.inf, dtype=torch.float64), 0.5)

    @classmethod
    def isotropic(cls, variance: float, power: float = 0.5) -> Linearisation:
        """A law of mean 0 and the same variance in every direction: it needs no statistics, and knows no mean."""
        return cls(torch.tensor([variance], dtype=torch.float64), power)

    @classmethod
    def gaussian(cls, law: Gaussian, power: float = 0.5) -> Linearisation:
        """The law's own spectrum: what it explains is free."""
        return cls(law.covariance.spectrum.to("cpu"), power, law)

    def under(self, process: ScalarProcess) -> Linearisation:
        """The same for steps under a process, where the polynomial's variable depends on it; see `variables`."""
        return self

    def polynomials(self, lam: Tensor, nodes: Sequence[float]) -> list[Tensor]:
        """The Lagrange polynomials of the nodes at half log-SNR `lam`: polynomials in it, unless a subclass has another variable."""
        return lagrange(lam, nodes)

    def interpolates_to(self, end: float) -> bool:
        """Whether a step to half log-SNR `end` may read more than one answer."""
        return math.isfinite(end)

    def order(self, nodes: int) -> int:
        """The order of convergence that steps through so many nodes have."""
        return nodes

    def scale(self, alpha: float, sigma: float) -> Tensor:
        """`s = sqrt(alpha^2 l + sigma^2)` per mode; `alpha` where `l` is infinite, as only ratios matter."""
        finite = torch.sqrt(alpha**2 * self._finite + sigma**2)
        return torch.where(self._infinite, alpha, finite) if self._any_infinite else finite

    def gain(self, alpha: float, sigma: float) -> Tensor:
        """`gamma = alpha l / (alpha^2 l + sigma^2)` per mode: the law's share of the belief.

        Raises:
            ArgumentError: noise prediction where no signal is left.
        """
        if alpha == 0 and self._any_infinite:
            raise ArgumentError("times", "a start at alpha = 0", "a start with some signal left for noise prediction")
        top = alpha * self._finite
        finite = torch.where(top == 0, 0.0, top / (alpha * top + sigma**2))
        return torch.where(self._infinite, 1 / alpha, finite) if self._any_infinite else finite

    # asked at every step, and the same at each
    @cached_property
    def _infinite(self) -> Tensor:
        return torch.isinf(self.variance)

    @cached_property
    def _any_infinite(self) -> bool:
        return bool(self._infinite.any())

    @cached_property
    def _finite(self) -> Tensor:
        return torch.where(self._infinite, 0.0, self.variance)

    @cached_property
    def _still(self) -> Tensor:
        return self.variance == 0

    @cached_property
    def _turns(self) -> tuple[float, ...]:
        """Where the kernel of each mode turns from rising to falling."""
        return tuple((-0.5 * torch.log(self._finite[self._finite > 0])).tolist())

    def weights(self, base: float, end: float, nodes: Sequence[float], level: tuple[float, float]) -> Tensor:
        """The weights `w_n` of a step.

        Arguments:
            base, end: half log-SNR at the step's two ends; `base` may be -inf and `end` may be +inf.
            nodes: half log-SNR at the interpolation nodes, all different, and finite (as `end`) unless there is only one.
            level: `alpha` and `sigma` at the step's end.

        Returns:
            `(nodes, modes)`, float64.

        Raises:
            ArgumentError: several nodes with an infinite one among them, or `q = 0` towards zero noise where `l > 0`.
        """
        if len(nodes) > 1 and not all(math.isfinite(v) for v in (*nodes, end)):
            raise ArgumentError("nodes", list(nodes), "finite half log-SNR where more than one node is interpolated")
        if math.isinf(end) and self.power == 0 and not bool(self._still.all()):
            raise ArgumentError(
                "power", 0.0, "a power above 0 for a step to zero noise", "There the residual vanishes and its integral does not."
            )
        lam, step = self._quadrature(base, end)
        k = torch.exp(-lam)[:, None]
        # (k / S)^(2q) / S of every mode at every quadrature point
        size = torch.sqrt(self._finite + k**2)
        if self._any_infinite:
            size = torch.where(self._infinite, 1.0, size)
        kernel = step[:, None] * (k / size) ** (2 * self.power) / size
        out = (kernel.sum(0) if len(nodes) == 1 else torch.stack(self.polynomials(lam, nodes)) @ kernel).reshape(len(nodes), -1)
        out = self.scale(*level) * out
        if self.power:
            own = torch.exp(-torch.tensor(nodes, dtype=torch.float64))[:, None]
            # S_n / k_n -> 1 as k_n -> inf
            own_size = torch.sqrt(self._finite / own**2 + 1)
            if self._any_infinite:
                own_size = torch.where(self._infinite, 1 / own, own_size)
            out = own_size ** (2 * self.power) * out
        # with l = 0 the kernel sits at the end itself as the noise vanishes: the step returns the data prediction
        return torch.where(self._still, level[0], out) if level[1] == 0 else out

    def _quadrature(self, base: float, end: float) -> tuple[Tensor, Tensor]:
        """Gauss-Legendre points and weights in `lambda` over panels; infinite ends are followed until the kernel is below rounding."""
        low = base if math.isfinite(base) else min((v for v in (end, *self._turns) if math.isfinite(v)), default=0.0) - _REACH
        high = end
        if math.isinf(end):
            high = max([low, *self._turns]) + _REACH / (2 * self.power) if self.power else low
        edges = torch.linspace(low, high, max(1, math.ceil((high - low) / _PANEL)) + 1, dtype=torch.float64)
        width = (edges[1:] - edges[:-1])[:, None]
        unit, weight = _gauss()
        return (edges[:-1, None] + width * unit).reshape(-1), (width * weight).reshape(-1)


def lagrange(lam: Tensor, nodes: Sequence[float]) -> list[Tensor]:
    """The Lagrange polynomials of the nodes at the points `lam`, one tensor a node."""
    out = []
    for n, own in enumerate(nodes):
        basis = torch.ones_like(lam)
        for m, other in enumerate(nodes):
            if m != n:
                basis = basis * (lam - other) / (own - other)
        out.append(basis)
    return out
