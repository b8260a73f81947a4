r"""What samplers under a linear SDE are made of: expressions `state x + data D + shift y` with operators for coefficients.

At a noisy state `x` with the belief `D = E[x_0 | x]` and the process's condition `y`,

    score      -S^{-1} (x - A D - O y)
    forward    F x + C y
    noise      R^{-1} (x - A D - O y)

are such expressions, and so is every step of an explicit sampler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from sfumato.noise import LinearLaw, LinearSDE, Operator


@dataclass(frozen=True, eq=False)
class Form:
    """`state x + data D + shift y`; what is None is 0."""

    state: Operator | None = None
    data: Operator | None = None
    shift: Operator | None = None

    def __add__(self, other: Form) -> Form:
        return Form(plus(self.state, other.state), plus(self.data, other.data), plus(self.shift, other.shift))

    def under(self, operator: Operator) -> Form:
        """The form multiplied by an operator from the left."""
        state, data, shift = (None if part is None else operator @ part for part in (self.state, self.data, self.shift))
        return Form(state, data, shift)

    def scaled(self, factor: float) -> Form:
        """The form multiplied by a number."""
        state, data, shift = (None if part is None else factor * part for part in (self.state, self.data, self.shift))
        return Form(state, data, shift)


def plus(a: Operator | None, b: Operator | None) -> Operator | None:
    """The sum of two operators of which either may be 0, written None."""
    return b if a is None else a if b is None else a + b


def identity(channels: int) -> Operator:
    """The identity on states of so many channels."""
    return Operator(torch.eye(channels, dtype=torch.float64)[None])


class Forms:
    """The expressions of the module under one process, its laws computed for all times at once.

    Arguments:
        times: all that will be asked for.
    """

    def __init__(self, process: LinearSDE, times: Iterable[float]) -> None:
        self.process, self.one = process, identity(process.channels)
        self._index = {t: i for i, t in enumerate(dict.fromkeys(times))}
        self._times = torch.tensor(list(self._index), dtype=torch.float64)

    def marginal(self, t: float) -> LinearLaw:
        """`(A, O, S)`."""
        return self._law(self._marginals, t)

    def coefs(self, t: float) -> LinearLaw:
        """`(F, C, Q)`."""
        return self._law(self._rates, t)

    def factor(self, t: float) -> Operator:
        """The flow factor `R`."""
        return self._at(self._factors, t)

    @cached_property
    def _marginals(self) -> LinearLaw:
        return self.process.marginal(self._times)

    @cached_property
    def _rates(self) -> LinearLaw:
        return self.process.coefs(self._times)

    @cached_property
    def _factors(self) -> Operator:
        return self.process.flow_factor(self._times)

    def _law(self, law: LinearLaw, t: float) -> LinearLaw:
        shift = None if law.shift is None else self._at(law.shift, t)
        return LinearLaw(self._at(law.phi, t), shift, self._at(law.covariance, t))

    def _at(self, operator: Operator, t: float) -> Operator:
        return Operator(operator.coef[self._index[t]], operator.basis)

    def residual(self, t: float) -> Form:
        """`x - A D - O y`: what of the state is noise."""
        law = self.marginal(t)
        return Form(self.one, -1.0 * law.phi, None if law.shift is None else -1.0 * law.shift)

    def score(self, t: float) -> Form:
        """The score that the belief stands for.

        Raises:
            ArgumentError: a time at which the noise is singular.
        """
        return self.residual(t).under(-1.0 * self.marginal(t).covariance.inverse())

    def noise(self, t: float, view: Literal["noise", "cholesky noise"] = "noise") -> Form:
        """The noise that the belief stands for, in the coordinates of the flow factor or of the Cholesky factor.

        Raises:
            ArgumentError: a time at which the noise is singular.
        """
        factor = self.factor(t) if view == "noise" else self.marginal(t).covariance.cholesky()
        return self.residual(t).under(factor.inverse())

    def toward(self, t: float, state: Operator, gain: Operator | None) -> Form:
        """`state x + gain y`, where `y` is the belief if the process has no condition but the data (`Backwards`)."""
        steered = gain is not None and self.marginal(t).shift is None
        return Form(state, gain, None) if steered else Form(state, None, gain)

    def forward(self, t: float) -> Form:
        """`F x + C y`."""
        law = self.coefs(t)
        return self.toward(t, law.phi, law.shift)

    def reverse(self, t: float, eta: float) -> Form:
        """`F x + C y - (1 + eta^2)/2 Q score`: the drift of the flow (`eta = 0`) or of the reverse SDE (1), in forward time."""
        return self.forward(t) + self.score(t).under((-(1 + eta**2) / 2) * self.coefs(t).covariance)
