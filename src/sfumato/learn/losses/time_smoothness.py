"""A denoising loss that also asks the prediction to change slowly with time: the alternative to sharing early times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoise import from_data
from sfumato.errors import ArgumentError
from sfumato.learn.losses.loss import Denoise, DenoisingLoss, Examples
from sfumato.noise import ScalarProcess


@dataclass(frozen=True, kw_only=True)
class SmoothTimeLoss(DenoisingLoss):
    """The denoising loss plus `strength * mean |view(x, t + gap) - view(x, t)|^2 / gap^2`, the times held below 1.

    Both terms pull apart where the exact prediction does change: its derivative is then too small by design. Source: Yang et al. 2023
    (arXiv 2306.11251), appendix D (the regulariser that sharing is compared with).

    Arguments:
        strength: of the penalty; 0 is the denoising loss.
        gap: between the two times.

    Raises:
        ArgumentError: a negative strength, a gap outside (0, 1), beside those of the loss.
    """

    strength: float = 1e-3
    gap: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.strength < math.inf or not 0 < self.gap < 1:
            raise ArgumentError("strength, gap", (self.strength, self.gap), "at least 0, and in (0, 1)")

    def __call__(self, denoise: Denoise, process: ScalarProcess, examples: Examples) -> Float[Tensor, "n"]:
        """The loss of each example."""
        base = super().__call__(denoise, process, examples)
        t = examples.t
        later = torch.where(t + self.gap < 1, t + self.gap, t - self.gap)
        here, there = (from_data(denoise(examples.noisy, u, examples.condition), self.view, examples.noisy, u, process) for u in (t, later))
        return base + self.strength * ((there - here) / self.gap).square().flatten(1).mean(1)
