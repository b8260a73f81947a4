r"""The linear SDE family: `dx = (F(t) x + C(t) y) dt + G(t) dw`, `Q = G G^T`.

A state has `K` channels per coordinate: for `K = 1` it is shaped as the data, `(batch, *event)`; for `K > 1` it is `(batch, K, *event)`,
the data first, then auxiliary channels such as a velocity. `y` `(batch, *event)` is a condition known per sample (noisy speech, a
degraded image, the other end of a bridge). All transitions are Gaussian,

    x_t | x_s ~ N(Phi x_s + O y, S),       dPhi/dt = F Phi,   dO/dt = F O + C,   dS/dt = F S + S F^T + Q,

and everything below is derived from `(F, C, Q)` and `(Phi, O, S)` alone. A member gives these two, by one of three routes (`clock.py`,
`magnus.py`, `marginal_table.py`), which agree with a fourth, the differential equation itself (`oracle.py`). What the start `x_0` has
besides the data (auxiliary channels `v_0 ~ N(0, P)`) is integrated out of the marginals.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.linear_family.basis import Basis, pixels
from sfumato.noise.linear_family.flow_factor import rotation
from sfumato.noise.linear_family.linear_law import Between, LinearLaw, Prior, coordinates_of, plus_shift
from sfumato.noise.linear_family.operator import Operator
from sfumato.noise.linear_family.van_loan import Coefs
from sfumato.noise.process import Process, Time, as_time


class LinearSDE(Process):
    """A member of the family; see the module for states and notation.

    Coefficients are computed in float64 on the CPU, and cast to the state's dtype and device when they are applied. Times are scalars, one
    per sample `(batch,)`, or one per sample and pixel `(batch, *event)` (for members that treat all coordinates
    alike).

    Arguments:
        channels: `K`.
        conditions: 1 if the drift has a term `C y`, else 0.
        basis: the basis in which the coefficients are diagonal; None if all coordinates are treated alike.
        start: the covariance of the start beside the data, `(n or 1, K, K)`; default 0.
        prior: `(O, S)` of the law `N(O y, S)` that sampling starts from, default: the process's own at `t = 1` for data 0.

    Example:
        >>> from sfumato.noise import LINEAR_SDES, cld
        >>> process = cld()  # a position and a velocity
        >>> sorted(LINEAR_SDES)[:4]
        ['agm', 'alda', 'blurred_cld', 'blurring']
        >>> law = process.transition(0.2, 0.5)
        >>> type(law.phi).__name__, type(law.covariance).__name__
        ('Operator', 'Operator')
    """

    origin: dict[str, Any] | None = None
    """How a preset was made, if it was one."""

    def __init__(
        self,
        channels: int = 1,
        conditions: int = 0,
        *,
        basis: Basis | None = None,
        start: Tensor | None = None,
        prior: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.channels, self.conditions, self.basis = channels, conditions, basis
        size = channels * (basis.coordinates if basis is not None and basis.name == "dense" else 1)
        self.start = torch.zeros(1, size, size, dtype=torch.float64) if start is None else start.to(torch.float64)
        if self.start.ndim != 3 or self.start.shape[1:] != (size, size):
            raise ShapeError("start", tuple(self.start.shape), f"a covariance (n, {size}, {size})")
        self._prior = prior

    @abstractmethod
    def _coefs(self, t: Tensor) -> Coefs:
        """`(F, C, Q)` at float64 times of any shape, `(*times, n, K, K)`, and `C` with `conditions` columns."""

    @abstractmethod
    def _transition(self, s: Tensor, t: Tensor) -> Coefs:
        """`(Phi, O, S)` between float64 times of one shape, `s <= t`."""

    def coefs(self, t: Time) -> LinearLaw:
        """`F`, `C` and `Q` at time `t`, as the fields `phi`, `shift` and `covariance`.

        Raises:
            ArgumentError: a time at which they are not finite.
        """
        (times,), event = _times(t)
        return self._law(self._coefs(times), event, "t", t)

    def transition(self, s: Time, t: Time) -> LinearLaw:
        """The law of `x_t` given `x_s`, for `s <= t`.

        Raises:
            ArgumentError: `s > t`, or times at which it is not finite.
        """
        (start, end), event = _times(s, t)
        if bool((start > end).any()):
            raise ArgumentError("s, t", (s, t), "s <= t", "The transition runs from clean to noisy.")
        return self._law(self._transition(start, end), event, "s, t", (s, t))

    def marginal(self, t: Time) -> LinearLaw:
        """The law of `x_t` given the data `x_0`: `N(A x_0 + O y, S)`, with the auxiliary channels of the start integrated out."""
        (end,), event = _times(t)
        return self._law(self._marginal(end), event, "t", t)

    def _marginal(self, t: Tensor) -> Coefs:
        """`(A, O, S)` at float64 times of any shape."""
        phi, gain, spread = self._transition(torch.zeros_like(t), t)
        return phi[..., : phi.shape[-1] // self.channels], gain, spread + phi @ self.start.to(phi) @ phi.mT

    def _law(self, coefs: Coefs, event: tuple[int, ...] | None, name: str, given: object) -> LinearLaw:
        if not all(bool(torch.isfinite(c).all()) for c in coefs):
            raise ArgumentError(name, given, "times at which the process is finite", "Stop short of its singular end.")
        phi, gain, spread = coefs
        return LinearLaw(
            self._operator(phi, event), self._operator(gain, event) if self.conditions else None, self._operator(spread, event)
        )

    def _operator(self, coef: Tensor, event: tuple[int, ...] | None) -> Operator:
        if event is None:
            return Operator(coef, self.basis)
        if coef.shape[-3] != 1 or (self.basis is not None and self.basis.name == "dense"):
            raise ShapeError(
                "t",
                f"one time per pixel of {event}",
                "one time per sample",
                f"Its operators are {self._operator(coef[0, 0], None).structure}.",
            )
        return Operator(coef[..., 0, :, :], pixels(event))

    def prior(self) -> Prior:
        """The law `N(O y, P)` that sampling starts from at `t = 1`."""
        _, gain, spread = (None, *self._prior) if self._prior else self._marginal(torch.ones((), dtype=torch.float64))
        return Prior(self._operator(gain, None) if self.conditions else None, self._operator(spread, None))

    def mismatch(self, x0: Float[Tensor, " batch *event"], condition: Tensor | None = None) -> Float[Tensor, " batch"]:
        """`KL(N(A x_0 + O y, S) at t = 1 || prior)` per sample, in nats: what starting from the prior costs.

        Raises:
            ArgumentError: a singular prior or end.
        """
        end, prior = self.marginal(1.0), self.prior()
        away = plus_shift(end.mean(x0.to(torch.float64), condition), prior.shift, condition, sign=-1.0)
        d = coordinates_of(away, end.covariance)
        inverse = prior.covariance.inverse()
        numbers = d * end.covariance.channels[0]
        logs = prior.covariance.logdet(d) - end.covariance.logdet(d)
        return 0.5 * ((away * inverse.apply(away)).flatten(1).sum(1) + (inverse @ end.covariance).trace(d) - numbers + logs)

    def sample(self, x0: Tensor, t: Time, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """`A x_0 + O y + L noise`, a state; `L` is the Cholesky factor of `S`.

        Arguments:
            x0: the data `(batch, *event)`, without auxiliary channels.
            t: see the class.
            noise: standard, of the state's shape.

        Raises:
            ShapeError: noise or condition of another shape.
        """
        if noise.shape != (shape := self.state_shape(x0)):
            raise ShapeError("noise", tuple(noise.shape), f"the shape of a state, {shape}")
        law = self.marginal(t)
        return law.mean(x0, condition) + law.covariance.cholesky().apply(noise)

    def prior_sample(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """A draw of the prior, made of standard `noise` of the state's shape."""
        return self.prior().sample(noise, condition)

    def state_shape(self, x0: Tensor) -> tuple[int, ...]:
        """The shape of states of the data `x0`."""
        return tuple(x0.shape) if self.channels == 1 else (x0.shape[0], self.channels, *x0.shape[1:])

    def posterior(self, s: Time, t: Time) -> Between:
        """The law of `x_s` given `x_t` and the data `x_0`, `s <= t`: the step of ancestral sampling.

        With `J = S_s Phi^T S_t^{-1}`: mean `A_s x_0 + O_s y + J (x_t - A_t x_0 - O_t y)`, covariance `S_s - J Phi S_s` (in Joseph's form).

        Raises:
            ArgumentError: `s > t`, or a singular covariance at `t`.
        """
        return conditioned(self.marginal(s), self.transition(s, t))

    def bridge(self, u: Time, s: Time, t: Time) -> Between:
        """The law of `x_u` given `x_s` and `x_t`, `s <= u <= t`.

        Raises:
            ArgumentError: times out of order, or an end that the noise cannot reach.
        """
        return conditioned(self.transition(s, u), self.transition(u, t))

    def flow_factor(self, t: Time) -> Operator:
        """`R` with `R R^T = S_t` and `dR/dt = (F + Q S_t^{-1} / 2) R`, on which the probability flow of a point mass stands still.

        With one channel it is `sqrt(S)`. With more it is the Cholesky factor times a rotation, and neither the Cholesky factor nor the
        symmetric root themselves (it is unique up to a constant rotation, which cancels in `R_s R_t^{-1}`).
        """
        (times,), event = _times(t)
        root = self.marginal(t).covariance.cholesky()
        if self.start.shape[-1] == 1:
            return root
        return root @ self._operator(rotation(self._coefs, lambda u: self._marginal(u)[2], times), event)

    def drift(self, x: Tensor, t: Time, score: Tensor | None = None, eta: int | float = 0.0, condition: Tensor | None = None) -> Tensor:
        """`F x + C y - (1 + eta^2)/2 Q score`: of the reverse SDE for `eta = 1`, of the probability flow for 0, of the process itself
        without a score."""
        law = self.coefs(t)
        forward = law.mean(x, condition)
        return forward if score is None else forward - (1 + eta**2) / 2 * law.covariance.apply(score)

    def elbo_weight(self, t: Time) -> Operator:
        """`Q / 2`: the weight of a squared score error in the path bound of the log-likelihood, see `path_bound`."""
        return 0.5 * self.coefs(t).covariance

    def to_dict(self) -> dict[str, Any]:
        """How the preset was made, `{"kind": ..., **arguments}`.

        Raises:
            ArgumentError: the process was put together by hand.
        """
        if self.origin is None:
            raise ArgumentError("process", type(self).__name__, "a preset of sfumato.noise", "Functions of time cannot be written down.")
        return dict(self.origin)


