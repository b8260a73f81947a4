r"""Consistency distillation with a stochastic teacher: a student that predicts, from any noisy state, where the teacher will end.

With falling times `t_0 > ... > t_N`, a teacher step `z' = T(z_n)` from `t_n` to `t_{n+1}` by `h` sub-steps of any solver, and a target `f'`
that is the student's moving average,

    L = E_n E_{x_0, eps}  d( f(z_n, t_n), f'(T(z_n), t_{n+1}) ),        z_n = alpha_n x_0 + sigma_n eps,

with `d` the squared distance or the pseudo-Huber one. If the teacher is deterministic the fixed point is the teacher's own map. If it draws
noise the squared loss has the fixed point `f(z_n) = E[f(z_{n+1}) | z_n]`: the part of the sample that the noise decided is averaged away,
and *the samples' variance shrinks*, the more the finer the steps. In a Gaussian world every mode keeps

    c^2 V_0 / l,        c = prod_n (share of the state that the teacher's step keeps on average),    V_0 = alpha_0^2 l + sigma_0^2,

which `fixed_point` reads off the teacher's table. A loss on the law of the samples (an adversary, or the kernel discrepancy) undoes it.

Source: Liu et al. 2024 (arXiv 2403.01505), eqs. 5-9; the fixed point is ours.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian
from sfumato.learn.students.mmd_tuning import Drawn
from sfumato.learn.training.descent import descend, normal, pick_rows
from sfumato.learn.training.settings import FitSettings
from sfumato.noise import ScalarProcess
from sfumato.sample import Program, Solver, response, subdivide
from sfumato.sample.steps.step import Tables

LawLoss = Callable[[Tensor, Tensor], Tensor]
"""A loss on generated and real events `(n, *event)`, a scalar: `Adversary`, or a kernel loss."""


@dataclass(frozen=True)
class Teacher:
    """A solver that carries noisy data from each time to the next.

    Arguments:
        denoiser: its belief; guidance belongs in here.
        times: `t_0 > ... > t_N`; the student is asked at the first N.
        solver: any; `Ancestral(eta)` draws noise.
        substeps: `h`, how many steps the solver takes between two times.
        process: under which the solver works; default: the denoiser's.
    """

    denoiser: Denoiser
    times: Sequence[float]
    solver: Solver
    substeps: int = 3
    process: ScalarProcess | None = None

    @property
    def under(self) -> ScalarProcess:
        """The process."""
        return self.process or self.denoiser.process

    def program(self) -> Program:
        """The whole way from `t_0` to `t_N` as one table."""
        return self.solver.compile(self.under, subdivide(self.under, self.times, self.substeps))

    def jumps(self) -> Tables:
        """One table a jump, from each time to the next."""
        pairs = pairwise(self.times)
        return Tables.of([self.solver.compile(self.under, subdivide(self.under, pair, self.substeps)) for pair in pairs])


def fixed_point(teacher: Teacher, law: Gaussian) -> tuple[Tensor, Tensor]:
    """What pure consistency distillation makes of a Gaussian law, mode by mode; exact for solvers that do not look back over a jump.

    Returns:
        The student's variance from one step at `t_0` over the law's, and the share of the law's variance that the teacher injected as noise
        and the student has averaged away; both `(modes,)`, float64.

    Raises:
        ArgumentError: a teacher that ends before `t = 0`.
    """
    table = teacher.program()
    if table.times[-1] != 0:
        raise ArgumentError("teacher.times", table.times[-1], "times that end at 0")
    found, process = response(table, law), teacher.under
    alpha, sigma = process.levels(table.times[0])
    spectrum = law.covariance.spectrum
    start = alpha**2 * spectrum + sigma**2
    return found.start**2 * start / spectrum, found.noise.square().sum(0) / spectrum


def distil_consistency(
    student: nn.Module,
    teacher: Teacher,
    data: Float[Tensor, "N *event"],
    settings: FitSettings,
    *,
    law_loss: LawLoss | None = None,
    law_weight: float = 0.4,
    target_decay: float = 0.95,
    huber: float | None = None,
) -> Tensor:
    """Train a student in place by the loss of the module's head; it is then sampled with `Renoising`, or in one step.

    Arguments:
        student: a `Denoiser` that is a module and answers `x / alpha` at `sigma = 0`, as `Preconditioned` does.
        teacher: see `Teacher`.
        data: clean events.
        settings: of the run.
        law_loss: compares samples of one step from `t_0` with data, beside the consistency loss.
        law_weight: how much it counts.
        target_decay: of the moving average that is the target.
        huber: the `c` of `sqrt(|a|^2 + c^2) - c`; default: the squared distance.

    Returns:
        The loss of every step, float64.

    Raises:
        ArgumentError: a student that is no denoiser, a decay outside [0, 1), a `c` that is not positive, a loss that is not finite.
    """
    if not isinstance(student, Denoiser):
        raise ArgumentError("student", type(student).__name__, "a Denoiser that is a module, e.g. Preconditioned")
    if not 0 <= target_decay < 1:
        raise ArgumentError("target_decay", target_decay, "a decay in [0, 1)")
    if huber is not None and not 0 < huber < math.inf:
        raise ArgumentError("huber", huber, "a positive number, or None for squares")
    process, jumps = teacher.under, teacher.jumps()
    belief, target = teacher.denoiser.under(process), copy.deepcopy(student)
    times = torch.tensor(list(teacher.times), dtype=torch.float64)

    def objective(generator: torch.Generator) -> Tensor:
        clean = data[pick_rows(len(data), settings.batch_size, generator)]
        which = pick_rows(len(times) - 1, len(clean), generator)
        noisy = process.sample(clean, times[which], normal(clean, generator))
        with torch.no_grad():
            goal = target.under(process).denoise(jumps.run(belief, noisy, which, Drawn(clean, generator)), times[which + 1])
        off = (student.under(process).denoise(noisy, times[which]) - goal).flatten(1).square().sum(1)
        loss = off.mean() if huber is None else ((off + huber**2).sqrt() - huber).mean()
        if law_loss is None:
            return loss
        return loss + law_weight * law_loss(one_step(student, process, float(times[0]), normal(clean, generator)), clean)

    def follow(step: int) -> None:
        with torch.no_grad():
            for mine, theirs in zip(target.parameters(), student.parameters(), strict=True):
                mine.lerp_(theirs, 1 - target_decay)

    return descend(student, objective, settings, after=follow)


def one_step(student: Denoiser, process: ScalarProcess, t: float, noise: Float[Tensor, "n *event"]) -> Float[Tensor, "n *event"]:
    """The student's samples in one step from time `t`, differentiable: from the prior at 1, elsewhere from noise alone."""
    start = process.prior_sample(noise) if t == 1 else float(process.sigma(t)) * noise
    return student.under(process).denoise(start, t)
