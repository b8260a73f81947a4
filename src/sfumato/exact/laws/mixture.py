r"""Gaussian mixtures: `p(x) = sum_k w_k N(x; m_k, C_k)`.

At noise `(alpha, sigma)` component `k` has in its own eigenbasis the variances `u = alpha^2 l + sigma^2`, and `v = alpha^2 rest + sigma^2`
outside it. With `y = x - alpha m_k` and `z = U_k^T y`,

    log N_k = -1/2 [sum log u + (d - r) log v + sum z^2 / u + (|y|^2 - |z|^2) / v + d log 2 pi],      R = softmax(log w + log N),
    E[x_0 | x] = sum_k R_k (m_k + U_k diag(alpha l / u) z + (alpha rest / v) (y - U_k z)),
    score      = -sum_k R_k (U_k diag(1 / u) z + (y - U_k z) / v).

All components are evaluated together: two matrix products `(batch, d) x (d, K r)` for any number of them. The spectral factors are folded
into the small matrices when the noise level is one for the whole batch. In float32 the difference `|y|^2 - |z|^2` of low-rank components
loses its digits once `v` is below about `1e-6 |y|^2`; laws are float64 unless asked otherwise.
Source: Wang & Vastola 2024 (arXiv 2412.09726), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.laws.components import Components
from sfumato.exact.laws.conditioning import condition, noise_covariance, observation
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.laws.law import LOG_TWO_PI, Law, event_of, pick, probabilities, vector
from sfumato.exact.spectral.covariance import SpectralCovariance
from sfumato.noise import ScalarProcess, Time
from sfumato.seeds import Noise


class _Belief(NamedTuple):
    """What `x` at a noise level says about the components."""

    alpha: Tensor  # () or (batch,), float64
    modes: Tensor  # u, (K, r) or (batch, K, r), float64
    rest: Tensor  # v, (K,) or (batch, K), float64
    white: Tensor  # z / sqrt(u), (batch, K, r)
    joint: Tensor  # log w + log N, (batch, K)


class GaussianMixture(Law):
    """`sum_k w_k N(m_k, C_k)`; computes in the covariances' dtype.

    Arguments:
        weights: K numbers of at least 0; they are scaled to sum to 1.
        means: `(K, dim)`, or `(K, *event)`.
        covariances: K of them, of one dimension, dtype and device; singular ones leave the law without a density at `sigma = 0`.
        event_shape: default: the flat `(dim,)`.

    Raises:
        ShapeError, ArgumentError: the three do not fit together.

    Example:
        >>> import torch
        >>> from sfumato.exact import GaussianMixture, SpectralCovariance
        >>> from sfumato.noise import VariancePreserving
        >>> means = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        >>> law = GaussianMixture([0.5, 0.5], means, [SpectralCovariance.isotropic(1, 0.01)] * 2)
        >>> x = torch.tensor([[0.2]], dtype=torch.float64)
        >>> print([round(r, 3) for r in law.through(VariancePreserving(), 0.5).responsibilities(x)[0].tolist()])
        [0.47, 0.53]
    """

    def __init__(
        self,
        weights: Tensor | Sequence[float] | None,
        means: Tensor,
        covariances: Sequence[SpectralCovariance],
        event_shape: Sequence[int] | None = None,
    ) -> None:
        self.components = Components(covariances)
        k, dim = len(covariances), covariances[0].dim
        if means.ndim < 2 or means.shape[0] != k:
            raise ShapeError("means", tuple(means.shape), f"one mean per covariance, ({k}, {dim})")
        self.covariances = tuple(covariances)
        self.event_shape = event_of(dim, event_shape)
        self.weights = probabilities(weights, k, covariances[0].device)
        self.means = vector(means, k * dim, "means").reshape(k, dim).to(covariances[0].device, covariances[0].dtype)
        self.mean = (self.weights @ self.means.to(torch.float64)).to(self.means.dtype)
        # a component of weight 0 has log-weight -inf and is never believed in
        self._log_weights = torch.log(self.weights)
        self._projected = self.components.project_own(self.means)

    def __len__(self) -> int:
        return len(self.covariances)

    def joint_log_prob(self, x: Float[Tensor, " batch *event"]) -> Float[Tensor, "batch K"]:
        """`log w_k + log N(x; m_k, C_k)`, in the law's dtype.

        Raises:
            ArgumentError: a component is singular.
        """
        return self._clean_belief(self._flat(x)).joint

    def responsibilities(self, x: Float[Tensor, " batch *event"]) -> Float[Tensor, "batch K"]:
        """`p(component | x)`, in the law's dtype.

        Raises:
            ArgumentError: a component is singular.
        """
        return torch.softmax(self.joint_log_prob(x), 1)

    def hessian(self, x: Float[Tensor, " batch *event"]) -> Float[Tensor, "batch dim dim"]:
        """`Hess log p = sum_k R_k (s_k s_k^T - C_k^{-1}) - s s^T`, dense; `s_k` is the score of component `k`.

        Raises:
            ArgumentError: a component is singular.
        """
        flat = self._flat(x)
        shares = torch.softmax(self._clean_belief(flat).joint, 1)
        scores = torch.stack([-c.solve(flat - m) for c, m in zip(self.covariances, self.means, strict=True)], 1)
        score = torch.einsum("bk,bkd->bd", shares, scores)
        away = scores - score[:, None]
        precisions = torch.stack([c.map(torch.reciprocal).dense() for c in self.covariances])
        return torch.einsum("bk,bkd,bke->bde", shares, away, away) - torch.einsum("bk,kde->bde", shares, precisions)

    def posterior_covariance(self, x: Float[Tensor, " batch *event"], process: ScalarProcess, t: Time) -> Float[Tensor, "batch dim dim"]:
        """`Cov[x_0 | x_t = x]`, dense, at one time: `sum_k R_k (S_k + d_k d_k^T)` with the components' own posterior covariances `S_k` and
        the distances `d_k` of their posterior means from the mixture's; zero where `sigma = 0`, the law's covariance where `alpha = 0`.
        """
        flat = self._flat(x)
        alpha, sigma = self._levels(process, t, len(flat))
        if alpha.ndim:
            raise ShapeError("t", tuple(alpha.shape), "a single time")
        if float(sigma) == 0:
            return flat.new_zeros(len(flat), self.dim, self.dim)
        shares = torch.softmax(self._belief(flat, alpha, sigma).joint, 1)
        parts = [Gaussian(m, c) for m, c in zip(self.means, self.covariances, strict=True)]
        means = torch.stack([p.posterior_mean(flat, process, t) for p in parts], 1)
        spread = torch.stack([c.map(lambda v: v * sigma**2 / (alpha**2 * v + sigma**2)).dense() for c in self.covariances])
        away = means - torch.einsum("bk,bkd->bd", shares, means)[:, None]
        return torch.einsum("bk,kde->bde", shares, spread) + torch.einsum("bk,bkd,bke->bde", shares, away, away)

    def gaussian(self, rank: int | None = None) -> Gaussian:
        """The Gaussian of the same mean and covariance (dense, or truncated as in `SpectralCovariance.from_dense`)."""
        away = (self.means - self.mean).to(torch.float64)
        within = sum(w * c.dense().to(torch.float64) for w, c in zip(self.weights, self.covariances, strict=True))
        return Gaussian(
            self.mean, SpectralCovariance.from_dense((within + (self.weights * away.T) @ away).to(self.dtype), rank), self.event_shape
        )

    def given(self, A: Tensor, y: Tensor, noise: float | Tensor) -> GaussianMixture:
        A, y = observation(A, y, self.dim, self.device)
        R = noise_covariance(noise, len(y), self.device)
        parts = [condition(m, c, A, y, R) for m, c in zip(self.means, self.covariances, strict=True)]
        weights = torch.softmax(self._log_weights + torch.stack([evidence for _, _, evidence in parts]), 0)
        covariances = [covariance.to(self.dtype) for _, covariance, _ in parts]
        return GaussianMixture(weights, torch.stack([mean for mean, _, _ in parts]), covariances, self.event_shape)

    def to(self, dtype: torch.dtype, device: torch.device | str | None = None) -> GaussianMixture:
        moved = [c.to(dtype, device) for c in self.covariances]
        return GaussianMixture(self.weights, self.means.to(dtype), moved, self.event_shape)

    def _noised(self, alpha: float, sigma: float) -> GaussianMixture:
        noised = [c.map(lambda v: alpha**2 * v + sigma**2) for c in self.covariances]
        return GaussianMixture(self.weights, alpha * self.means, noised, self.event_shape)

    def _sample(self, draws: Noise) -> Tensor:
        white = draws.draw(0).reshape(len(draws), self.dim)
        chosen = pick(self.weights, draws)
        out = torch.empty_like(white)
        for k, (mean, covariance) in enumerate(zip(self.means, self.covariances, strict=True)):
            rows = chosen == k
            out[rows] = mean + covariance.sqrt_matmul(white[rows])
        return out

    def _log_prob(self, x: Tensor) -> Tensor:
        return torch.logsumexp(self._clean_belief(x).joint, 1)

    def _score(self, x: Tensor) -> Tensor:
        belief = self._clean_belief(x)
        return self._combine(x, belief, -1 / belief.modes, -1 / belief.rest, offset=0.0)

    def _posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        clean = sigma == 0
        if not bool(clean.any()):
            return self._noisy_mean(x, alpha, sigma)
        # without noise x_t is alpha x_0, whatever the components are; the other branch is computed at alpha = sigma = 1 there
        noisy = self._noisy_mean(x, torch.where(clean, 1.0, alpha), torch.where(clean, 1.0, sigma))
        inverse = torch.where(clean, 1 / torch.where(clean, alpha, 1.0), 0.0)[..., None].to(x.dtype)
        return torch.where(clean[..., None], inverse * x, noisy)

    def _noisy_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        belief = self._belief(x, alpha, sigma)
        a = alpha[..., None]
        modes = a[..., None] * self.components.eigenvalues / belief.modes
        return self._combine(x, belief, modes, a * self.components.rest / belief.rest, offset=1.0)

    def _clean_belief(self, x: Tensor) -> _Belief:
        if self.components.singular:
            raise ArgumentError("covariances", "a component without variance in some direction", "a law that has a density", "Add noise.")
        one = self.weights.new_ones(())
        return self._belief(x, one, one * 0)

    def _belief(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> _Belief:
        parts, a, variance = self.components, alpha[..., None], (sigma**2)[..., None]
        modes = (a**2)[..., None] * parts.eigenvalues + variance[..., None]
        rest = a**2 * parts.rest + variance
        white = parts.project(x, self._projected, alpha, modes.rsqrt())
        distance = torch.linalg.vector_norm(white, dim=-1).square()
        logdet = (parts.counts * modes.log()).sum(-1)
        if parts.thin:
            logdet = logdet + parts.codim * rest.log()
            a = a.to(x.dtype)
            total = x.square().sum(1, keepdim=True) - 2 * a * (x @ self.means.T) + a**2 * self.means.square().sum(1)
            outside = total - torch.linalg.vector_norm(white * modes.to(x.dtype).sqrt(), dim=-1).square()
            # below 0 only by rounding: it is the squared length of the part outside the basis
            distance = distance + (parts.codim > 0) * outside.clamp(min=0) / rest.to(x.dtype)
        constant = self._log_weights - 0.5 * (logdet + self.dim * LOG_TWO_PI)
        return _Belief(alpha, modes, rest, white, constant.to(x.dtype) - 0.5 * distance)

    def _combine(self, x: Tensor, belief: _Belief, modes: Tensor, rest: Tensor, offset: float) -> Tensor:
        """`sum_k R_k (offset m_k + f_k(C_k) (x - alpha m_k))`, with the spectra `modes` and `rest` of `f_k(C_k)`."""
        shares = torch.softmax(belief.joint, 1)
        # shares that no digit of the sum can see are 0, for products of subnormal numbers are slow
        shares = shares * (shares > torch.finfo(shares.dtype).tiny ** 0.5)
        if not self.components.thin:
            out = (offset * shares) @ self.means
        else:
            rest = rest * (self.components.codim > 0)
            on_means = offset - belief.alpha[..., None] * rest
            out = (shares * on_means.to(x.dtype)) @ self.means + (shares * rest.to(x.dtype)).sum(1, keepdim=True) * x
            modes = modes - rest[..., None]
        return out + self.components.lift(shares[..., None] * belief.white, modes * belief.modes.sqrt())
