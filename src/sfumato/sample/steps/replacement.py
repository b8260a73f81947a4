"""Imputation by replacement: what is known is written over, at the noise of the level, after every step.

The unknown part never learns how likely the known one is under it, so that the law is not the conditional one, however fine the steps are.
Source: Song et al. 2021 (arXiv 2011.13456), appendix I.2; exact conditionals of exact laws are `law.given(A, y, noise).denoiser(process)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ShapeError
from sfumato.noise import ScalarProcess, Time
from sfumato.sample.steps.step import State, Step, Stream


@dataclass(frozen=True, eq=False)
class Replaced:
    """A step after which known elements are `alpha y + sigma eps` with fresh noise.

    Arguments:
        step: any step.
        mask: which elements of an event are known.
        known: their clean values; the others are not read. Shaped as an event, or `(batch, *event)`.
    """

    step: Step
    mask: Bool[Tensor, "*event"]
    known: Float[Tensor, "*known"]

    def __call__(
        self, denoiser: Denoiser, process: ScalarProcess, x: Tensor, t: Time, s: Time, state: State, stream: Stream
    ) -> tuple[Tensor, State]:
        """The step, then the replacement at `s`.

        Raises:
            ShapeError: a mask of another shape than an event.
        """
        if self.mask.shape != x.shape[1:]:
            raise ShapeError("mask", tuple(self.mask.shape), f"the shape of an event, {tuple(x.shape[1:])}")
        x, state = self.step(denoiser, process, x, t, s, state, stream)
        noisy = process.sample(self.known.to(x).expand_as(x), s, stream.normal())
        return torch.where(self.mask, noisy, x), state
