r"""The probability flow of guided Gaussians: affine, though their covariances need not commute.

Guidance with weight `w` between two Gaussian beliefs, `D_w = (1 - w) D_u + w D_c`, is affine in `x`, and so is its flow. With the angle
`k = tan(phi)` and `z = x / sqrt(alpha^2 + sigma^2)`, the flow of `N(m, Sigma)` is

    dz/dphi = cos(phi) sin(phi) (1 - Sigma) T^-1 z - sin(phi) T^-1 m,        T = Sigma cos(phi)^2 + sin(phi)^2,

finite up to `phi = pi/2`, where no signal is left. The mixture of two such right-hand sides is integrated once for the matrix and the
offset, in the span of both laws' eigenvectors and means; what is orthogonal to it is scaled by

    (alpha_s / alpha_t) prod_i ((l_i + k_s^2) / (l_i + k_t^2))^(w_i / 2),        l_i the laws' rests, w_i = 1 - w and w.

No network is asked. Sources: Wang & Vastola 2024 (arXiv 2412.09726), section 3; Ho & Salimans 2022 (arXiv 2207.12598) for guidance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.spectral.basis import MatrixBasis
from sfumato.noise import ScalarProcess

LARGEST = 2048
"""The largest span in which a dense map is made."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DenseFlow:
    """`x -> Q (A Q^T x + c) + rest (x - Q Q^T x)`.

    Arguments:
        basis: the columns `Q` `(dim, R)`.
        matrix, offset: `A` and `c`, float64.
        rest: the gain outside the span.
    """

    basis: MatrixBasis
    matrix: Float[Tensor, "R R"]
    offset: Float[Tensor, " R"]
    rest: float

    def __call__(self, x: Float[Tensor, " batch *event"]) -> Float[Tensor, " batch *event"]:
        """The image of `x`, in its dtype.

        Raises:
            ShapeError: `x` has another number of elements per sample than the map has dimensions.
        """
        if x.ndim < 2 or x[0].numel() != self.basis.dim:
            raise ShapeError("x", tuple(x.shape), f"(batch, *event) with {self.basis.dim} elements per event")
        flat = x.flatten(1).to(self.basis.dtype)
        z = flat @ self.basis.matrix
        inside = (z.to(torch.float64) @ (self.matrix - self.rest * torch.eye(len(self.matrix), dtype=torch.float64)).T + self.offset).to(z)
        return (self.rest * flat + self.basis.lift(inside)).to(x.dtype).reshape(x.shape)

    def inverse(self) -> DenseFlow:
        """The map backwards."""
        back = torch.linalg.inv(self.matrix)
        return DenseFlow(self.basis, back, -back @ self.offset, 1 / self.rest)

    @property
    def logdet(self) -> Tensor:
        """`log |det|` of the map, a float64 scalar."""
        return torch.linalg.slogdet(self.matrix).logabsdet + self.basis.codim * math.log(self.rest)


