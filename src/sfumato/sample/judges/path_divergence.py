r"""How far the law of a frozen-belief sampler can be from the truth: a bound on its Kullback-Leibler divergence, read from few numbers.

In `y = x / alpha` over `k = sigma / alpha`, the reverse SDE uses the belief `D(y_k, k)`; a first-order sampler holds the belief of its last
node, `D(y_{k_i}, k_i)`, down to the next one. Girsanov's theorem bounds what that costs by

    KL(true || sampler) <= sum_i int_{k_{i+1}}^{k_i} k^-3 E |D(y_k, k) - D(y_{k_i}, k_i)|^2 dk.

Along the true reverse process the belief is a martingale, so the expectation is a difference of mean squared errors,
`mmse(k_i) - mmse(k)` with `mmse(k) = E |x_0 - D|^2`, and the bound needs that one curve. A network is no exact belief: its bound is
sampled (`path_divergence`), for any order of the sampler's interpolation. Source: Sabour et al. 2024 (arXiv 2404.14507), section 3; the
martingale identity is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.metrics import Estimate
from sfumato.noise import EDM
from sfumato.sample.compilers.linearisation import lagrange
from sfumato.seeds import Seed, noise

Objective = Callable[[Sequence[float]], float]
"""What a schedule costs, as a function of its falling noise-to-signal ratios."""

_FINE = 20_001
_ASIDE = 2**32


@dataclass(frozen=True)
class BeliefError:
    """The curve `mmse(k)`, interpolated monotonically in logarithms.

    Arguments:
        ratios: rising noise-to-signal ratios, positive.
        values: the mean squared error of the belief there, positive and never falling.

    Raises:
        ArgumentError: ratios or values that are not such.
    """

    ratios: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.ratios) < 2 or len(self.ratios) != len(self.values) or not self.ratios[0] > 0:
            raise ArgumentError(
                "ratios, values", (len(self.ratios), len(self.values)), "as many values as ratios, at least 2, all positive"
            )
        if any(a >= b for a, b in pairwise(self.ratios)):
            raise ArgumentError("ratios", self.ratios, "rising ratios")
        if not self.values[0] > 0 or any(a > b for a, b in pairwise(self.values)):
            raise ArgumentError("values", self.values, "positive errors that never fall as noise grows")

    @classmethod
    def of_gaussian(cls, law: Gaussian, ratio_max: float, ratio_min: float, points: int = 401) -> BeliefError:
        """The closed form of a Gaussian law with variances `l`: `mmse(k) = sum l k^2 / (l + k^2)`."""
        k = torch.logspace(math.log10(ratio_min), math.log10(ratio_max), points, dtype=torch.float64)
        variances = law.covariance.spectrum.to("cpu")
        each = variances * k[:, None] ** 2 / (variances + k[:, None] ** 2)
        return cls(tuple(k.tolist()), tuple(law.covariance.basis.total(each).tolist()))

    @classmethod
    def measured(
        cls,
        denoiser: Denoiser,
        data: Float[Tensor, "batch *event"],
        ratio_max: float,
        ratio_min: float,
        *,
        points: int = 41,
        seed: Seed = 0,
    ) -> BeliefError:
        """The curve of any denoiser on clean `data`, the same noise at every ratio; made monotone by least squares."""
        from scipy.optimize import isotonic_regression

        asked, z = denoiser.under(EDM(ratio_max)), _draws(data, seed, 1)[0]
        ratios = np.geomspace(ratio_min, ratio_max, points).tolist()
        ratios[0], ratios[-1] = ratio_min, ratio_max
        with torch.no_grad():
            errors = [float((asked.denoise(data + k * z, k / ratio_max) - data).flatten(1).square().sum(1).mean()) for k in ratios]
        return cls(tuple(ratios), tuple(isotonic_regression(errors).x.tolist()))

    def bound(self, power: float = 3.0) -> Objective:
        """The bound on the divergence of a first-order schedule, `sum_i int k^-power (mmse(k_i) - mmse(k)) dk`; the bound has power 3.

        The function raises ArgumentError for ratios that do not fall, or that leave the curve.
        """
        from scipy.integrate import cumulative_simpson
        from scipy.interpolate import PchipInterpolator

        logs = np.log(self.ratios)
        fine = np.linspace(logs[0], logs[-1], _FINE)
        error = np.exp(PchipInterpolator(logs, np.log(self.values))(fine))
        weight = np.exp((1 - power) * fine)
        # integrals over log k of the weight, and of the weight times the error
        own, moment = (cumulative_simpson(f, x=fine, initial=0) for f in (weight, weight * error))

        def cost(ratios: Sequence[float]) -> float:
            u = np.log(check_ratios(ratios))
            if u[0] > logs[-1] + 1e-9 or u[-1] < logs[0] - 1e-9:
                raise ArgumentError("ratios", (ratios[0], ratios[-1]), f"ratios in [{self.ratios[0]:.6g}, {self.ratios[-1]:.6g}]")
            held, whole, part = (np.interp(u, fine, table) for table in (error, own, moment))
            return float((np.diff(part) - held[:-1] * np.diff(whole)).sum())

        return cost


def check_ratios(ratios: Sequence[float]) -> list[float]:
    """The ratios of a schedule.

    Raises:
        ArgumentError: fewer than two, or ratios that are not positive, finite and falling.
    """
    out = [float(k) for k in ratios]
    if len(out) < 2 or any(a <= b for a, b in pairwise(out)) or not (out[-1] > 0 and math.isfinite(out[0])):
        raise ArgumentError("ratios", out, "at least two positive noise-to-signal ratios that fall")
    return out


def path_divergence(
    denoiser: Denoiser,
    data: Float[Tensor, "batch *event"],
    ratios: Sequence[float],
    *,
    order: int = 1,
    seed: Seed = 0,
) -> Estimate:
    """The bound for a denoiser that need not be exact, over samples of the true joint law, with its standard error.

    `k` is drawn in every interval from the density that is proportional to the integrand of a Gaussian law with the data's mean variance.

    Arguments:
        denoiser: the belief.
        data: clean samples.
        ratios: the schedule.
        order: how many past answers the sampler interpolates in `log k`; 1 is the frozen belief. Of an exact belief, a martingale, the last
            answer is the best forecast, so more of them always cost more along the SDE's paths.
        seed: of the noise; the same seed gives a smooth function of the ratios.

    Raises:
        ArgumentError: ratios that are no schedule, or an order below 1.
    """
    nodes = check_ratios(ratios)
    if order < 1:
        raise ArgumentError("order", order, "at least 1 past answer")
    asked, shape = denoiser.under(EDM(nodes[0])), (-1, *[1] * (data.ndim - 1))
    variance = float(data.flatten(1).to(torch.float64).var(0).mean())
    total = torch.zeros(len(data), dtype=torch.float64)
    with torch.no_grad():
        for i, low in enumerate(nodes[1:]):
            past = nodes[max(0, i + 1 - order) : i + 1][::-1]
            draws = _draws(data, seed, 2 + len(past), first=i * (2 + order))
            # the first number of a draw, through the normal's distribution function, is uniform
            k, density = _important(torch.special.ndtr(draws[0].flatten(1)[:, 0].to(torch.float64)), low, past[0], variance)
            y, level = data + k.to(data).reshape(shape) * draws[1], k
            truth = asked.denoise(y, k / nodes[0])
            guess = torch.zeros_like(truth)
            shares = lagrange(-torch.log(k), [-math.log(node) for node in past])
            for node, share, z in zip(past, shares, draws[2:], strict=True):
                y = y + torch.sqrt(node**2 - level**2).to(data).reshape(shape) * z
                level = torch.full_like(k, node)
                guess = guess + share.to(data).reshape(shape) * asked.denoise(y, node / nodes[0])
            total += (truth - guess).flatten(1).square().sum(1) / (k**3 * density)
    return Estimate(float(total.mean()), float(total.std()) / math.sqrt(len(total)))


def _important(uniform: Tensor, low: float, high: float, variance: float) -> tuple[Tensor, Tensor]:
    """Ratios in `[low, high]` at the given quantiles of the density `~ k^-3 (high^2 - k^2) / (variance + k^2)`, and the density there."""
    u = torch.linspace(math.log(low), math.log(high), 257, dtype=torch.float64)
    middle = torch.exp((u[1:] + u[:-1]) / 2)
    mass = (high**2 - middle**2) / (middle**2 * (variance + middle**2))
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumsum(mass, 0)]) / mass.sum()
    cell = (torch.searchsorted(edges, uniform, right=True) - 1).clamp(0, 255)
    part = (uniform - edges[cell]) / (edges[cell + 1] - edges[cell])
    k = torch.exp(u[cell] + part * (u[1] - u[0]))
    return k, (edges[cell + 1] - edges[cell]) / (u[1] - u[0]) / k


def _draws(data: Tensor, seed: Seed, n: int, first: int = 0) -> list[Tensor]:
    source = noise(seed, len(data), tuple(data.shape[1:]), dtype=data.dtype, device=data.device)
    # aside from the first draws, of which data sampled under the same seed may be made
    return [source.draw(_ASIDE + first + j) for j in range(n)]
