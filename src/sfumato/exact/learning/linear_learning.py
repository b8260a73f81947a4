r"""How linear denoisers learn, in closed form: their weights at every training time, and the variances they then generate.

One denoiser per noise level (`alpha = 1`, noise `sigma`), centred data of covariance `C = sum_k l_k u_k u_k^T`, gradient flow on the whole
law: `dW/dtau = -eta grad E|W (x_0 + sigma z) - x_0|^2`, without a factor 1/2. From `W(0) = Q I` every mode is alone, with weight
`w_k(tau, sigma)` (`Q` may be one number per mode). All denoisers commute, so the probability flow from `sigma_T` to `sigma_0` contracts
mode `k` by `exp(-int (1 - w_k(s))/s ds) = Phi_k(sigma_0)/Phi_k(sigma_T)`, and what is generated from `N(0, sigma_T^2)` has the variance
`sigma_T^2 Phi_k(sigma_0)^2 / Phi_k(sigma_T)^2`.

Source: Wang & Pehlevan 2025, "An analytical theory of spectral bias in the learning dynamics of diffusion models" (arXiv 2503.03206). `Phi`
is written here with the entire function `Ein` in place of the exponential integral, `Ei(-x) = gamma + log x - Ein(x)`: the logarithms that
diverge at `tau = 0` are the same at both ends of the flow, and are left out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError

Number = Tensor | float | int
"""A number, or many: all of them broadcast."""


def entire_exponential_integral(x: Tensor) -> Tensor:
    r"""`Ein(x) = int_0^x (1 - e^-u)/u du = E_1(x) + log x + gamma` for `x >= 0`, float64; entire, with `Ein(0) = 0`."""
    from scipy.special import exp1

    values = x.to(torch.float64)
    small = values.clamp(max=1.0)
    term, series = torch.ones_like(small), torch.zeros_like(small)
    for k in range(1, 20):  # 1/(19 19!) is far under one rounding
        term = -term * small / k
        series = series - term / k
    large = values.clamp(min=1.0)
    logarithm = torch.as_tensor(exp1(large.cpu().numpy()), dtype=torch.float64, device=x.device) + torch.log(large) + np.euler_gamma
    return torch.where(values <= 1, series, logarithm)


def kept_start(variances: Tensor, sigma: Tensor, spent: Tensor) -> Tensor:
    """`int E ds/s` with `E = exp(-spent (l + s^2))`, the share of the start that is left: `e^(-spent l) (log s - Ein(spent s^2)/2)`.

    Diverges to `-inf` at `sigma = 0`.
    """
    return torch.exp(-spent * variances) * (torch.log(sigma) - entire_exponential_integral(spent * sigma**2) / 2)


@dataclass(frozen=True)
class LinearLearner(ABC):
    """A linear denoiser per noise level, in training; see the module.

    Arguments:
        start: the weight `Q` of every mode at `tau = 0`, a number or one per mode.
        rate: the learning rate `eta`; a full-width circular convolution of `N` pixels is the one-layer learner of the Fourier variances
            with rate `N eta` (`sfumato.exact.fourier_variances`).

    Raises:
        ArgumentError: a rate that is not positive, a start that the learner cannot leave or that is not finite.
    """

    start: Number
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ArgumentError("rate", self.rate, "a positive learning rate")
        if not bool(torch.isfinite(torch.as_tensor(self.start)).all()):
            raise ArgumentError("start", self.start, "finite weights")

    def weight(self, variances: Number, sigma: Number, tau: Number) -> Tensor:
        """`w(tau, sigma)` of the modes with these variances, float64.

        Raises:
            ArgumentError: a variance, noise level or training time that is negative or not finite; variance and noise both 0.
        """
        v, s, t = _checked(variances=variances, sigma=sigma, tau=tau)
        if bool((v + s == 0).any()):
            raise ArgumentError("sigma", 0.0, "a positive noise level", "Without noise and variance nothing is learned.")
        return self._weight(v, s, t, self._start(v))

    def log_response(self, variances: Number, sigma: Number, tau: Number) -> Tensor:
        """`log Phi(sigma)` at training time `tau`, float64, up to a constant that does not depend on `sigma`."""
        v, s, t = _checked(variances=variances, sigma=sigma, tau=tau)
        return self._log_response(v, s, t, self._start(v))

    def generated_variance(self, variances: Number, tau: Number, sigma_max: float = 80.0, sigma_min: float = 0.002) -> Tensor:
        """The variances of what the probability flow makes of `N(0, sigma_max^2 I)` at `sigma_min`, after training for `tau`.

        Raises:
            ArgumentError: as `weight`; noise levels that are not `0 < sigma_min <= sigma_max`.
        """
        if not 0 < sigma_min <= sigma_max < math.inf:
            raise ArgumentError("sigma_min, sigma_max", (sigma_min, sigma_max), "0 < sigma_min <= sigma_max")
        fall = self.log_response(variances, sigma_min, tau) - self.log_response(variances, sigma_max, tau)
        return sigma_max**2 * torch.exp(2 * fall)

    @abstractmethod
    def _weight(self, v: Tensor, s: Tensor, t: Tensor, q: Tensor) -> Tensor: ...

    @abstractmethod
    def _log_response(self, v: Tensor, s: Tensor, t: Tensor, q: Tensor) -> Tensor: ...

    def _start(self, v: Tensor) -> Tensor:
        return torch.as_tensor(self.start, dtype=torch.float64, device=v.device)


@dataclass(frozen=True)
class OneLayer(LinearLearner):
    r"""`D = W x`: `w = w* + (Q - w*) exp(-2 eta tau (l + sigma^2))`, `w* = l/(l + sigma^2)`.

        Phi = sqrt(l + sigma^2) exp[(1 - Q)/2 Ei(-2 eta tau sigma^2) e^(-2 eta tau l) - Ei(-2 eta tau (l + sigma^2))/2],

    and `sigma^(1 - Q)` at `tau = 0`. A bias decays as `exp(-2 eta tau)`; for data that are not centred see `affine_weights`.
    """

    def _weight(self, v: Tensor, s: Tensor, t: Tensor, q: Tensor) -> Tensor:
        total = v + s**2
        return q + (v / total - q) * -torch.expm1(-2 * self.rate * t * total)

    def _log_response(self, v: Tensor, s: Tensor, t: Tensor, q: Tensor) -> Tensor:
        spent = 2 * self.rate * t
        learned = entire_exponential_integral(spent * (v + s**2)) / 2
        return learned + (1 - q) * kept_start(v, s, spent)


@dataclass(frozen=True)
class TwoLayer(LinearLearner):
    r"""`D = P P^T x`, symmetric: with `e = exp(-8 eta tau l)` and `q = Q + (1 - Q) e`

        w = w* Q / ((w* - Q) e + Q),        Phi = sigma^((1 - Q) e/q) [l e + Q (1 - e)(l + sigma^2)]^(Q/(2q)).

    The weight of a mode emerges at about `log(1/Q)/(8 eta l)`, whatever the noise. A weight that starts at 0 stays there, so `Q > 0`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not bool((torch.as_tensor(self.start) > 0).all()):
            raise ArgumentError("start", self.start, "positive weights", "Two layers that start at 0 do not leave it.")

    def _terms(self, v: Tensor, t: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """`(a, b)` with `w = Q/(a + b sigma^2)`: both sides of the fraction over `l`, so that `l = 0` is a limit like any other."""
        growth = 8 * self.rate * t
        gone = -torch.expm1(-growth * v)
        per_variance = torch.where(v == 0, growth, gone / torch.where(v == 0, 1.0, v))
        return 1 - gone + q * gone, q * per_variance

    def _weight(self, v: Tensor, s: Tensor, t: Tensor, q: Tensor) -> Tensor:
        a, b = self._terms(v, t, q)
        return q / (a + b * s**2)

    def _log_response(self, v: Tensor, s: Tensor, t: Tensor, q: Tensor) -> Tensor:
        a, b = self._terms(v, t, q)
        return (1 - q / a) * torch.log(s) + q / (2 * a) * torch.log(a + b * s**2)


def affine_weights(
    mean: Float[Tensor, " dim"],
    covariance: Float[Tensor, "dim dim"],
    sigma: float,
    tau: float,
    weight: Float[Tensor, "dim dim"],
    bias: Float[Tensor, " dim"],
    rate: float = 1.0,
) -> tuple[Float[Tensor, "dim dim"], Float[Tensor, " dim"]]:
    r"""`D(x) = W x + b` after training for `tau` from any start, on data with any mean: `W` and `b`, float64.

    `(W, b)(tau) = (W*, b*) + ((W, b)(0) - (W*, b*)) exp(-2 eta tau M)` with the second moment `M` of `(x_0 + sigma z, 1)`. A mean couples
    `W` and `b` by a matrix of rank one, and weights may overshoot on the way; without one `W = W* + (W(0) - W*) sum_k u_k u_k^T exp(-2 eta
    tau (l_k + sigma^2))` and `b = b(0) exp(-2 eta tau)`.

    Arguments:
        mean, covariance: of the clean data.
        sigma, tau, rate: the noise level, the training time and the learning rate.
        weight, bias: where training starts.

    Raises:
        ArgumentError: a negative noise level or training time, a rate that is not positive.
        ShapeError: a weight or bias of another shape.
    """
    dim = mean.shape[0]
    if not (0 <= sigma < math.inf and 0 <= tau < math.inf and 0 < rate < math.inf):
        raise ArgumentError("sigma, tau, rate", (sigma, tau, rate), "sigma >= 0, tau >= 0, rate > 0")
    if weight.shape != (dim, dim) or bias.shape != (dim,) or covariance.shape != (dim, dim):
        raise ShapeError(
            "covariance, weight, bias", tuple(tuple(x.shape) for x in (covariance, weight, bias)), f"({dim}, {dim}) twice, and ({dim},)"
        )
    m, c = mean.to(torch.float64), covariance.to(torch.float64)
    clean = torch.cat([c + torch.outer(m, m), m[:, None]], 1)  # E[x_0 (x_0, 1)^T]
    moment = torch.cat([clean, torch.cat([m, m.new_ones(1)])[None]])
    moment[:dim, :dim] += sigma**2 * torch.eye(dim, dtype=torch.float64, device=m.device)
    values, vectors = torch.linalg.eigh(moment)
    left = torch.exp(-2 * rate * tau * values)
    # (1 - left)/values is finite where a direction has neither variance nor noise: nothing is learned along it
    moved = torch.where(values > 0, -torch.expm1(-2 * rate * tau * values) / torch.where(values > 0, values, 1.0), 0.0)
    begun = torch.cat([weight, bias[:, None]], 1).to(torch.float64)
    out = (begun @ vectors * left + clean @ vectors * moved) @ vectors.T
    return out[:, :dim], out[:, dim]


def _checked(**numbers: Number) -> tuple[Tensor, ...]:
    out = []
    for name, value in numbers.items():
        x = torch.as_tensor(value, dtype=torch.float64)
        if not bool((torch.isfinite(x) & (x >= 0)).all()):
            raise ArgumentError(name, value, "finite numbers of at least 0")
        out.append(x)
    return tuple(out)
