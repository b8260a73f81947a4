r"""Any number of auxiliary channels with a fixed stationary law: `du = -beta (D + W) S^{-1} u dt + sqrt(2 beta D) dw`.

`D` is symmetric and positive semi-definite, `W` antisymmetric, and `N(0, S)` is stationary for all of them, so both may be learned: pass
tensors that require gradients. Source: Singhal et al. 2023 (arXiv 2302.07261), section 4 and appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.clock import Clock, ClockSDE
from sfumato.noise.linear_family.magnus import GridSDE
from sfumato.noise.linear_family.preset import preset
from sfumato.noise.linear_family.van_loan import Coefs


def _checked(dissipation: Tensor, rotation: Tensor, stationary: Tensor | None) -> Tensor:
    """The diagonal of the stationary covariance, float64."""
    skew = float((rotation + rotation.mT).detach().abs().max())
    if skew > 1e-10:
        raise ArgumentError("rotation", f"|W + W^T| up to {skew:.3g}", "an antisymmetric matrix", "Use q - q.T.")
    k = len(dissipation)
    diagonal = torch.ones(k, dtype=torch.float64) if stationary is None else torch.as_tensor(stationary, dtype=torch.float64)
    if diagonal.shape != (k,) or not bool((diagonal > 0).all()):
        raise ArgumentError("stationary", tuple(diagonal.tolist()), f"{k} positive variances")
    return diagonal


def _start(channels: int, spread: int | float) -> Tensor:
    return torch.diag(torch.tensor([0.0] + [spread] * (channels - 1), dtype=torch.float64))[None]


@preset
def mdm(
    dissipation: Tensor, rotation: Tensor, stationary: Tensor | None = None, first: float = 0.1, last: float = 10.0, spread: float = 0.01
) -> ClockSDE:
    """`F = -beta (D + W) S^{-1}`, `Q = 2 beta D`, `v_0 ~ N(0, spread)`.

    Arguments:
        dissipation, rotation: `D` and `W`, `(K, K)`.
        stationary: the diagonal of `S`, `(K,)`; default ones.
        first, last: the clock's speed at `t = 0` and 1.

    Raises:
        ArgumentError: `W` is not antisymmetric, which would move the stationary law, or `D` is no covariance.
    """
    law = _checked(dissipation, rotation, stationary)
    prior = torch.zeros(1, len(law), 0, dtype=torch.float64), torch.diag(law)[None]
    drift = -(dissipation + rotation) / law
    return ClockSDE(drift[None], 2 * dissipation[None], Clock(first, last), start=_start(len(law), spread), prior=prior)


@preset
def mdm_two_clocks(
    dissipation: Tensor, rotation: Tensor, forget: Sequence[float] = (0.1, 10.0), turn: Sequence[float] = (10.0, 0.1), spread: float = 0.01
) -> GridSDE:
    """`F = -(beta_D D + beta_W W)`, `Q = 2 beta_D D`: channels turn into each other and forget at speeds of their own; `N(0, I)` stays.

    Arguments:
        dissipation, rotation: `D` and `W`, `(K, K)`.
        forget, turn: the first and last speed of either.

    Raises:
        ArgumentError: `W` is not antisymmetric.
    """
    law, forgetting, turning = _checked(dissipation, rotation, None), Clock(*forget), Clock(*turn)

    def coefs(t: Tensor) -> Coefs:
        lost = forgetting.rate(t)[..., None, None, None] * dissipation
        drift = -lost - turning.rate(t)[..., None, None, None] * rotation
        return drift, drift[..., :0], 2 * lost

    prior = torch.zeros(1, len(law), 0, dtype=torch.float64), torch.diag(law)[None]
    return GridSDE(coefs, len(law), cells=192, start=_start(len(law), spread), prior=prior)


def _rotation(*weights: float) -> Tensor:
    """`-w_i` above the diagonal and `w_i` below it."""
    above = torch.diag(torch.tensor([-w for w in weights], dtype=torch.float64), 1)
    return above - above.T


def _diagonal(*values: float) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))


@preset
def alda(inverse_mass: float = 1.0, coupling: float = 1.0, friction: float = 1.0, first: float = 0.1, last: float = 10.0) -> ClockSDE:
    """Third-order Langevin with channels (x, v, acceleration): `W_12 = -1/L`, `W_23 = -g`, `D = diag(0, 0, xi/L)`,
    `S = diag(1, 1/L, 1/L)`."""
    law = torch.tensor([1.0, 1 / inverse_mass, 1 / inverse_mass], dtype=torch.float64)
    return mdm(_diagonal(0.0, 0.0, friction / inverse_mass), _rotation(1 / inverse_mass, coupling), law, first, last)


@preset
def malda(channels: int = 3, mass: float = 1.0, first: float = 0.1, last: float = 10.0) -> ClockSDE:
    """A chain of auxiliary channels: `W = -1` above and `1` below the diagonal, `D = diag(0, 2 sqrt(M), ...)`, `S = diag(1, M, ...)`."""
    if channels < 2:
        raise ArgumentError("channels", channels, "at least 2: the data and one auxiliary channel")
    law = torch.tensor([1.0] + [mass] * (channels - 1), dtype=torch.float64)
    return mdm(_diagonal(0.0, *[2 * mass**0.5] * (channels - 1)), _rotation(*[1.0] * (channels - 1)), law, first, last)
