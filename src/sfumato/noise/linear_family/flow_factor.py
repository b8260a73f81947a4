r"""The rotation that makes a Cholesky factor a flow factor.

Write `R = L O` with `S = L L^T`. As `dL/dt = L low(X + X^T)` for `X = L^{-1} (F L + Q L^{-T} / 2)` (`low`: lower triangle and half the
diagonal), the equation `dR/dt = (F + Q S^{-1} / 2) R` leaves

    dO/dt = (U - U^T) O,      U the strict upper triangle of X,

so `O` is orthogonal and never has to be told apart from the growing scale of `L`. It is integrated by Magnus steps of order 4 on cells
equal in `log t`, since `X` grows like a power of `1/t` at the clean end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.noise.linear_family.van_loan import Coefs, short_exponential

_CELLS = 512
_GAUSS = (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)


def rotation(coefs: Callable[[Tensor], Coefs], covariance: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """`O_t`, at times of any shape: `(*times, n, K, K)`, with `O = 1` up to `t = 1e-4` (two channels) or `1e-3` (more).

    Arguments:
        coefs: `(F, C, Q)` of times.
        covariance: `S` of times, as `coefs` returns `Q`.
    """
    # the same cells for all times, the last one cut short, so that what they leave out cancels between two times
    # with more channels the first ones have, at earlier times, a variance that float64 cannot tell from 0 given the others
    first_time = 1e-4 if coefs(t)[0].shape[-1] == 2 else 1e-3
    cell = math.log(1 / first_time) / _CELLS
    done = torch.log(t.clamp(min=first_time) / first_time)
    full = torch.floor(done / cell).clamp(0, _CELLS - 1)
    last = int(full.max()) if t.numel() else 0

    def steps(left: Tensor, width: Tensor) -> Tensor:
        turning = []
        for g in _GAUSS:
            u = first_time * torch.exp(left + width * g)
            drift, _, noise = coefs(u)
            # d/d log t, as the cells are equal in log t
            turning.append(_generator(drift, noise, covariance(u)) * u[..., None, None, None])
        first, second = turning
        h = width[..., None, None, None]
        turn = short_exponential((h / 2 * (first + second) + math.sqrt(3) / 12 * h**2 * (second @ first - first @ second)) / 4)
        return torch.linalg.matrix_power(turn, 4)

    starts = cell * torch.arange(last, dtype=torch.float64, device=t.device)
    cut = steps(cell * full, done - cell * full)
    before = running_product(steps(starts, torch.full_like(starts, cell))) if last else cut.new_zeros(0, *cut.shape[t.ndim :])
    one = torch.eye(cut.shape[-1], dtype=cut.dtype, device=cut.device).expand(1, *cut.shape[t.ndim :])
    return cut @ torch.cat([one, before])[full.long()]


def _generator(drift: Tensor, noise: Tensor, covariance: Tensor) -> Tensor:
    root = torch.linalg.cholesky(covariance)
    # L^{-1} Q L^{-T}
    half = torch.linalg.solve_triangular(root, noise.expand_as(covariance), upper=False)
    white = torch.linalg.solve_triangular(root, half.mT, upper=False)
    upper = torch.triu(torch.linalg.solve_triangular(root, drift @ root, upper=False) + white / 2, 1)
    return upper - upper.mT


def running_product(factors: Tensor) -> Tensor:
    """All products of the first matrices along the first axis, later ones leftmost, in a logarithmic number of steps."""
    shift = 1
    while shift < len(factors):
        factors = torch.cat([factors[:shift], factors[shift:] @ factors[:-shift]])
        shift *= 2
    return factors


def ordered_product(factors: Tensor, dim: int) -> Tensor:
    """The product of matrices along `dim` (negative), the last factor leftmost, in a logarithmic number of steps."""
    factors = factors.movedim(dim, 0)
    while len(factors) > 1:
        odd = factors[-1:] if len(factors) % 2 else factors[:0]
        pairs = factors[: len(factors) - len(odd)]
        factors = torch.cat([pairs[1::2] @ pairs[0::2], odd])
    return factors[0]