def conditioned(before: LinearLaw, after: LinearLaw) -> Between:
    """The law of a state with the law `before`, once the state that `after` makes of it is known.

    Raises:
        ArgumentError: the later state has a singular covariance.
    """
    spread, phi = before.covariance, after.phi
    reached = phi @ spread @ phi.T + after.covariance
    if reached.coef.shape[-2:] == (1, 1):
        # what is known exactly at the later time was known before: nothing is gained from it
        known = reached.coef == 0
        gain = (spread @ phi.T) @ reached.map(lambda c: torch.where(known, 0.0, 1 / torch.where(known, 1.0, c)))
    else:
        gain = spread @ phi.T @ reached.inverse()
    shift = None
    if before.shift is not None and after.shift is not None:
        shift = before.shift - gain @ (phi @ before.shift + after.shift)
    left = gain @ phi
    eye = left.map(lambda c: torch.eye(c.shape[-1], dtype=c.dtype, device=c.device).expand_as(c))
    kept = eye - left
    return Between(kept @ before.phi, gain, shift, kept @ spread @ kept.T + gain @ after.covariance @ gain.T)


def _times(*times: Time) -> tuple[list[Tensor], tuple[int, ...] | None]:
    """Float64 times of one shape, `()`, `(batch,)` or `(batch, d)`, and the event shape in the last case."""
    checked = [as_time(t).cpu() for t in times]
    deep = [t for t in checked if t.ndim > 1]
    event = tuple(deep[0].shape[1:]) if deep else None
    if event is not None:
        # one time per sample beside one per pixel: the same at all of its pixels
        checked = [t.reshape(-1, *[1] * len(event)) if t.ndim == 1 else t for t in checked]
    try:
        same = torch.broadcast_tensors(*checked)  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise ShapeError("s, t", tuple(tuple(t.shape) for t in checked), "times of one shape") from None
    return [t.flatten(1) if event is not None else t for t in same], event