def guided_flow(conditional: Gaussian, unconditional: Gaussian, weight: float, process: ScalarProcess, t: float, s: float) -> DenseFlow:
    """The flow of `(1 - weight) D_u + weight D_c` from `t` to `s`; `weight = 1` is the conditional law's own.

    Arguments:
        conditional, unconditional: e.g. `fit_gaussian` of a class and of all data; low rank keeps the integration small.
        weight: any number.
        t, s: noisy times in any order; `s` may be the clean end if no law has a direction without variance.

    Raises:
        ShapeError: laws of different dimensions.
        ArgumentError: a clean `t`, a clean `s` with a singular law, a span of more than `LARGEST` dimensions, or an integration that fails.
    """
    from scipy.integrate import solve_ivp

    laws = [(1 - weight, unconditional), (weight, conditional)]
    if conditional.dim != unconditional.dim:
        raise ShapeError("conditional, unconditional", (conditional.dim, unconditional.dim), "laws of one dimension")
    (alpha, sigma), (alpha_s, sigma_s) = [tuple(float(c) for c in process.levels(u)) for u in (t, s)]
    if sigma == 0 or (sigma_s == 0 and any(law.covariance.singular for _, law in laws)):
        raise ArgumentError("t, s", (t, s), "noisy times", "Only laws with variance in every direction reach the clean end.")
    basis = _span(conditional, unconditional)
    parts = [_Part.of(w, law, basis) for w, law in laws]
    size = basis.rank
    start = np.concatenate([np.eye(size), np.zeros((size, 1))], 1).reshape(-1)

    def rate(phi: float, flat: Array) -> Array:
        state = flat.reshape(size, size + 1)
        out = sum(part.rate(phi, state) for part in parts)
        return np.asarray(out).reshape(-1)

    first, last = math.atan2(sigma, alpha), math.atan2(sigma_s, alpha_s)
    found = solve_ivp(rate, (first, last), start, method="DOP853", rtol=1e-12, atol=1e-13)
    if not found.success:
        raise ArgumentError("conditional, unconditional, weight", found.message, "a flow that can be integrated")
    out = torch.from_numpy(found.y[:, -1].reshape(size, size + 1).copy())
    norm, norm_s = math.hypot(alpha, sigma), math.hypot(alpha_s, sigma_s)
    rest = norm_s / norm * math.prod(part.outside(first, last) for part in parts) if basis.codim else 1.0
    return DenseFlow(basis, out[:, :-1] * (norm_s / norm), out[:, -1] * norm_s, rest)


def _span(*laws: Gaussian) -> MatrixBasis:
    """An orthonormal system that holds the laws' eigenvectors and means."""
    dim = laws[0].dim
    width = sum(law.covariance.rank + 1 for law in laws)
    if min(dim, width) > LARGEST:
        raise ArgumentError("rank", [law.covariance.rank for law in laws], f"laws that span at most {LARGEST} dimensions", "Truncate them.")
    if width >= dim:
        return MatrixBasis(torch.eye(dim, dtype=torch.float64, device=laws[0].device), check=False)
    columns = [part.to(torch.float64) for law in laws for part in (law.covariance.basis.columns(), law.mean[:, None])]
    return MatrixBasis(torch.linalg.qr(torch.cat(columns, 1))[0], check=False)


@dataclass(frozen=True)
class _Part:
    """One law's share of the guided flow, in the coordinates of the span: its eigenvectors `V` `(R, r)` and its mean."""

    weight: float
    vectors: Array
    eigenvalues: Array
    rest: float
    mean: Array

    @classmethod
    def of(cls, weight: float, law: Gaussian, basis: MatrixBasis) -> _Part:
        columns = basis.matrix.T @ law.covariance.basis.columns().to(torch.float64)
        mean = basis.matrix.T @ law.mean.to(torch.float64)
        values = law.covariance.eigenvalues
        return cls(weight, columns.cpu().numpy(), values.cpu().numpy(), law.covariance.rest, mean.cpu().numpy())

    def rate(self, phi: float, state: Array) -> Array:
        """`weight (cos sin (1 - Sigma) T^-1 [A c] - sin T^-1 [0 m])`."""
        c, s = math.cos(phi), math.sin(phi)
        inner, outer = 1 / (self.eigenvalues * c**2 + s**2), self._outer(c, s)
        drive = c * s * (1 - self.eigenvalues) * inner
        drive_out = c * s * (1 - self.rest) * outer
        out = drive_out * state + self.vectors @ ((drive - drive_out)[:, None] * (self.vectors.T @ state))
        out[:, -1] -= s * (outer * self.mean + self.vectors @ ((inner - outer) * (self.vectors.T @ self.mean)))
        return self.weight * out

    def outside(self, first: float, last: float) -> float:
        """The factor on a direction outside the span: `sqrt(l cos^2 + sin^2)` at the end over the start, to the power of the weight."""
        a, b = [self.rest * math.cos(phi) ** 2 + math.sin(phi) ** 2 for phi in (first, last)]
        return float((b / a) ** (self.weight / 2))

    def _outer(self, c: float, s: float) -> float:
        # a system that spans all leaves no rest, whose reciprocal would be infinite at the clean end
        return 1 / (self.rest * c**2 + s**2) if self.vectors.shape[1] < self.vectors.shape[0] else 1.0
