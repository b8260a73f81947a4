r"""Fine-tuning a denoiser through its own few-step sampler, until a batch of samples matches a batch of data.

The sampler is a fixed program of a few nodes, `x_0 = S_theta(eps)`; a batch is generated through it with gradients, and

    L(theta) = MMD^2( phi(S_theta(eps_1..n)), phi(x_1..n) )

is descended in the weights (Aiello et al. 2023, arXiv 2301.07969). Any table will do, deterministic or not; every evaluation is
checkpointed, so memory holds the states and one graph. What comes out is a good *sampler* with these steps, and no longer a
denoiser: the same weights in a finer sampler are worse than before. Judge it by another kernel or distance than the one descended.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.learn.students.kernels import Kernel, gaussian, kernel_loss, per_class
from sfumato.learn.training.descent import descend, normal, pick_rows
from sfumato.learn.training.settings import FitSettings
from sfumato.sample import Plan, Program, run

Features = Callable[[Tensor], Tensor]
"""Events `(n, *event)` to rows `(n, d)`, differentiable: flat pixels, principal components, a classifier's last layer."""


class Drawn:
    """Noise drawn as it is asked for, by one generator."""

    def __init__(self, like: Tensor, generator: torch.Generator) -> None:
        self.like, self.generator = like, generator

    def draw(self, j: int) -> Tensor:
        return normal(self.like, self.generator)


def generate(
    denoiser: Denoiser,
    program: Program | Plan,
    like: Float[Tensor, "n *event"],
    generator: torch.Generator,
    condition: Tensor | None = None,
) -> Float[Tensor, "n *event"]:
    """A batch of samples, shaped as `like`, differentiable in the denoiser's weights; every evaluation is checkpointed."""
    plan = program if isinstance(program, Plan) else Plan.of(program, like.dtype, like.device)
    process, first = plan.program.process, plan.program.times[0]
    belief, noise = denoiser.under(process), normal(like, generator)
    start = process.prior_sample(noise) if first == 1 else float(process.sigma(first)) * noise

    def answer(x: Tensor, t: float) -> Tensor:
        return checkpoint(belief.denoise, x, t, condition, use_reentrant=False)

    return run(plan, answer, start, Drawn(like, generator))


def tune_by_mmd(
    denoiser: nn.Module,
    data: Float[Tensor, "N *event"],
    program: Program,
    settings: FitSettings,
    kernel: Kernel | None = None,
    *,
    features: Features | None = None,
    labels: Int[Tensor, "M"] | None = None,
    subsets: int = 1,
) -> Tensor:
    """Fine-tune a denoiser in place, by the loss of the module's head; on return it has the averaged weights.

    Arguments:
        denoiser: a `Denoiser` that is a module.
        data: clean events; each step draws `settings.batch_size` of them. The batch should exceed the number of modes many times.
        program: the sampler to be repaired.
        settings: the run's; the paper's learning rate is 5e-6 for large networks, tiny ones take 1e-3.
        kernel: default: Gaussian, of several widths (0.1, 0.3, 1 and 3 times the data's standard deviation times `sqrt(d)`).
        features: default: the flat events themselves.
        labels: classes of the data; samples are then drawn under the labels of the batch, and only compared within a class.
        subsets: batches a step, over whose losses the mean is taken.

    Returns:
        The loss of every step, float64.

    Raises:
        ArgumentError: not a denoiser, or a loss that is not finite.
        DataError: fewer than 2 events, or a batch of fewer.
        ShapeError: not one label per event.
    """
    if not isinstance(denoiser, Denoiser):
        raise ArgumentError("denoiser", type(denoiser).__name__, "a Denoiser that is a module, e.g. Preconditioned")
    if len(data) < 2 or settings.batch_size < 2:
        raise DataError("data, batch_size", (len(data), settings.batch_size), "at least 2 events in each batch")
    if labels is not None and len(labels) != len(data):
        raise ShapeError("labels", tuple(labels.shape), f"one label per event ({len(data)},)")
    see = features or (lambda x: x.flatten(1))
    kernel = kernel or _several(see(data))
    kernel = kernel if labels is None else per_class(kernel)
    plan = Plan.of(program, data.dtype, data.device)

    def objective(generator: torch.Generator) -> Tensor:
        rows = pick_rows(len(data), settings.batch_size, generator).to(data.device)
        chosen = None if labels is None else labels[rows]
        samples = generate(denoiser, plan, data[rows], generator, chosen)
        pair = [see(samples), see(data[rows])]
        if chosen is not None:
            pair = [torch.cat([x, chosen[:, None].to(x)], 1) for x in pair]
        return kernel_loss(pair[0], pair[1], kernel)

    return descend(denoiser, objective, settings, parts=subsets)


def _several(rows: Tensor) -> Kernel:
    size = float((rows - rows.mean(0)).square().sum(1).mean().sqrt())
    if not size > 0:
        raise DataError("data", "events that are all the same", "data with some spread", "Give a kernel.")
    return gaussian([share * size for share in (0.1, 0.3, 1.0, 3.0)])
