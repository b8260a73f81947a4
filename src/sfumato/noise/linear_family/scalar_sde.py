"""Scalar processes seen as members of the linear SDE family; the scalar class itself stays as plain as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.noise.linear_family.van_loan import Coefs
from sfumato.noise.scalars.scalar import ScalarProcess


class ScalarSDE(LinearSDE):
    """`x_t = alpha_t x_0 + sigma_t eps` with operators in place of numbers: `F`, `Q = g^2`, `Phi = alpha_t / alpha_s`.

    Arguments:
        process: the scalar process.
    """

    def __init__(self, process: ScalarProcess) -> None:
        prior = torch.full((1, 1, 1), process.prior_std**2, dtype=torch.float64)
        super().__init__(prior=(prior[..., :0], prior))
        self.process, self.origin = process, process.to_dict()

    def _coefs(self, t: Tensor) -> Coefs:
        return _blocks(self.process.drift(t), self.process.diffusion_squared(t))

    def _transition(self, s: Tensor, t: Tensor) -> Coefs:
        law = self.process.transition(s, t)
        return _blocks(law.phi, law.covariance)

    def _marginal(self, t: Tensor) -> Coefs:
        alpha, sigma = self.process.levels(t)
        return _blocks(alpha, sigma**2)


def _blocks(linear: Tensor, noise: Tensor) -> Coefs:
    block = linear[..., None, None, None]
    return block, block[..., :0], noise[..., None, None, None]


def linear(process: ScalarProcess | LinearSDE) -> LinearSDE:
    """The process as a member of the linear SDE family: itself, or a scalar process behind `ScalarSDE`."""
    return process if isinstance(process, LinearSDE) else ScalarSDE(process)
