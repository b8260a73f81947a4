r"""Denoisers fitted in a kernel, as very wide networks trained lazily are: how their answers depend on the targets they were given.

With the kernel `k` over `z = (x, t)`, training inputs `Z` (P of them), targets `y`, gradient-flow time `tau` and the initial network `f_0`,

    f(z) = f_0(z) + T(z) (y - f_0(Z)),        T(z) = k(z, Z) K^{-1} (I - exp(-K tau)),        K = k(Z, Z),

and ridge regression is `T(z) = k(z, Z) (K + rho I)^{-1}`. Given the inputs, the targets scatter by the posterior variance, and so the
denoiser by

    V(z, z' | Z) = T(z) diag(Cov[x_0 | x_n, t_n]) T(z')^T
                   + S_0(z, z') - T(z) S_0(Z, z') - S_0(z, Z) T(z')^T + T(z) S_0(Z, Z) T(z')^T,

where the second line is what is left of the scatter `S_0` of the initial functions. A narrow kernel at `tau = inf` gives each training
input its own target: the naive estimator's noise.
Source: Vastola 2025 (arXiv 2504.12532), section 6; Jacot, Gabriel & Hongler 2018 (arXiv 1806.07572).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Law
from sfumato.exact.learning.proxy import posterior_covariance
from sfumato.learn.closed.triples import Triples
from sfumato.noise import ScalarProcess, Time, as_time
from sfumato.seeds import noise


@dataclass(frozen=True)
class SpaceTimeKernel:
    """`k(z, z') = scale exp(-(r/length)^p / p - (|t - t'|/length_t)^p / p)`, `r = |x - x'|`; Gaussian `p = 2` or Laplace `p = 1`.

    Arguments:
        length, length_t: over which it falls.
        shape: "gaussian", whose functions are smooth, or "laplace", whose functions have kinks, like those of a wide network.
        scale: its value at distance 0.

    Raises:
        ArgumentError: a length or a scale that is not positive, another shape.
    """

    length: float = 0.3
    length_t: float = 0.15
    shape: Literal["gaussian", "laplace"] = "laplace"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.length < math.inf and 0 < self.length_t < math.inf and 0 < self.scale < math.inf):
            raise ArgumentError("length, length_t, scale", (self.length, self.length_t, self.scale), "positive numbers")
        if self.shape not in ("gaussian", "laplace"):
            raise ArgumentError("shape", repr(self.shape), "'gaussian' or 'laplace'")

    def __call__(
        self, x: Float[Tensor, "n dim"], t: Float[Tensor, " n"], other: Float[Tensor, "m dim"], other_t: Float[Tensor, " m"]
    ) -> Float[Tensor, "n m"]:
        """The matrix of `k((x, t), (x', t'))`, float64."""
        power = 2 if self.shape == "gaussian" else 1
        apart = torch.cdist(x, other, compute_mode="donot_use_mm_for_euclid_dist") / self.length
        later = (t[:, None] - other_t).abs() / self.length_t
        return self.scale * torch.exp(-(apart**power + later**power) / power)


class KernelFit:
    """The linear map `T` from targets at fixed training inputs to answers; fitted once, whatever the targets.

    Arguments:
        kernel: see `SpaceTimeKernel`.
        triples: whose inputs `(noisy, t)` are trained on (loss weights are not used: in a kernel every input is fitted alike).
        process: the process whose noisy data they are.
        ridge: `rho`; or
        time: `tau`, the gradient-flow time times the learning rate, up to `math.inf`. One of the two is given.

    Raises:
        ArgumentError: both or neither of ridge and time, one that is not positive, or inputs that the kernel cannot tell apart at
            `time = inf`.
    """

    def __init__(
        self, kernel: SpaceTimeKernel, triples: Triples, process: ScalarProcess, *, ridge: float | None = None, time: float | None = None
    ) -> None:
        if (ridge is None) == (time is None) or not (ridge or time or 0) > 0:
            raise ArgumentError("ridge, time", (ridge, time), "one of the two, positive")
        self.kernel, self.triples, self.process = kernel, triples, process
        values, vectors = torch.linalg.eigh(kernel(triples.noisy, triples.t, triples.noisy, triples.t))
        # rounding can leave eigenvalues of a positive matrix below 0
        values = values.clamp(min=0)
        if ridge is not None:
            gains = 1 / (values + ridge)
        elif time is not None and math.isfinite(time):
            gains = torch.where(values > 0, -torch.expm1(-values * time) / values, time)
        else:
            if float(values[0]) <= len(values) * torch.finfo(values.dtype).eps * float(values[-1]):
                raise ArgumentError("time", time, "a finite time, or a ridge", "The kernel cannot tell all training inputs apart.")
            gains = 1 / values
        self._inverse = (vectors * gains) @ vectors.T

    def transfer(self, x: Float[Tensor, "n *event"], t: Time) -> Float[Tensor, "n P"]:
        """`T(x, t)`."""
        return self._reach(x, t) @ self._inverse

    def denoiser(self, targets: Float[Tensor, "P dim"] | None = None) -> KernelDenoiser:
        """The denoiser that training from `f_0 = 0` on these targets (default: those of the triples) ends with."""
        return KernelDenoiser(self, self.triples.target if targets is None else targets)

    def spread(self, law: Law) -> KernelSpread:
        """The scatter of these denoisers over the targets, given the inputs."""
        parts = [
            posterior_covariance(law, x[None].reshape(1, *law.event_shape), self.process, float(t))[0]
            for x, t in zip(self.triples.noisy, self.triples.t, strict=True)
        ]
        mean = law.posterior_mean(self.triples.noisy.reshape(-1, *law.event_shape), self.process, self.triples.t)
        return KernelSpread(self, mean.flatten(1), torch.stack(parts))

    def initial_variance(self, initial: SpaceTimeKernel, x: Float[Tensor, "n *event"], t: Time) -> Float[Tensor, " n"]:
        """What training leaves of the variance of random initial functions with the kernel `S_0 = initial`, of every output."""
        flat, times, transfer = x.flatten(1).to(torch.float64), as_time(t).expand(len(x)), self.transfer(x, t)
        inputs = (self.triples.noisy, self.triples.t)
        cross = initial(flat, times, *inputs)
        own = torch.full((len(x),), initial.scale, dtype=torch.float64)
        return own - 2 * (transfer * cross).sum(1) + ((transfer @ initial(*inputs, *inputs)) * transfer).sum(1)

    def _reach(self, x: Tensor, t: Time) -> Tensor:
        return self.kernel(x.flatten(1).to(torch.float64), as_time(t).expand(len(x)), self.triples.noisy, self.triples.t)


class KernelDenoiser(Denoiser):
    """`T(x, t) y`.

    Arguments:
        fit: the map `T`.
        targets: `y`, `(P, dim)`, float64.
    """

    def __init__(self, fit: KernelFit, targets: Float[Tensor, "P dim"]) -> None:
        self.fit, self.process = fit, fit.process
        self._coefficients = fit._inverse @ targets

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        if condition is not None:
            raise ArgumentError("condition", tuple(condition.shape), "none", "A kernel denoiser has no condition.")
        return (self.fit._reach(x, t) @ self._coefficients).to(x.dtype).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class KernelSpread:
    """The law of kernel denoisers over fresh targets at fixed inputs.

    Arguments:
        fit: the inputs and the map.
        mean: `E[x_0 | x_n, t_n]`, `(P, dim)`.
        covariance: `Cov[x_0 | x_n, t_n]`, `(P, dim, dim)`.
    """

    fit: KernelFit
    mean: Float[Tensor, "P dim"]
    covariance: Float[Tensor, "P dim dim"]

    def variance(self, x: Float[Tensor, "n *event"], t: Time) -> Float[Tensor, "n dim"]:
        """`V(z, z | Z)` of the denoiser's every output."""
        return self.fit.transfer(x, t).square() @ torch.diagonal(self.covariance, dim1=1, dim2=2)

    def kernel(self, x: Float[Tensor, "n *event"], t: Time, other: Float[Tensor, "m *event"], other_t: Time) -> Float[Tensor, "dim n m"]:
        """`V(z, z' | Z)` of the denoiser, one matrix per output."""
        left, right = self.fit.transfer(x, t), self.fit.transfer(other, other_t)
        variances = torch.diagonal(self.covariance, dim1=1, dim2=2).T
        return torch.stack([(left * v) @ right.T for v in variances])

    def draw(self, models: int, seed: int = 0) -> list[KernelDenoiser]:
        """Whole random denoisers: the same mean and covariance, with Gaussian targets."""
        values, vectors = torch.linalg.eigh(self.covariance)
        root = vectors * values.clamp(min=0).sqrt()[:, None]
        white = noise(seed, models, tuple(self.mean.shape), dtype=torch.float64).draw(0)
        return [self.fit.denoiser(self.mean + torch.einsum("pij,pj->pi", root, w)) for w in white]
