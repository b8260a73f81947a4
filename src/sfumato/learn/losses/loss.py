r"""The denoising loss: a regression of the denoiser's answer against the clean data that noise was added to.

    L = E_t E_{x_0, eps}  weight(t) mean |view(D(x_t, t)) - view(x_0)|^2,        x_t = alpha x_0 + sigma eps,

where the view of `x_0` is the true noise, velocity, ... of that `x_t`. Whatever the view, the weight and the law of `t` (where they are
positive), the minimiser over all functions is `D = E[x_0 | x_t]`, and over affine functions the best linear denoiser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sfumato.denoise import View, from_data
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.learn.losses.times import LogNormalRatio, Times
from sfumato.learn.losses.weights import EDMWeight, Weight
from sfumato.noise import ScalarProcess

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`Denoiser.denoise`, or a module that wraps it."""


@dataclass(frozen=True)
class Examples:
    """Noisy data and what they were made of.

    Arguments:
        clean, noisy: `x_0` and `x_t`.
        t, weight: the times, float64, and the loss's weight there.
        condition: class labels, negative where the label was dropped, or None.
    """

    clean: Float[Tensor, "n *event"]
    noisy: Float[Tensor, "n *event"]
    t: Float[Tensor, "n"]
    weight: Float[Tensor, "n"]
    condition: Int[Tensor, "n"] | None

    def __getitem__(self, rows: slice) -> Examples:
        condition = None if self.condition is None else self.condition[rows]
        return Examples(self.clean[rows], self.noisy[rows], self.t[rows], self.weight[rows], condition)

    def split(self, parts: int) -> list[Examples]:
        """The examples in so many equal runs, views of these."""
        fields = (self.clean, self.noisy, self.t, self.weight)
        conditions = [None] * parts if self.condition is None else self.condition.chunk(parts)
        return [Examples(*run) for run in zip(*(field.chunk(parts) for field in fields), conditions, strict=True)]


@dataclass(frozen=True)
class DenoisingLoss:
    """The loss of the module's head.

    Arguments:
        weight: see `sfumato.learn.losses.weights`; it weighs the squared error of `view`.
        times: the law of `t`, see `sfumato.learn.losses.times`.
        view: what the denoiser's answer is turned into before it is compared.
        label_dropout: how often a class label is withheld, so that the same network also learns the unconditional denoiser.

    Raises:
        ArgumentError: an unknown view, or a `label_dropout` that is no probability.
    """

    weight: Weight = field(default_factory=EDMWeight)
    times: Times = field(default_factory=LogNormalRatio)
    view: View = "data"
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.view not in get_args(View):
            raise ArgumentError("view", repr(self.view), f"one of {', '.join(get_args(View))}")
        if not 0 <= self.label_dropout <= 1:
            raise ArgumentError("label_dropout", self.label_dropout, "a probability")

    def examples(
        self,
        process: ScalarProcess,
        clean: Float[Tensor, "n *event"],
        generator: torch.Generator,
        condition: Int[Tensor, "n"] | None = None,
        groups: int = 1,
    ) -> Examples:
        """Noisy examples of the data; times are stratified within each of `groups` equal runs of them.

        Everything but the noise is drawn on the CPU by `generator`; so is the seed of the noise, which is drawn where the data are.
        """
        n, device = clean.shape[0], clean.device
        t = self.times.draw(process, n // groups, generator, groups).reshape(n)
        if condition is not None:
            dropped = torch.rand(n, generator=generator) < self.label_dropout
            condition = torch.where(dropped.to(device), -1, condition)
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        noise = torch.randn(clean.shape, generator=torch.Generator(device).manual_seed(seed), dtype=clean.dtype, device=device)
        return Examples(clean, process.sample(clean, t, noise), t, self.weight(process, t), condition)

    def __call__(self, denoise: Denoise, process: ScalarProcess, examples: Examples) -> Float[Tensor, "n"]:
        """The weighted squared error of each example, its mean over the event."""
        return self.weigh(denoise(examples.noisy, examples.t, examples.condition) - examples.clean, process, examples)

    def weigh(self, error: Float[Tensor, "n *event"], process: ScalarProcess, examples: Examples) -> Float[Tensor, "n"]:
        """The weighted mean square, over the event, of what an error of the answer is in the loss's view."""
        # a view is affine in D, so the error of the view is the view's linear part of the error
        if self.view != "data":
            error = from_data(error, self.view, torch.zeros_like(error), examples.t, process)
        return examples.weight.to(error) * error.square().flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class CleanLoss(DenoisingLoss):
    """The same loss with the target's noise taken out: in place of `x_0` an exact denoiser's answer `E[x_0 | x_t]` is regressed on.

    The minimiser is the same; what training on finitely many examples does to the variance of the result is not. For data without labels.

    Arguments:
        exact: whose answer is the target, e.g. `Empirical(train).denoiser(process)`.
    """

    exact: Denoiser = field(repr=False)

    def examples(
        self,
        process: ScalarProcess,
        clean: Float[Tensor, "n *event"],
        generator: torch.Generator,
        condition: Int[Tensor, "n"] | None = None,
        groups: int = 1,
    ) -> Examples:
        """As for the denoising loss and from the same draws, with the exact answers for `clean`."""
        drawn = super().examples(process, clean, generator, condition, groups)
        answers = self.exact.under(process).denoise(drawn.noisy, drawn.t, condition)
        return Examples(answers, drawn.noisy, drawn.t, drawn.weight, drawn.condition)
