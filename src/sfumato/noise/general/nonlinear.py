r"""Noising by any drift, `dx = f(x, t) dt + g dw`, in short increments that are Gaussian.

About the state at `s` the drift is nearly `f + J (x - x_s) + f_t (u - s)`, a linear SDE for every sample, so over a short `h`

    x_{s+h} | x_s ~ N(x_s + h phi_1(J h) f + h^2 phi_2(J h) f_t, int_0^h e^{J u} g^2 e^{J^T u} du),

`phi_1(z) = (e^z - 1)/z`, `phi_2(z) = (e^z - 1 - z)/z^2`. Order 0 is Euler's step, `N(x_s + h f, g^2 h)`. A drift whose number `i` depends
on the state's number `i` alone has a diagonal `J`, in closed form; any other takes Van Loan's exponential.
Source: Singhal et al. 2024 (arXiv 2407.07998), sections 3 and 4; the exponential step of a linearised drift: Ozaki 1992.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.van_loan import constant_transition

Drift = Callable[[Tensor, Tensor], Tensor]
"""States `(batch, d)` and times `(batch,)` to `(batch, d)`."""


@dataclass(frozen=True, eq=False)
class Increment:
    """The law `N(mean, root root^T)` of the next state.

    Arguments:
        mean: `(batch, d)`.
        root: `(batch, d)` for independent numbers, or lower triangles `(batch, d, d)`.
    """

    mean: Float[Tensor, "batch d"]
    root: Float[Tensor, "batch *d_or_square"]

    def place(self, eps: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """`mean + root eps`."""
        return self.mean + (self.root * eps if self.root.ndim == 2 else (self.root @ eps[..., None])[..., 0])

    def score(self, eps: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """`grad log N` at `place(eps)`: `-root^{-T} eps`."""
        if self.root.ndim == 2:
            return -eps / self.root
        return -torch.linalg.solve_triangular(self.root.mT, eps[..., None], upper=True)[..., 0]

    def scaled(self, score: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """`root^T score`: what a score is in units of the increment's noise."""
        return self.root * score if self.root.ndim == 2 else (self.root.mT @ score[..., None])[..., 0]


@dataclass(frozen=True, eq=False)
class NonlinearSDE:
    """`dx = f(x, t) dt + g dw`.

    Arguments:
        drift: `f`.
        noise: `g`, constant.
        separable: whether number `i` of the drift depends on number `i` of the state alone.
        growth: the largest exponent by which a linearised drift may grow over an increment; beyond, no linearisation is to be trusted.

    Raises:
        ArgumentError: `g` is not positive.
    """

    drift: Drift
    noise: float
    separable: bool = False
    growth: float = 3.0

    def __post_init__(self) -> None:
        if not self.noise > 0:
            raise ArgumentError("noise", self.noise, "a positive g")

    def increment(self, x: Float[Tensor, "batch d"], s: Float[Tensor, "batch"], h: Float[Tensor, "batch"], order: int = 1) -> Increment:
        """The law of `x_{s+h}` given `x_s = x`.

        Arguments:
            order: 0 for Euler's step, 1 for the linearised drift.

        Raises:
            ArgumentError: another order, an `h` that is not positive, or so long that the linearised drift grows by more than it may.
        """
        if order not in (0, 1) or not bool((h > 0).all()):
            raise ArgumentError("order, h", (order, float(h.min())), "order 0 or 1, and positive lengths")
        step = h.to(x.dtype)[:, None]
        if order == 0:
            return Increment(x + step * self.drift(x, s), (self.noise * step.sqrt()).expand_as(x))
        return self._diagonal(x, s, step) if self.separable else self._dense(x, s, step)

    def _diagonal(self, x: Tensor, s: Tensor, step: Tensor) -> Increment:
        force, slope = torch.func.jvp(lambda y: self.drift(y, s), (x,), (torch.ones_like(x),))[:2]
        rate = torch.func.jvp(lambda u: self.drift(x, u), (s,), (torch.ones_like(s),))[1]
        growth = slope * step
        self._check(growth)
        mean = x + step * _phi1(growth) * force + step**2 * _phi2(growth) * rate
        return Increment(mean, self.noise * (step * _phi1(2 * growth)).sqrt())

    def _dense(self, x: Tensor, s: Tensor, step: Tensor) -> Increment:
        batch, d = x.shape
        columns = [torch.func.jvp(lambda y: self.drift(y, s), (x,), (e.expand_as(x),))[1] for e in torch.eye(d, dtype=x.dtype)]
        jacobian = torch.stack(columns, -1)
        rate = torch.func.jvp(lambda u: self.drift(x, u), (s,), (torch.ones_like(s),))[1]
        growth = step[..., None] * jacobian
        self._check(torch.linalg.eigvalsh((growth + growth.mT) / 2))
        # beside the displacement runs a clock, u - s, that drives it by f_t
        drift, gain, noise = (v.new_zeros(batch, 1, d + 1, k) for v, k in ((growth, d + 1), (growth, 1), (growth, d + 1)))
        drift[:, 0, :d, :d], drift[:, 0, :d, d] = growth, step * rate
        gain[:, 0, :d, 0], gain[:, 0, d, 0] = step * self.drift(x, s), step[:, 0]
        noise[:, 0, :d, :d] = self.noise**2 * step[..., None] * torch.eye(d, dtype=x.dtype)
        _, shift, covariance = constant_transition(drift, gain, noise)
        return Increment(x + shift[:, 0, :d, 0], torch.linalg.cholesky(covariance[:, 0, :d, :d]))

    def _check(self, growth: Tensor) -> None:
        worst = float(growth.detach().max())
        if worst > self.growth:
            raise ArgumentError(
                "h", f"a growth by exp({worst:.3g})", f"growth by at most exp({self.growth:g})", "Take a shorter increment."
            )


