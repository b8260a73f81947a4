r"""Calibration inputs for quantisation: pairs `(x, t)` of noisy data and the time they belong to.

A quantised network has to serve a denoising run, so its ranges are chosen on states of a run, each taken at one time, and the times lean
towards the clean end, where the states look like data: `t = clamp(mu + std N(0, 1), 0, 1)` with `mu <= 1/2`.
Source: Shang et al. 2022 (arXiv 2211.15736), section 3.3 (NDTC).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.sample import Event, Sampler

Inputs = tuple[Tensor, Tensor]
"""States `(n, *event)` and their times `(n,)`, float64."""


def leaning_times(n: int, mean: float = 0.4, std: float = 0.4, seed: int = 0) -> Float[Tensor, " n"]:
    """Normal times, clamped to [0, 1]; with `std = 0` all are `mean`.

    Raises:
        ArgumentError: a mean outside [0, 1], or a negative deviation.
    """
    if not 0 <= mean <= 1 or not std >= 0:
        raise ArgumentError("mean, std", (mean, std), "a mean in [0, 1] and a deviation of at least 0")
    drawn = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (mean + std * drawn).clamp(0.0, 1.0)


def run_inputs(sampler: Sampler, times: Float[Tensor, " n"], seed: int = 0) -> Inputs:
    """One state of each of n denoising runs: sample `i` at the evaluated node nearest to `times[i]`, with that node's time.

    Arguments:
        sampler: whose states they are; its steps are nodes.
        times: where the states are wanted, e.g. `leaning_times`.
        seed: of the runs.
    """
    nodes = torch.tensor([sampler.program.times[i] for i in sampler.program.evaluated], dtype=torch.float64)
    place = (nodes[None] - times[:, None]).abs().argmin(1)
    which = torch.tensor(sampler.program.evaluated)[place]
    out = torch.zeros(len(times), *sampler.event_shape, dtype=sampler.dtype)

    def keep(event: Event) -> None:
        rows = which == event.node
        out[rows] = event.state[rows]

    sampler.sample(len(times), seed, chunk=len(times), on_node=keep)
    return out, nodes[place]
