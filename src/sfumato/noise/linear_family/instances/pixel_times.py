r"""Every pixel on its own time: `x_i = alpha(tau_i(t)) x_{0,i} + sigma(tau_i(t)) eps_i`.

Sources: Pearl et al. 2023 (arXiv 2306.16052; noise that varies in space), Ruhe et al. 2024 (arXiv 2402.09470; rolling windows).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.linear_family.basis import pixels
from sfumato.noise.linear_family.clock import Clock
from sfumato.noise.linear_family.marginal_table import TableSDE
from sfumato.noise.linear_family.preset import preset
from sfumato.noise.linear_family.van_loan import Coefs


@preset
def pixel_times(starts: Tensor, ends: Tensor, first: float = 0.1, last: float = 20.0) -> TableSDE:
    """Variance preserving at `tau_i = (t - start_i)/(end_i - start_i)`, held in [0, 1].

    Arguments:
        starts, ends: one per pixel, of the event shape, `0 <= start < end`; a pixel with `start >= 1` stays known.
        first, last: the clock's speed at `tau = 0` and 1.

    Raises:
        ShapeError, ArgumentError: other windows.
    """
    if starts.shape != ends.shape or starts.ndim < 1:
        raise ShapeError("starts, ends", (tuple(starts.shape), tuple(ends.shape)), "two tensors of the event shape")
    if not bool(((starts >= 0) & (starts < ends) & torch.isfinite(ends)).all()):
        raise ArgumentError("starts, ends", "windows that are empty or begin before 0", "0 <= start < end for every pixel")
    begin, width, clock = starts.double().flatten(), (ends - starts).double().flatten(), Clock(first, last)

    def table(t: Tensor) -> Coefs:
        tau = ((t[..., None] - begin) / width).clamp(0, 1)
        integral = clock.between(torch.zeros_like(tau), tau)
        signal = torch.exp(-integral / 2)[..., None, None]
        return signal, signal[..., :0], -torch.expm1(-integral)[..., None, None]

    end = table(torch.ones((), dtype=torch.float64))[2]
    return TableSDE(table, basis=pixels(starts.shape), prior=(end[..., :0], end))
