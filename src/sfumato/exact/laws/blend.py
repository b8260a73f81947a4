r"""Blends of two mixtures: `x_a = (1 - a) x_0 + a x_1` of independent `x_0 ~ sum_i w_i N(m_i, V_i)` and `x_1 ~ sum_k u_k N(n_k, S_k)`.

Every pair of components blends to a Gaussian, `N((1 - a) m_i + a n_k, C)` with `C = (1 - a)^2 V_i + a^2 S_k`, so what a blend says of its
two sides is closed form. With `R` the pairs' responsibilities and `e = C^-1 (x - mean)`,

    E[x_0 | x_a] = sum R (m_i + (1 - a) V_i e),        E[x_1 | x_a] = sum R (n_k + a S_k e),

and a draw of the pair is a draw of both sides corrected by what its blend misses (Matheron's rule). Source: Heitz et al. 2023 (arXiv
2305.03486), section 3; the closed forms are ours. Here `a = 0` is the source and `a = 1` the target, the reverse of a process's time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.laws.mixture import GaussianMixture
from sfumato.seeds import Noise


class Sides(NamedTuple):
    """The two sides of a blend, each `(batch, dim)`."""

    source: Tensor
    target: Tensor


class Blend:
    """The blends of two mixtures without singular components.

    Arguments:
        source, target: laws of flat events, of one dimension.

    Raises:
        ShapeError: other or different event shapes.
        ArgumentError: a component without variance in some direction.
    """

    def __init__(self, source: GaussianMixture, target: GaussianMixture) -> None:
        if source.event_shape != target.event_shape or len(source.event_shape) != 1:
            raise ShapeError("source, target", (source.event_shape, target.event_shape), "two laws of flat events of one dimension")
        if source.components.singular or target.components.singular:
            raise ArgumentError("source, target", "a singular component", "components with variance in every direction", "Add noise.")
        self.source, self.target = source, target
        self._means = source.means.to(torch.float64), target.means.to(torch.float64)
        self._spreads = [torch.stack([c.dense().to(torch.float64) for c in law.covariances]) for law in (source, target)]
        self._roots = [torch.linalg.cholesky(s) for s in self._spreads]
        self._log_weights = (torch.log(source.weights)[:, None] + torch.log(target.weights)).flatten()

    def sides(self, x: Float[Tensor, "batch dim"], a: float) -> Sides:
        """`E[x_0 | x_a = x]` and `E[x_1 | x_a = x]`."""
        shares, away = self._pairs(x, a)
        (m, n), (v, s) = self._means, self._spreads
        grid = (len(x), len(m), len(n), -1)
        shares, away = shares.reshape(grid[:3]), away.reshape(grid)
        source = torch.einsum("bik,id->bd", shares, m) + (1 - a) * torch.einsum("bik,ide,bike->bd", shares, v, away)
        target = torch.einsum("bik,kd->bd", shares, n) + a * torch.einsum("bik,kde,bike->bd", shares, s, away)
        return Sides(source.to(x), target.to(x))

    def velocity(self, x: Float[Tensor, "batch dim"], a: float) -> Float[Tensor, "batch dim"]:
        """`E[x_1 - x_0 | x_a = x]`: how fast the deterministic map moves."""
        sides = self.sides(x, a)
        return sides.target - sides.source

    def draw(self, x: Float[Tensor, "batch dim"], a: float, noise: Noise) -> Sides:
        """A random pair whose blend is `x`: draws 0 and 2 make the sides, and draw 1 picks the components, of each sample's noise."""
        shares, _ = self._pairs(x, a)
        scalar = Noise(noise.keys, (1,), torch.float64).draw(1)[:, 0]
        edges = torch.cumsum(shares, 1)
        pair = (torch.special.ndtr(scalar)[:, None] * edges[:, -1:] > edges).sum(1).clamp(max=shares.shape[1] - 1)
        i, k = pair // len(self._means[1]), pair % len(self._means[1])
        white = [Noise(noise.keys, noise.event, torch.float64).draw(j) for j in (0, 2)]
        drawn = [
            m[c] + torch.einsum("bde,be->bd", root[c], w) for m, root, c, w in zip(self._means, self._roots, (i, k), white, strict=True)
        ]
        v, s = self._spreads[0][i], self._spreads[1][k]
        missed = x.to(torch.float64) - ((1 - a) * drawn[0] + a * drawn[1])
        e = torch.linalg.solve((1 - a) ** 2 * v + a**2 * s, missed)
        source = drawn[0] + (1 - a) * torch.einsum("bde,be->bd", v, e)
        target = drawn[1] + a * torch.einsum("bde,be->bd", s, e)
        return Sides(source.to(x), target.to(x))

    def _pairs(self, x: Tensor, a: float) -> tuple[Tensor, Tensor]:
        """Responsibilities `(batch, pairs)`, and `C^-1 (x - mean)` `(batch, pairs, dim)`."""
        if not 0 <= a <= 1:
            raise ArgumentError("a", a, "a share of the target in [0, 1]")
        (m, n), (v, s) = self._means, self._spreads
        means = ((1 - a) * m[:, None] + a * n).flatten(0, 1)
        root = torch.linalg.cholesky(((1 - a) ** 2 * v[:, None] + a**2 * s).flatten(0, 1))
        y = x.to(torch.float64)[:, None] - means
        white = torch.linalg.solve_triangular(root, y[..., None], upper=False)
        logdet = root.diagonal(dim1=1, dim2=2).log().sum(1)
        shares = torch.softmax(self._log_weights - logdet - 0.5 * white[..., 0].square().sum(2), 1)
        return shares, torch.linalg.solve_triangular(root.mT, white, upper=True)[..., 0]
