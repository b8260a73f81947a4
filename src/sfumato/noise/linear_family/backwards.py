r"""Processes that run from noise to given data, seen backwards, from clean to noisy.

A path that is steered from `m_0 ~ N(0, P)` to the data `y` (`dm = (F m + C y) dt + G dw`, marginals `N(M_t y, S_t)`) is, in the time
`u = 1 - t`, again linear, with the data as condition:

    dm = -(F + Q S^{-1}) m du - (C - Q S^{-1} M) y du + G dw.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.linear_law import Between, LinearLaw, Prior
from sfumato.noise.linear_family.linear_sde import LinearSDE, _times
from sfumato.noise.linear_family.van_loan import Coefs
from sfumato.noise.process import Time


class Backwards(LinearSDE):
    """A steered process in the library's time, 0 for data and 1 for noise.

    `marginal`, `sample`, `posterior` and `prior` take the data as `x0`. `coefs`, `transition` and `bridge` are those of the path to known
    data: there the condition is the data.

    Arguments:
        steered: from noise at its time 0 to its condition, the data, at its time 1.

    Raises:
        ArgumentError: `steered` has no condition.
    """

    def __init__(self, steered: LinearSDE) -> None:
        if steered.conditions != 1:
            raise ArgumentError("steered", f"a process with {steered.conditions} conditions", "one that is steered to its condition")
        super().__init__(steered.channels, 1, basis=steered.basis, start=steered.start)
        self.steered = steered

    def _coefs(self, t: Tensor) -> Coefs:
        drift, gain, noise = self.steered._coefs(1 - t)
        mean, _, spread = self._marginal(t)
        pull = noise @ torch.linalg.inv_ex(spread).inverse
        return -(drift + pull), pull @ mean - gain, noise

    def _transition(self, s: Tensor, t: Tensor) -> Coefs:
        phi, gain, left = self.steered._transition(1 - t, 1 - s)
        mean, _, spread = self._marginal(t)
        back = spread @ phi.mT @ torch.linalg.inv_ex(phi @ spread @ phi.mT + left).inverse
        kept = torch.eye(phi.shape[-1], dtype=phi.dtype, device=phi.device) - back @ phi
        return back, kept @ mean - back @ gain, kept @ spread @ kept.mT + back @ left @ back.mT

    def _marginal(self, t: Tensor) -> Coefs:
        phi, mean, spread = self.steered._transition(torch.zeros_like(t), 1 - t)
        return mean, mean[..., :0], spread + phi @ self.start.to(phi) @ phi.mT

    def marginal(self, t: Time) -> LinearLaw:
        (end,), event = _times(t)
        signal, _, spread = self._marginal(end)
        return LinearLaw(self._operator(signal, event), None, self._operator(spread, event))

    def prior(self) -> Prior:
        return Prior(None, self._operator(self.start, None))

    def posterior(self, s: Time, t: Time) -> Between:
        (start, end), event = _times(s, t)
        if bool((start > end).any()):
            raise ArgumentError("s, t", (s, t), "s <= t")
        phi, gain, left = (self._operator(c, event) for c in self.steered._transition(1 - end, 1 - start))
        return Between(gain, phi, None, left)
