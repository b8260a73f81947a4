r"""Bridges: a member of the family whose end is known is again a member.

Doob's transform of `dx = F x dt + G dw`, given `x_T = y`, with `Phi`, `S` of the transition from `t` to `T`:

    F_h = F - Q Phi^T S^{-1} Phi,        C_h = Q Phi^T S^{-1}.

A Brownian motion gives the bridges of image-to-image diffusion, a variance-preserving process those of denoising diffusion bridges.
Sources: Liu et al. 2023 (arXiv 2302.05872); Zhou et al. 2023 (arXiv 2309.16948), eq. 5; Li et al. 2022 (arXiv 2205.07680).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise.linear_family.linear_sde import LinearSDE
from sfumato.noise.linear_family.van_loan import Coefs


class Pinned(LinearSDE):
    """A process given its state at `t = 1`, which is the condition `y`, shaped as a state.

    Its drift diverges at `t = 1`, where its law is the point `y`.

    Arguments:
        free: the process to pin.

    Raises:
        ArgumentError: `free` has a condition of its own.
    """

    def __init__(self, free: LinearSDE) -> None:
        if free.conditions:
            raise ArgumentError("free", "a process with a condition of its own", "one without")
        super().__init__(free.channels, free.channels, basis=free.basis, start=free.start)
        self.free = free

    def _coefs(self, t: Tensor) -> Coefs:
        drift, _, noise = self.free._coefs(t)
        phi, _, spread = self.free._transition(t, torch.ones_like(t))
        pull = noise @ phi.mT @ torch.linalg.inv_ex(spread).inverse
        return drift - pull @ phi, pull, noise

    def _transition(self, s: Tensor, t: Tensor) -> Coefs:
        phi, _, spread = self.free._transition(s, t)
        onward, _, left = self.free._transition(t, torch.ones_like(t))
        here = spread @ onward.mT
        # from t to itself there is nothing to learn of the end
        reached = onward @ here + left
        still = (s == t)[..., None, None, None]
        gain = torch.where(still, 0.0, here @ torch.linalg.inv_ex(reached).inverse)
        kept = torch.eye(phi.shape[-1], dtype=phi.dtype, device=phi.device) - gain @ onward
        return kept @ phi, gain, kept @ spread @ kept.mT + gain @ left @ gain.mT