def _phi1(z: Tensor) -> Tensor:
    safe = torch.where(z == 0, 1.0, z)
    return torch.where(z == 0, 1.0, torch.expm1(safe) / safe)


def _phi2(z: Tensor) -> Tensor:
    small = z.abs() < 1e-2
    safe = torch.where(small, 1.0, z)
    return torch.where(small, 0.5 + z / 6 + z**2 / 24 + z**3 / 120, (torch.expm1(safe) - safe) / safe**2)


def towards(score: Callable[[Tensor], Tensor], noise: float = 1.0, separable: bool = False) -> NonlinearSDE:
    """`f = g^2/2 grad log pi`: the noising whose prior is the law `pi` of the given score, whatever it is."""
    return NonlinearSDE(lambda x, t: noise**2 / 2 * score(x), noise, separable)


def logistic(scale: float = 1.0, noise: float = 1.0) -> NonlinearSDE:
    """Towards independent logistic numbers, `pi ~ sech^2(x / 2 scale)`: a force that does not grow with the distance."""
    return towards(lambda x: -torch.tanh(x / (2 * scale)) / scale, noise, separable=True)


def double_well(depth: float = 1.0, noise: float = 1.0) -> NonlinearSDE:
    """Towards `pi ~ exp(-depth (x^2 - 1)^2)` in every number."""
    return towards(lambda x: -4 * depth * x * (x**2 - 1), noise, separable=True)


def coupled_angles(coupling: float = 1.0, noise: float = 1.0) -> NonlinearSDE:
    """Two angles with `pi ~ exp(coupling (cos x_1 + cos x_2 + cos(x_1 - x_2)))` on the torus, an XY model of two spins in a field."""

    def score(x: Tensor) -> Tensor:
        apart = torch.sin(x[:, :1] - x[:, 1:])
        return -coupling * (torch.sin(x) + torch.cat([apart, -apart], 1))

    return towards(score, noise)


def predator_prey(rates: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0), noise: float = 0.1) -> NonlinearSDE:
    """Lotka and Volterra's `f = (a x - b x y, d x y - c y)` with additive noise; `rates` are `(a, b, c, d)`. It has no prior."""
    a, b, c, d = rates

    def drift(x: Tensor, t: Tensor) -> Tensor:
        prey, hunters = x[:, :1], x[:, 1:]
        return torch.cat([prey * (a - b * hunters), hunters * (d * prey - c)], 1)

    return NonlinearSDE(drift, noise)
