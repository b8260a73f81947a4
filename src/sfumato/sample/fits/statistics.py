r"""Empirical statistics of a denoiser: how its noise prediction depends on the state, and how the rest of it drifts.

With the noise `E = (x - alpha D) / sigma`, `lambda` half the log-SNR, and everything taken in each mode of a basis on its own:

    l = E_x [sigma dE/dx]                                   the mean Jacobian
    f = (sigma E - l x) / alpha                             what is left of the noise beside its linear part
    f1 = df/dlambda along the flow = exp(-lambda) ((l - 1) E + dE/dlambda) - l' x / alpha
    s = Cov(f, f1) / Var(f),   b = E f1 - s E f             the affine part of its drift

measured on exact marginals `x = alpha x_0 + sigma eps`, with the same `x_0` and `eps` at every level so that the curves are smooth. Where
`f` does not vary (Gaussian laws) `s = 0`. Derivatives are central differences, so any denoiser will do.

Source: Zheng et al. 2023 (DPM-Solver-v3, arXiv 2310.13268), section 3.2 and appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.spectral.covariance import SpectralCovariance
from sfumato.sample.fits.calibration import Keys
from sfumato.seeds import noise


@dataclass(frozen=True)
class Statistics:
    """The measured curves over rising half log-SNR.

    Arguments:
        half_log_snr: `(nodes,)`, float64.
        jacobian, slope, drift: `l`, `s` and `b`, `(nodes, modes)`, float64.
        space: the law whose modes these are; None for one mode that stands for every coordinate.
        fitted_on: the noise draws that were used.

    Raises:
        ArgumentError: fewer than 4 nodes, nodes that do not rise, curves of other shapes or not finite, or a space with directions that are
            no mode.
    """

    half_log_snr: Tensor
    jacobian: Tensor
    slope: Tensor
    drift: Tensor
    space: Gaussian | None = None
    fitted_on: Keys = frozenset()

    def __post_init__(self) -> None:
        if len(self.half_log_snr) < 4 or not bool((self.half_log_snr.diff() > 0).all()):
            raise ArgumentError("half_log_snr", f"{len(self.half_log_snr)} nodes", "at least 4 rising nodes")
        shape = (len(self.half_log_snr), 1 if self.space is None else self.space.dim)
        for name, curve in (("jacobian", self.jacobian), ("slope", self.slope), ("drift", self.drift)):
            if curve.shape != shape or not bool(torch.isfinite(curve).all()):
                raise ArgumentError(name, f"{tuple(curve.shape)}, or values that are not finite", f"finite values {shape}")
        if self.space is not None and self.space.covariance.rank != self.space.dim:
            raise ArgumentError("space", f"{self.space.covariance.rank} modes", f"one for each of {self.space.dim} directions")


def coordinates(event_shape: Sequence[int]) -> Gaussian:
    """The law whose modes are the coordinates, in order: statistics per coordinate."""
    dim = math.prod(event_shape)
    ones = torch.ones(dim, dtype=torch.float64)
    return Gaussian(torch.zeros(dim, dtype=torch.float64), SpectralCovariance.diagonal(ones), event_shape)


def measure_statistics(
    denoiser: Denoiser,
    data: Float[Tensor, "n *event"],
    half_log_snr: Sequence[float] | Tensor,
    seed: int,
    space: Gaussian | None = None,
    *,
    probes: int | None = None,
) -> Statistics:
    """Measure a denoiser's statistics; 2 to 3 evaluations of `n` samples a node and direction.

    Arguments:
        denoiser: under the process it will be sampled with.
        data: clean samples; 1000 and more.
        half_log_snr: rising levels, where 100 to 1000 are usual; a sampler may only use levels between them.
        seed: of the noise.
        space: in whose modes; `coordinates(...)` for each coordinate on its own, None for one scalar.
        probes: random sign directions to measure the Jacobian's diagonal with; None for every direction in turn, exactly.

    Raises:
        ArgumentError: fewer than 2 samples, no probes, or what `Statistics` refuses.
    """
    from scipy.interpolate import CubicSpline

    if len(data) < 2 or (probes is not None and probes < 1):
        raise ArgumentError("data, probes", (len(data), probes), "at least 2 samples, and at least 1 probe or None")
    lam = torch.as_tensor(half_log_snr, dtype=torch.float64)
    probe = _Probe(denoiser, data, seed, space if space is not None else coordinates(data.shape[1:]), probes)
    with torch.no_grad():
        levels = [probe.at(float(v)) for v in lam]
    jacobian, moments, means = (torch.stack(parts) for parts in zip(*levels, strict=True))
    jacobian, moments, means = jacobian.cpu(), moments.cpu(), means.cpu()
    if space is None:
        jacobian, moments, means = (v.mean(-1, keepdim=True) for v in (jacobian, moments, means))
    rate = torch.from_numpy(CubicSpline(lam.numpy(), jacobian.numpy()).derivative()(lam.numpy()))
    # f = e - l v and f1 = e1 + (l - 1) e - l' v, as weights of (e, e1, v)
    ones, zeros = torch.ones_like(jacobian), torch.zeros_like(jacobian)
    f, f1 = torch.stack([ones, zeros, -jacobian], 1), torch.stack([jacobian - 1, ones, -rate], 1)
    covariance = moments - means[:, :, None] * means[:, None]
    variance = torch.einsum("nim,nijm,njm->nm", f, covariance, f)
    size = torch.einsum("nim,niim,nim->nm", f, covariance, f)
    shared = torch.einsum("nim,nijm,njm->nm", f, covariance, f1)
    seen = variance > 100 * torch.finfo(data.dtype).eps * size
    slope = torch.where(seen, shared / torch.where(seen, variance, 1.0), 0.0)
    drift = (f1 * means).sum(1) - slope * (f * means).sum(1)
    return Statistics(lam, jacobian, slope, drift, space, probe.keys)


class _Probe:
    def __init__(self, denoiser: Denoiser, data: Tensor, seed: int, space: Gaussian, probes: int | None) -> None:
        draws = noise(seed, len(data), data.shape[1:], dtype=data.dtype, device=data.device)
        self.denoiser, self.data, self.noise, self.keys = denoiser, data, draws.draw(0), frozenset(draws.keys)
        self.law = space.to(data.dtype, data.device)
        # the cube root of rounding balances a central difference
        self.step = float(torch.finfo(data.dtype).eps) ** (1 / 3)
        eye = torch.eye(self.law.dim, dtype=data.dtype, device=data.device)
        self.probes = [row[None] for row in eye] if probes is None else [torch.sign(draws.draw(1 + j).flatten(1)) for j in range(probes)]
        self.exact = probes is None

    def at(self, lam: float) -> tuple[Tensor, Tensor, Tensor]:
        """`l` `(modes,)`, and second moments `(3, 3, modes)` and means `(3, modes)` of `exp(-lambda) E`, its derivative and `x / alpha`."""
        k, d = math.exp(-lam), self.step
        v = self._modes(self.data + k * self.noise)
        e = v - self._answer(v, lam)
        total = torch.zeros_like(v)
        for way in self.probes:
            away = d * k * way
            total = total + way * (2 * away - self._answer(v + away, lam) + self._answer(v - away, lam)) / (2 * d * k)
        jacobian = total.mean(0) / (1 if self.exact else len(self.probes))
        # along the flow dv / dlambda = -exp(-lambda) E = -e
        ahead, behind = (v + s * e - self._answer(v + s * e, lam - s) for s in (-d, d))
        rate = k * (ahead * math.exp(lam + d) - behind * math.exp(lam - d)) / (2 * d)
        parts = torch.stack([e, rate, v]).to(torch.float64)
        return jacobian.to(torch.float64), torch.einsum("inm,jnm->ijm", parts, parts) / len(v), parts.mean(1)

    def _modes(self, y: Tensor) -> Tensor:
        return self.law.covariance.project(y.flatten(1) - self.law.mean)

    def _answer(self, v: Tensor, lam: float) -> Tensor:
        """The centred answer in the modes, at `x / alpha` given there."""
        process = self.denoiser.process
        t = float(process.time(lam))
        y = (self.law.covariance.lift(v) + self.law.mean).reshape(len(v), *self.data.shape[1:])
        return self._modes(self.denoiser.denoise(float(process.alpha(t)) * y, t))
