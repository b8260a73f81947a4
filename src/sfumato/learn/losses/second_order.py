r"""A second-order term for velocity and denoising losses: the divergence of the learned flow is trained too.

For the exact denoiser, at every noise level and for every law of the data (Tweedie's second identity),

    tr dD/dx = (alpha / sigma^2) E[|x_0 - D|^2 | x_t],

so `r = v^T (dD/dx) v - (alpha / sigma^2) |x_0 - D|^2`, with random signs `v` and its second term held fixed, has mean zero given `x_t`,
and the least `E r^2` is at the right trace. In the velocity of a variance-preserving process `r` is `alpha (d - |F - F_hat|^2) - sigma
v^T (dF_hat/dx) v`; on straight paths it is `sqrt 2` times the like expression. Source: Zheng et al. 2023 (arXiv 2305.03935), section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.learn.losses.loss import Denoise, DenoisingLoss, Examples
from sfumato.noise import ScalarProcess


@dataclass(frozen=True)
class ProbedExamples(Examples):
    """Examples with the random signs that probe the derivative there."""

    probe: Float[Tensor, "n *event"]

    def __getitem__(self, rows: slice) -> ProbedExamples:
        return ProbedExamples(**vars(super().__getitem__(rows)), probe=self.probe[rows])

    def split(self, parts: int) -> list[Examples]:
        return [
            ProbedExamples(**vars(part), probe=probe) for part, probe in zip(super().split(parts), self.probe.chunk(parts), strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class SecondOrderLoss(DenoisingLoss):
    """The denoising loss with `second * weight * (r/d)^2` added: for finetuning, at about twice the cost of a step.

    Arguments:
        second: how much the second-order term counts.
    """

    second: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.second < math.inf:
            raise ArgumentError("second", self.second, "a positive factor", "Without the term the loss is DenoisingLoss.")

    def examples(
        self,
        process: ScalarProcess,
        clean: Float[Tensor, "n *event"],
        generator: torch.Generator,
        condition: Int[Tensor, "n"] | None = None,
        groups: int = 1,
    ) -> ProbedExamples:
        """As for the denoising loss, and the probes."""
        plain = super().examples(process, clean, generator, condition, groups)
        signs = torch.randint(0, 2, clean.shape, generator=generator).to(clean) * 2 - 1
        return ProbedExamples(**vars(plain), probe=signs)

    def __call__(self, denoise: Denoise, process: ScalarProcess, examples: Examples) -> Float[Tensor, "n"]:
        """The weighted loss of each example; its examples must be this loss's own."""
        if not isinstance(examples, ProbedExamples):
            raise ArgumentError("examples", type(examples).__name__, "examples of this loss, which have probes")
        with torch.enable_grad():
            x = examples.noisy.detach().requires_grad_()
            said = denoise(x, examples.t, examples.condition)
            (pulled,) = torch.autograd.grad(said, x, examples.probe, create_graph=True)
        error = said - examples.clean
        alpha, sigma = process.levels(examples.t)
        gap = (alpha / sigma**2).to(error) * error.detach().square().flatten(1).sum(1)
        residual = ((pulled * examples.probe).flatten(1).sum(1) - gap) / error[0].numel()
        return self.weigh(error, process, examples) + examples.weight.to(error) * self.second * residual.square()
