r"""Diffusions on the line that are reversible with respect to a density `pi`, for all times from one eigendecomposition.

`dx = q (log pi)' dt + sqrt(2 q) dW` between cells of width `w` jumps from `i` to `j = i +- 1` at the rate `q / w^2 sqrt(pi_j / pi_i)`. The
generator in units of `sqrt(pi)` is then symmetric and tridiagonal, `pi` is exactly stationary, and the error is of second order in `w`.
Source: Kramers' rates by finite volumes (Bezerra & Stephens; Latorre et al. 2011, Discrete and Continuous Dynamical Systems B 16, 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.diffusions.fokker_planck import Line, LineDensity


class ReversibleLine:
    """The law of such a diffusion at any time.

    Arguments:
        line: the cells; their ends reflect.
        log_density: `log pi` up to a constant, of places `(n,)`.
        diffusion: `q`, half the squared noise.

    Raises:
        ArgumentError: a `q` that is not positive, or a density that is not finite or falls by more than `e^600` on the line.
    """

    def __init__(self, line: Line, log_density: Callable[[Tensor], Tensor], diffusion: float = 0.5) -> None:
        from scipy.linalg import eigh_tridiagonal

        self.line, log_pi = line, log_density(line.centres)
        if not diffusion > 0 or not float(log_pi.max() - log_pi.min()) < 600:
            raise ArgumentError("log_density, diffusion", float(log_pi.max() - log_pi.min()), "a finite density, and a positive diffusion")
        self._root = torch.exp((log_pi - log_pi.max()) / 2)
        rate = diffusion / line.width**2
        out = torch.zeros(line.cells, dtype=torch.float64)
        out[:-1] += rate * self._root[1:] / self._root[:-1]
        out[1:] += rate * self._root[:-1] / self._root[1:]
        values, vectors = eigh_tridiagonal(-out.numpy(), torch.full((line.cells - 1,), rate, dtype=torch.float64).numpy())
        self._values, self._vectors = torch.from_numpy(values).clamp(max=0), torch.from_numpy(vectors)

    def density(self, start: LineDensity, t: float) -> LineDensity:
        """The density at time `t`, from `start` at 0."""
        if not t >= 0:
            raise ArgumentError("t", t, "a time of at least 0")
        parts = self._vectors.T @ (start.values / self._root)
        values = self._root * (self._vectors @ (torch.exp(t * self._values) * parts))
        return LineDensity(self.line, values.clamp(min=0))

    def score(self, density: LineDensity) -> Float[Tensor, " cells"]:
        """`(log p)'` in the middles of the cells, from central differences of `log p`; NaN where the density is below 1e-10 of its peak."""
        seen = torch.where(density.values > 1e-10 * density.values.max(), density.values, torch.nan)
        (found,) = torch.gradient(seen.log(), spacing=self.line.width)
        return found
