"""The loop of fine-tuning and distillation: Adam, clipped gradients, averaged weights, on whatever objective a batch has."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sfumato.errors import ArgumentError
from sfumato.learn.training.average import Average
from sfumato.learn.training.settings import FitSettings

Objective = Callable[[torch.Generator], Tensor]
"""The loss of one batch, a scalar with its graph; everything random in it is drawn by the generator (on the CPU)."""


def descend(
    module: nn.Module, objective: Objective, settings: FitSettings, *, parts: int = 1, after: Callable[[int], None] | None = None
) -> Tensor:
    """Train a module in place; on return it has the averaged weights and is in evaluation mode.

    Unlike `fit` it knows nothing of data, losses, files or devices: a run is short, and its objective closes over what it needs.

    Arguments:
        module: whose parameters are moved.
        objective: see `Objective`.
        settings: of the run; `batch_size` is the objective's affair.
        parts: batches a step, whose gradients are added up one after the other and divided by their number (memory of one).
        after: called with the step's number after every step, e.g. to move a target network.

    Returns:
        The loss of every step, float64 `(steps,)`.

    Raises:
        ArgumentError: a module without parameters, no parts, or a loss that is not finite.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ArgumentError("module", "a module without parameters", "something to train")
    if parts < 1:
        raise ArgumentError("parts", parts, "at least 1 batch a step")
    optimiser = torch.optim.Adam(parameters, settings.learning_rate)
    average, generator = Average(module, settings.ema_decay), torch.Generator().manual_seed(settings.seed)
    losses = torch.zeros(settings.steps, dtype=torch.float64)
    module.train()
    for step in range(settings.steps):
        optimiser.param_groups[0]["lr"] = settings.rate(step)
        optimiser.zero_grad()
        for _ in range(parts):
            loss = objective(generator) / parts
            loss.backward()  # type: ignore[no-untyped-call]
            losses[step] += float(loss.detach())
        if not math.isfinite(float(losses[step])):
            raise ArgumentError("objective", f"{float(losses[step])} at step {step}", "finite losses", "Lower the learning rate.")
        nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimiser.step()
        average.update(list(module.parameters()), step)
        if after is not None:
            after(step)
    average.copy_to(module)
    module.eval()
    return losses


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers shaped as a tensor, in its dtype and on its device, drawn on the CPU."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def pick_rows(n: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` row numbers below `n`, drawn with replacement."""
    return torch.randint(n, (count,), generator=generator)
