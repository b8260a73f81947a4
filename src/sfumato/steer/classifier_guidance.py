r"""Guidance by a classifier of noisy data: Bayes' rule for scores.

    grad log p_t(x | y) = grad log p_t(x) + w grad log p_t(y | x),        D' = D + w (sigma^2 / alpha) grad log p_t(y | x),

exact for `w = 1` and the exact classifier. Sources: Song et al. 2021 (arXiv 2011.13456), section 5; Dhariwal & Nichol 2021
(arXiv 2105.05233), for `w > 1`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import Time, over_events

NoisyLogProb = Callable[[Tensor, Time], Tensor]
"""`(x (batch, *event), t) -> log p_t(y | x) (batch,)`, differentiable."""


class ClassifierGuided(Denoiser):
    """A denoiser guided towards `y`.

    Arguments:
        inner: the belief without `y`.
        log_prob: of `y` given noisy data.
        weight: `w`, at least 0.

    Raises:
        ArgumentError: a negative weight.
    """

    def __init__(self, inner: Denoiser, log_prob: NoisyLogProb, weight: int | float = 1.0) -> None:
        if not weight >= 0:
            raise ArgumentError("weight", weight, "a weight of at least 0")
        self.inner, self.process, self.log_prob, self.weight = inner, inner.process, log_prob, weight

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        alpha, sigma = self.process.levels(t)
        if bool((alpha == 0).any()):
            raise ArgumentError("t", t, "a time with some signal left", "Where alpha = 0 the classifier's gradient says nothing.")
        with torch.enable_grad():
            noisy = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.log_prob(noisy, t).sum(), noisy)
        return self.inner.denoise(x, t, condition) + over_events(self.weight * sigma**2 / alpha, x) * gradient
