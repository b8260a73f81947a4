r"""Where a sampler stops on its way: `n + 1` times, falling from `start` to `end`.

All are float64 tuples, and what is returned is what is used, printed and saved. Where the spacing cannot reach `end` (log-SNR is
infinite at zero noise), the last node before it stands at `t_min` and one more step leads to `end`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess


def custom(times: Sequence[float] | Tensor) -> tuple[float, ...]:
    """The user's own times, verbatim.

    Raises:
        ArgumentError: fewer than two times, times outside [0, 1], or times that do not fall strictly.
    """
    out = tuple(float(t) for t in times)
    if len(out) < 2:
        raise ArgumentError("times", list(out), "at least two times", "A sampler needs a start and an end.")
    if not all(0 <= t <= 1 for t in out):
        raise ArgumentError("times", list(out), "times in [0, 1]")
    if any(s >= t for t, s in pairwise(out)):
        raise ArgumentError("times", list(out), "times that fall strictly", "Samplers walk from noise at 1 to data at 0.")
    return out


def _check(n: int, start: float, end: float) -> None:
    if not isinstance(n, int) or n < 1:
        raise ArgumentError("n", n, "at least 1 step")
    if not 0 <= end < start <= 1:
        raise ArgumentError("start, end", (start, end), "0 <= end < start <= 1")


def uniform_time(n: int, start: float = 1.0, end: float = 0.0, power: float = 1.0) -> tuple[float, ...]:
    """`n` steps, equal in `t^(1/power)`: `power = 2` is the quadratic spacing."""
    _check(n, start, end)
    grid = torch.linspace(start ** (1 / power), end ** (1 / power), n + 1, dtype=torch.float64) ** power
    return custom([start, *grid[1:-1].tolist(), end])


def uniform_log_snr(process: ScalarProcess, n: int, start: float = 1.0, end: float = 0.0, t_min: float = 1e-3) -> tuple[float, ...]:
    """`n` steps, equal in log-SNR; with `end = 0` the first `n - 1` of them end at `t_min`. A start with infinite log-SNR begins at `1
    - t_min`.
    """
    _check(n, start, end)
    top = start if torch.isfinite(process.half_log_snr(start)) else start - t_min
    low = end if end > 0 else t_min
    inner = n - (end == 0) - (top != start)
    if inner < 0:
        raise ArgumentError("n", n, "at least 2 steps between ends of infinite log-SNR")
    lam = torch.linspace(float(process.half_log_snr(top)), float(process.half_log_snr(low)), inner + 1, dtype=torch.float64)
    times = process.time(lam).tolist()
    times[0], times[-1] = top, low if inner else top
    return custom(([start] if top != start else []) + times + ([end] if end == 0 else []))


def karras(
    process: ScalarProcess,
    n: int,
    rho: float = 7.0,
    ratio_max: float | None = None,
    ratio_min: float = 0.002,
    end: float = 0.0,
) -> tuple[float, ...]:
    """Karras et al. 2022 (arXiv 2206.00364), eq. 5, in the ratio `k`: `k_i^(1/rho)` equally spaced over `n` nodes, then `end`.

    Arguments:
        ratio_max: the first ratio; by default the process's last, or 80 if that is infinite.
        ratio_min: the ratio of the last node before `end`.

    Raises:
        ArgumentError: `n < 2`, or ratios out of order.
    """
    _check(n, 1.0, end)
    top = float(process.ratio(1.0))
    high = ratio_max if ratio_max is not None else (top if top < float("inf") else 80.0)
    if not 0 < ratio_min < high:
        raise ArgumentError("ratio_min, ratio_max", (ratio_min, high), "0 < ratio_min < ratio_max")
    if n == 1:
        return custom([float(process.time_of_ratio(high)), end])
    ramp = torch.linspace(high ** (1 / rho), ratio_min ** (1 / rho), n, dtype=torch.float64) ** rho
    times = process.time_of_ratio(ramp.clamp(max=high)).tolist()
    return custom([*times, end])
