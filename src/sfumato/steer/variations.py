r"""Variations of a sample along the directions in which the data vary around it.

On its way a sample `x_t` is pushed along a leading eigenvector `v_j` of the denoiser's Jacobian, by `a` local standard deviations,

    x_t <- x_t + a sqrt(alpha_t^2 l_j + sigma_t^2) v_j,

and sampling is finished. Where the data are locally Gaussian with variance `l_j` along `v_j`, the probability flow keeps the number of
standard deviations, so that the sample at time `s` moves by `a sqrt(alpha_s^2 l_j + sigma_s^2) v_j`, i.e. by `a sqrt(l_j) v_j` at the clean
end. Early variations change what the sample is, late ones its details. Only the prediction assumes a probability flow.
Source: Wang & Vastola 2023 (arXiv 2303.02490), section 4; the procedure follows from its theory, no recipe is published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoise.jacobian import LocalCovariance, local_covariance
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.sample import Program, Sampler


@dataclass(frozen=True)
class Variations:
    """Samples finished with and without kicks.

    Arguments:
        amplitudes: the kicks in local standard deviations.
        base: the samples without a kick, `(batch, *event)`.
        samples: `(batch, k, amplitudes, *event)`.
        kicks: the kicks themselves, of the same shape.
        predicted: the predicted length of the samples' shift per unit of amplitude, float64 `(batch, k)`.
        local: the eigenpairs behind the kicks.
    """

    amplitudes: tuple[float, ...]
    base: Float[Tensor, "batch *event"]
    samples: Float[Tensor, "batch k amplitudes *event"]
    kicks: Float[Tensor, "batch k amplitudes *event"]
    predicted: Float[Tensor, "batch k"]
    local: LocalCovariance

    @property
    def shifts(self) -> Float[Tensor, "batch k amplitudes *event"]:
        """What the kicks changed in the samples."""
        return self.samples - self.base[:, None, None]

    @property
    def lengths(self) -> Float[Tensor, "batch k amplitudes"]:
        """The lengths of the shifts, float64."""
        return torch.linalg.vector_norm(self.shifts.flatten(3).to(torch.float64), dim=3)

    @property
    def ratios(self) -> Float[Tensor, "batch k amplitudes"]:
        """Measured over predicted lengths."""
        return self.lengths / (self.predicted[:, :, None] * self.predicted.new_tensor(self.amplitudes).abs())

    @property
    def cosines(self) -> Float[Tensor, "batch k amplitudes"]:
        """The cosines between shifts and kicks, float64."""
        kicks, shifts = self.kicks.flatten(3).to(torch.float64), self.shifts.flatten(3).to(torch.float64)
        return torch.nn.functional.cosine_similarity(kicks, shifts, dim=3)


def kicked(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *event"],
    kicks: Float[Tensor, "..."],
    program: Program,
    *,
    condition: Tensor | None = None,
    seed: int = 0,
    chunk: int = 256,
) -> tuple[Tensor, Tensor]:
    """Samples finished from `x`, `(batch, *event)`, and from `x` with each of its kicks, `(batch, n, *event)`.

    Arguments:
        denoiser: the belief.
        x: states at the program's first time, in its process's coordinates.
        kicks: what is added to them, `(batch, n, *event)`.
        program: how to finish.
        condition: as the denoiser takes it, one row per state.
        seed: of a stochastic program's noise; a state and its kicks see the same noise.
        chunk: how many are computed together.

    Raises:
        ShapeError: the kicks are not shaped as the states.
    """
    if kicks.ndim != x.ndim + 1 or kicks.shape[0] != x.shape[0] or kicks.shape[2:] != x.shape[1:]:
        raise ShapeError("kicks", tuple(kicks.shape), f"(batch, n, *event) for x of shape {tuple(x.shape)}")
    event, copies = tuple(x.shape[1:]), 1 + kicks.shape[1]
    starts = torch.cat([x[:, None], x[:, None] + kicks], 1).flatten(0, 1)
    seeds = [seed + i for i in range(len(x)) for _ in range(copies)]
    given = None if condition is None else condition.repeat_interleave(copies, 0)
    sampler = Sampler(denoiser, program, event, x.dtype, x.device)
    ends = sampler.sample(len(starts), seeds, condition=given, start=starts, chunk=chunk).reshape(len(x), copies, *event)
    return ends[:, 0], ends[:, 1:]


def variations(
    denoiser: Denoiser,
    x: Float[Tensor, "batch *event"],
    program: Program,
    k: int = 4,
    amplitudes: Sequence[float] = (-1.0, 1.0),
    *,
    condition: Tensor | None = None,
    largest: float = math.inf,
    seed: int = 0,
) -> Variations:
    """Vary the samples that `x` is on its way to, along `k` directions each.

    Arguments:
        denoiser: the belief.
        x: noisy states at the program's first time, e.g. one state of a `Trajectory`.
        program: how to finish, e.g. `Exponential().compile(process, times[i:])`. The prediction is made for a probability flow.
        k: how many directions.
        amplitudes: the kicks in local standard deviations.
        condition: as the denoiser takes it, one row per state.
        largest: the largest variance that the data have along any direction, if it is known. Between modes the local variance is not
            defined, and this bounds the kicks there; without it they reach `sigma / sqrt(1 - CEILING)`, some 30 sigma.
        seed: of a stochastic program's noise.

    Raises:
        ArgumentError: no amplitudes, one of 0, no positive `largest`, or a program that starts without signal.
    """
    if not amplitudes or not all(a != 0 for a in amplitudes) or not largest > 0:
        raise ArgumentError("amplitudes, largest", (tuple(amplitudes), largest), "amplitudes, none of them 0, and a positive variance")
    process, times = program.process, program.times
    asked = denoiser.under(process)
    local = local_covariance(asked, x, times[0], k, condition=condition, seed=seed)
    variances = local.variances.clamp(max=largest)
    scales = torch.sqrt(local.alpha**2 * variances + local.sigma**2)
    sizes = scales[:, :, None] * scales.new_tensor(amplitudes)
    kicks = local.directions[:, :, None] * sizes.to(x.dtype).reshape(*sizes.shape, *[1] * (x.ndim - 1))
    base, moved = kicked(asked, x, kicks.flatten(1, 2), program, condition=condition, seed=seed)
    alpha, sigma = (float(c) for c in process.levels(times[-1]))
    predicted = torch.sqrt(alpha**2 * variances + sigma**2)
    return Variations(tuple(float(a) for a in amplitudes), base, moved.reshape(kicks.shape), kicks, predicted, local)
