r"""The denoising loss under any linear SDE, for states with any number of channels.

    L = E_t E_{x_0, eps}  weight(t) mean |model(x_t, t) - view(x_0, x_t)|^2,        x_t ~ N(A x_0 + O y, S),

where `S` has the auxiliary channels of the start integrated out: only the data are conditioned on, so targets are finite and vary least
("hybrid" score matching, Dockhorn et al. 2022, arXiv 2112.07068, section 3.2). The minimiser is `E[view | x_t]`, so that `StateDenoiser`
with the same view turns the model into a belief. For momentum processes, "cholesky noise" is far cheaper a target than "noise", whose
flow factor is an integral over time; the two differ by a rotation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoise import Predict
from sfumato.errors import ArgumentError
from sfumato.noise import LinearSDE, LinearView, convert

LevelWeight = Callable[[LinearSDE, Tensor], Tensor]
"""The weight of the squared error at times `(n,)`, float64 `(n,)`."""


@dataclass(frozen=True)
class StateExamples:
    """States and what a model should say of them.

    Arguments:
        noisy: `x_t`.
        target: data `(n, *event)`, or shaped as the states.
        t, weight: the times, and the weights there.
        condition: the process's `y`, or None.
    """

    noisy: Float[Tensor, "n *state"]
    target: Float[Tensor, "n *view"]
    t: Float[Tensor, "n"]
    weight: Float[Tensor, "n"]
    condition: Tensor | None


@dataclass(frozen=True)
class StateLoss:
    """The loss of the module's head.

    Arguments:
        view: what the model predicts.
        weight: of the squared error; None for 1.
        first, last: times are uniform between them, stratified. Most views are infinite at `t = 0`, and bridges are at `t = 1`, too.
    """

    view: LinearView = "data"
    weight: LevelWeight | None = None
    first: float = 1e-3
    last: float = 1.0

    def __post_init__(self) -> None:
        if self.view not in get_args(LinearView):
            raise ArgumentError("view", repr(self.view), f"one of {', '.join(get_args(LinearView))}")
        if not 0 <= self.first <= self.last <= 1:
            raise ArgumentError("first, last", (self.first, self.last), "times 0 <= first <= last <= 1")

    def examples(
        self, process: LinearSDE, clean: Float[Tensor, "n *event"], generator: torch.Generator, condition: Tensor | None = None
    ) -> StateExamples:
        """Noisy states of the data; all randomness is drawn by the generator, on the CPU.

        Raises:
            ArgumentError: a condition that is missing or superfluous; times at which the view is infinite.
        """
        n = len(clean)
        share = (torch.arange(n) + torch.rand(n, generator=generator, dtype=torch.float64)) / n
        t = self.first + (self.last - self.first) * share
        noise = torch.randn(process.state_shape(clean), generator=generator, dtype=clean.dtype).to(clean.device)
        noisy = process.sample(clean, t, noise, condition)
        # the noise was put in by the Cholesky factor, which with one channel is the flow factor
        known = self.view == "cholesky noise" or (self.view == "noise" and process.channels == 1)
        target = noise if known else convert(process, clean, "data", self.view, noisy, t, condition)
        weight = torch.ones_like(t) if self.weight is None else self.weight(process, t)
        return StateExamples(noisy, target, t, weight, condition)

    def __call__(self, predict: Predict, examples: StateExamples) -> Float[Tensor, "n"]:
        """The weighted squared error of each example, its mean over the numbers of the target."""
        error = predict(examples.noisy, examples.t, examples.condition) - examples.target
        return examples.weight.to(error) * error.square().flatten(1).mean(1)
