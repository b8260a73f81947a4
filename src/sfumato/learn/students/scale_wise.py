"""Training a few-step student that grows, see `sfumato.sample.steps.scale_wise`: by whatever losses on the law of its answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.learn.students.consistency_distillation import LawLoss
from sfumato.learn.training.descent import descend, pick_rows
from sfumato.learn.training.settings import FitSettings
from sfumato.sample.steps.scale_wise import ScaleWise


def distil_scale_wise(
    student: nn.Module, plan: ScaleWise, data: Float[Tensor, "N c h w"], losses: Sequence[tuple[float, LawLoss]], settings: FitSettings
) -> Tensor:
    """Train a student in place: every step asks it once, at a random step of the plan, and judges the answers beside the data.

    Arguments:
        student: a `Denoiser` that is a module and takes all of the plan's sizes.
        plan: how it will be sampled.
        data: clean events of the last size.
        losses: weights and losses: `DistributionMatching`, `Adversary`, `token_loss` of some features.
        settings: of the run.

    Returns:
        The loss of every step, float64.

    Raises:
        ArgumentError: a student that is no denoiser, no losses, a loss that is not finite.
    """
    if not isinstance(student, Denoiser):
        raise ArgumentError("student", type(student).__name__, "a Denoiser that is a module")
    if not losses:
        raise ArgumentError("losses", "none", "at least one weight with its loss")
    belief = student.under(plan.process)

    def objective(generator: torch.Generator) -> Tensor:
        clean = data[pick_rows(len(data), settings.batch_size, generator)]
        step = int(torch.randint(len(plan.sizes), (), generator=generator))
        shape = (*clean.shape[:2], plan.sizes[step], plan.sizes[step])
        noisy, target = plan.pair(step, clean, torch.randn(shape, generator=generator, dtype=clean.dtype))
        answer = belief.denoise(noisy, plan.times[step])
        return torch.stack([weight * loss(answer, target) for weight, loss in losses]).sum()

    return descend(student, objective, settings)
