r"""Schedules that are optimal for something: for a bound on the divergence, or for Euler's method on a Gaussian law.

`aligned` moves the nodes to minimise what a schedule costs, e.g. the bound of `path_divergence.py`, as Sabour et al. 2024 (arXiv
2404.14507) do: few nodes first, each in turn, then twice as many between them. The bound weighs small noise by `k^-3`; pushed to its
minimum where the last ratio is far below the data's scale, it spends its nodes there and the samples' own divergence grows. A last ratio
within reach of the data's smallest scale (a tenth of it) and few sweeps are part of the method.

`tangent` is exact for another question: an Euler step of the probability flow of `N(0, c^2)` in the angle `theta = atan(k / c)` shrinks
the standard deviation by `cos(theta_i - theta_{i+1})` against the flow, and equal angles lose least (Jensen): `k_i = c tan(theta_i)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess
from sfumato.sample.judges.path_divergence import Objective, check_ratios
from sfumato.sample.times.schedules import custom

PUBLISHED: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "stable-diffusion-1.5": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152),
        "stable-diffusion-xl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113),
        "stable-video-diffusion": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034),
    }
)
"""The ratios that the authors found for public models, ten steps with a last one to no noise."""

_SAME = 1e-3
_SETTLED, _NEAREST = 1e-4, 1e-2


def tangent(process: ScalarProcess, n: int, std: float, ratio_max: float | None = None, ratio_min: float = 0.002) -> tuple[float, ...]:
    """`n` steps from `ratio_max` (default: the process's last) to `ratio_min`, equal in `atan(k / std)`: the best for Euler's method
    on `N(0, std^2)`. Append `0.0` for a step to no noise.

    Raises:
        ArgumentError: no steps, a standard deviation that is not positive, or ratios out of order.
    """
    high = float(process.ratio(1.0)) if ratio_max is None else ratio_max
    if not (isinstance(n, int) and n >= 1 and std > 0 and 0 < ratio_min < high < math.inf):
        raise ArgumentError("n, std, ratio_min, ratio_max", (n, std, ratio_min, high), "n >= 1, std > 0, 0 < ratio_min < ratio_max < inf")
    angles = np.linspace(math.atan(high / std), math.atan(ratio_min / std), n + 1)
    return times_of(process, [high, *(std * np.tan(angles[1:-1])).tolist(), ratio_min])


def published(process: ScalarProcess, name: str, n: int = 10) -> tuple[float, ...]:
    """`n` steps of a published schedule, the last one to no noise; other numbers than 10 by interpolation in `log k`.

    A first ratio that agrees with the process's last to the table's three digits is that ratio.

    Raises:
        ArgumentError: an unknown name, fewer than 2 steps, or ratios that the process does not have.
    """
    if name not in PUBLISHED:
        raise ArgumentError("name", repr(name), f"one of {', '.join(PUBLISHED)}")
    if not isinstance(n, int) or n < 2:
        raise ArgumentError("n", n, "at least 2 steps")
    ratios, top = list(PUBLISHED[name]), float(process.ratio(1.0))
    if abs(ratios[0] / top - 1) < _SAME:
        ratios[0] = top
    return (*times_of(process, interpolated(ratios, n - 1)), 0.0)


def aligned(
    process: ScalarProcess,
    n: int,
    objective: Objective,
    ratio_max: float,
    ratio_min: float,
    *,
    candidates: int = 21,
    sweeps: int = 30,
) -> tuple[float, ...]:
    """`n` steps from `ratio_max` to `ratio_min` that make the objective small. Append `0.0` for a step to no noise.

    Up to 10 steps are optimised at once, from equal steps in `log k`; then intervals are halved and optimised again until there are at
    least `n`, and a finer schedule is interpolated back to `n`.

    Arguments:
        objective: e.g. `BeliefError.bound()`, or `lambda k: path_divergence(denoiser, data, k, order=2).value`.
        candidates: places that a node may move to between its neighbours, equal in `log k`; the range narrows as nodes settle.
        sweeps: how often every node is moved, at most, at each level.

    Raises:
        ArgumentError: no steps, ratios out of order, or fewer than 3 candidates.
    """
    if not (isinstance(n, int) and n >= 1 and candidates >= 3 and sweeps >= 0 and 0 < ratio_min < ratio_max < math.inf):
        given = (n, candidates, sweeps, ratio_min, ratio_max)
        raise ArgumentError("n, candidates, sweeps, ratio_min, ratio_max", given, "n >= 1, candidates >= 3, 0 < ratio_min < ratio_max")
    ratios = _descended(interpolated([ratio_max, ratio_min], min(n, 10)), objective, candidates, sweeps)
    while len(ratios) - 1 < n:
        ratios = _descended(interpolated(ratios, 2 * len(ratios) - 2), objective, candidates, sweeps)
    return times_of(process, interpolated(ratios, n))


def interpolated(ratios: Sequence[float], n: int) -> list[float]:
    """A schedule with `n` steps instead: `log k` linear between the given nodes, the ends untouched."""
    known = check_ratios(ratios)
    place = np.linspace(0, len(known) - 1, n + 1)
    out = np.exp(np.interp(place, np.arange(len(known)), np.log(known))).tolist()
    return [known[0], *out[1:-1], known[-1]]


def times_of(process: ScalarProcess, ratios: Sequence[float]) -> tuple[float, ...]:
    """The process's times at falling ratios.

    Raises:
        ArgumentError: ratios that do not fall, or that the process does not have.
    """
    return custom([float(process.time_of_ratio(k)) for k in check_ratios(ratios)])


def _descended(ratios: list[float], objective: Objective, candidates: int, sweeps: int) -> list[float]:
    """Coordinate descent: every inner node in turn takes the best of its places, nearer ones once none moves, until that helps no more."""
    best, value, span = list(ratios), objective(ratios), 1.0
    for _ in range(sweeps):
        before = value
        for i in range(1, len(best) - 1):
            high, low = (best[i] * (best[j] / best[i]) ** span for j in (i - 1, i + 1))
            for k in np.geomspace(high, low, candidates + 2)[1:-1].tolist():
                tried = [*best[:i], k, *best[i + 1 :]]
                if all(a > b for a, b in pairwise(tried)) and (cost := objective(tried)) < value:
                    best, value = tried, cost
        if value > before * (1 - _SETTLED):
            span /= 4
            if span < _NEAREST:
                break
    return best
