r"""An adversary for students: a discriminator trained beside them, whose verdict is one more loss on what they generate.

    hinge       discriminator E max(0, 1 - d(real)) + E max(0, 1 + d(fake)),        student -E d(fake)
    softplus    discriminator E log(1 + e^-d(real)) + E log(1 + e^d(fake)),         student E log(1 + e^-d(fake))

Sources: the hinge loss of Liu et al. 2024 (arXiv 2403.01505); the softplus loss of Starodubcev et al. 2025 (arXiv 2503.16397).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from sfumato.errors import ArgumentError

Game = Literal["hinge", "softplus"]


class Adversary:
    """A discriminator with its optimiser.

    Arguments:
        judge: events `(n, *event)` to numbers `(n, ...)`, high for real ones; frozen features with a trained head are one.
        game: which of the two losses.
        rate: Adam's learning rate.

    Raises:
        ArgumentError: another game, or a judge without parameters.
    """

    def __init__(self, judge: nn.Module, game: Game = "hinge", rate: float = 1e-3) -> None:
        trained = [p for p in judge.parameters() if p.requires_grad]
        if game not in get_args(Game):
            raise ArgumentError("game", repr(game), f"one of {', '.join(get_args(Game))}")
        if not trained:
            raise ArgumentError("judge", "a module without parameters", "something to train")
        self.judge, self.game, self._trained = judge, game, trained
        self._optimiser = torch.optim.Adam(trained, rate, betas=(0.5, 0.9))

    def __call__(self, fake: Tensor, real: Tensor) -> Tensor:
        """Train the discriminator for one step on both batches, then return the student's loss on `fake`, with its graph."""
        wrong = self._margin(-self.judge(real)) + self._margin(self.judge(fake.detach()))
        self._optimiser.zero_grad()
        wrong.mean().backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        for p in self._trained:
            p.requires_grad_(False)
        verdict = self.judge(fake)
        for p in self._trained:
            p.requires_grad_(True)
        return -verdict.mean() if self.game == "hinge" else softplus(-verdict).mean()

    def _margin(self, score: Tensor) -> Tensor:
        """The mean loss of a score that should be low."""
        return (relu(1 + score) if self.game == "hinge" else softplus(score)).mean()
