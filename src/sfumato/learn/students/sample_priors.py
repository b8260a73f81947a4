r"""Losses that make a batch of made events look like a batch of true ones: the prior term of a restoring generator.

| class | what it measures |
|---|---|
| `KernelPrior` | `MMD^2` of a kernel, unbiased |
| `SlicedPrior` | mean over random directions of the squared distance between the sorted projections |
| `AdversarialPrior` | `log(1 - D) - log D` of a discriminator that is trained alongside: an estimate of `KL(made | true)` |

Source: Choi et al. 2023 (arXiv 2303.05456), section 3.2 (MMD, DSWD, KLD).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from sfumato.errors import ArgumentError, DataError
from sfumato.learn.students.kernels import Kernel, gaussian, kernel_loss


@runtime_checkable
class SamplePrior(Protocol):
    """A scalar with a gradient in `made`."""

    def __call__(self, made: Float[Tensor, "n *event"], true: Float[Tensor, "n *event"], generator: torch.Generator) -> Float[Tensor, ""]:
        """How far the batches are apart; randomness of its own comes from the generator."""


class KernelPrior:
    """`MMD^2` of flat events; default: Gaussian kernels of widths 0.1, 0.3 and 1."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.kernel = gaussian((0.1, 0.3, 1.0)) if kernel is None else kernel

    def __call__(self, made: Float[Tensor, "n *event"], true: Float[Tensor, "n *event"], generator: torch.Generator) -> Float[Tensor, ""]:
        return kernel_loss(made.flatten(1), true.flatten(1), self.kernel)


class SlicedPrior:
    """The sliced Wasserstein-2 distance, squared, over so many fresh `directions` a call."""

    def __init__(self, directions: int = 32) -> None:
        if directions < 1:
            raise ArgumentError("directions", directions, "at least 1")
        self.directions = directions

    def __call__(self, made: Float[Tensor, "n *event"], true: Float[Tensor, "n *event"], generator: torch.Generator) -> Float[Tensor, ""]:
        if len(made) != len(true):
            raise DataError("made, true", (len(made), len(true)), "batches of one size")
        along = torch.randn(made[0].numel(), self.directions, generator=generator, dtype=made.dtype).to(made.device)
        along = along / torch.linalg.vector_norm(along, dim=0)
        return ((made.flatten(1) @ along).sort(0).values - (true.flatten(1) @ along).sort(0).values).square().mean()


class AdversarialPrior:
    r"""`log(1 - D(made)) - log D(made)` with `D = sigmoid(logit)`; each call first moves the discriminator by one step of Adam on

        -E log D(true) - E log(1 - D(made)) + (gamma/2) E |grad logit(true)|^2,

    the penalty only at every tenth call, times ten.

    Arguments:
        logit: a module from events to `(n,)` or `(n, 1)`.
        rate: its learning rate.
        gamma: of the gradient penalty.
    """

    every = 10

    def __init__(self, logit: nn.Module, rate: float = 1e-3, gamma: int | float = 2) -> None:
        self.logit, self.gamma, self.calls = logit, gamma, 0
        self.optimizer = torch.optim.Adam(logit.parameters(), lr=rate, betas=(0.5, 0.9))

    def __call__(self, made: Float[Tensor, "n *event"], true: Float[Tensor, "n *event"], generator: torch.Generator) -> Float[Tensor, ""]:
        loss = softplus(-self.logit(true)).mean() + softplus(self.logit(made.detach())).mean()
        if self.calls % self.every == 0:
            seen = true.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.logit(seen).sum(), seen, create_graph=True)
            loss = loss + self.every * self.gamma / 2 * slope.square().flatten(1).sum(1).mean()
        self.calls += 1
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        # log(1 - D) - log D is minus the logit; what reaches the discriminator's gradients here is cleared at the next call
        return torch.as_tensor(-self.logit(made).mean())
