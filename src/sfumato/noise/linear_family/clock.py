r"""The clock route: coefficients that only change speed, `F = beta(t) F_0`, `C = beta(t) C_0`, `Q = beta(t) Q_0`.

They commute with themselves, so that with `B = int_s^t beta` the transition is that of the constant coefficients over the time `B`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.linear_family.basis import Basis
from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.noise.linear_family.van_loan import Coefs, constant_transition, stationary_covariance


@dataclass(frozen=True)
class Clock:
    """`beta(t) = first + (last - first) t`.

    Raises:
        ArgumentError: speeds that are not finite, or below 0, or 0 throughout.
    """

    first: float = 0.1
    last: float = 20.0

    def __post_init__(self) -> None:
        if not (0 <= self.first < math.inf and 0 <= self.last < math.inf and self.first + self.last > 0):
            raise ArgumentError("clock", (self.first, self.last), "finite speeds of at least 0, not both 0")

    def rate(self, t: Tensor) -> Tensor:
        """`beta(t)`."""
        return self.first + (self.last - self.first) * t

    def between(self, s: Tensor, t: Tensor) -> Tensor:
        """`int_s^t beta`."""
        return (t - s) * self.rate((s + t) / 2)


class ClockSDE(LinearSDE):
    """A member whose coefficients only change speed.

    Arguments:
        drift: `F_0`, `(n, K, K)`.
        noise: `Q_0`, `(n, K, K)`, symmetric and positive semi-definite; `n` is 1 or the basis's number of modes, for each on its own.
        clock: `beta`.
        gain: `C_0`, `(n, K, 1)`; None for no condition.
        channels: `K`; default: as many as `drift` has (a dense one has `K d` of them).
        basis, start, prior: see `LinearSDE`.

    Raises:
        ShapeError: blocks that do not fit together.
        ArgumentError: entries that are not finite, or noise that is no covariance.
    """

    def __init__(
        self,
        drift: Tensor,
        noise: Tensor,
        clock: Clock,
        *,
        gain: Tensor | None = None,
        channels: int | None = None,
        basis: Basis | None = None,
        start: Tensor | None = None,
        prior: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        for name, value in (("drift", drift), ("noise", noise)):
            if value.ndim != 3 or value.shape[1:] != drift.shape[1:] or value.shape[1] != value.shape[2]:
                raise ShapeError(name, tuple(value.shape), "blocks (n, K, K), the same K for drift and noise")
            if not bool(torch.isfinite(value).all()):
                raise ArgumentError(name, "entries that are not finite", "finite coefficients")
        size = float(noise.detach().abs().max())
        if (
            float((noise - noise.mT).detach().abs().max()) > 1e-10 * size
            or float(torch.linalg.eigvalsh(noise.detach()).min()) < -1e-10 * size
        ):
            raise ArgumentError("noise", "a matrix that is not symmetric and positive semi-definite", "Q = G G^T")
        super().__init__(
            channels if channels is not None else drift.shape[-1],
            0 if gain is None else gain.shape[-1],
            basis=basis,
            start=start,
            prior=prior,
        )
        self.clock = clock
        self._rates = drift, drift.new_zeros(1, drift.shape[-1], 0) if gain is None else gain, noise

    def stationary(self) -> Tensor:
        """The covariance that the process leaves as it is, `(n, K, K)`.

        Raises:
            ArgumentError: the drift is not Hurwitz.
        """
        drift, _, noise = self._rates
        return stationary_covariance(drift, noise)

    def _coefs(self, t: Tensor) -> Coefs:
        drift, gain, noise = self._rates
        beta = self.clock.rate(t)[..., None, None, None]
        return beta * drift, beta * gain, beta * noise

    def _transition(self, s: Tensor, t: Tensor) -> Coefs:
        drift, gain, noise = self._rates
        elapsed = self.clock.between(s, t)[..., None, None, None]
        return constant_transition(elapsed * drift, elapsed * gain, elapsed * noise)
