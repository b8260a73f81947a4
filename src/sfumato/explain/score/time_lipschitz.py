r"""How fast a prediction changes with time, on the same noisy data: `K(t, t') = E_x |view(x, t) - view(x, t')| / |t - t'|`, `x ~ p_t`.

The exact noise prediction has `K ~ |sigma'|`, which is `t^(-1/2)` near `t = 0` for linear betas: a network has to follow, and steps in
`t` have to be small. Source: Yang et al. 2023 (arXiv 2306.11251), eq. 7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser, View
from sfumato.errors import ArgumentError
from sfumato.explain.explanation import Explanation
from sfumato.explain.score.score_probe import DRAW
from sfumato.metrics import fit_rate
from sfumato.seeds import noise


@dataclass(frozen=True)
class TimeLipschitz(Explanation):
    """`K` of neighbouring times.

    Arguments:
        times: the earlier of each pair, rising.
        constants: `K` there.
        clock: `|d sigma / dt|` in the middle of each pair, scaled to the measured value at the latest: the shape of the diverging term.
    """

    times: list[float]
    constants: list[float]
    clock: list[float]

    @property
    def slope(self) -> float:
        """Of `log K` against `log t`, by least squares: -1/2 where `sigma ~ sqrt(t)`, 0 where it is bounded."""
        if min(self.constants) <= 0 or len(self.times) < 3:
            return math.nan
        return fit_rate(self.times, self.constants).slope

    @property
    def numbers(self) -> dict[str, float]:
        return {"largest": max(self.constants), "at the time": self.times[self.constants.index(max(self.constants))], "slope": self.slope}

    @property
    def meaning(self) -> str:
        grows = "grows without bound towards the clean end" if self.slope < -0.25 else "stays bounded towards the clean end"
        return (
            f"With time alone the prediction changes by up to {max(self.constants):.3g} per unit of t, at t = "
            f"{self.numbers['at the time']:.2g}; it {grows} (as t to the power {self.slope:.2f})."
        )

    def plot(self, ax: Any) -> None:
        """Measured constants, and the clock's rate that they follow where it diverges."""
        ax.plot(self.times, self.constants, "o-", color="C0", label="measured")
        ax.plot(self.times, self.clock, "--", color="C1", label="shape of |d sigma / dt|")
        ax.set(xscale="log", yscale="log", xlabel="time", ylabel="change of the prediction per unit of time")
        ax.legend()


def time_lipschitz(
    denoiser: Denoiser, x0: Float[Tensor, "n *event"], times: Sequence[float], *, view: View = "noise", seed: int = 0
) -> TimeLipschitz:
    """Measure `K` between neighbouring times, at noisy data of the earlier one.

    Arguments:
        denoiser: whose view is asked.
        x0: clean data.
        times: at least two, rising, in (0, 1]; a pair that is close gives the derivative.
        view: which prediction.
        seed: of the noise.

    Raises:
        ArgumentError: times that are no such.
    """
    if len(times) < 2 or not times[0] > 0 or any(a >= b for a, b in pairwise(times)):
        raise ArgumentError("times", list(times)[:5], "at least two times above 0 that rise")
    eps = noise(seed, len(x0), tuple(x0.shape[1:]), dtype=x0.dtype, device=x0.device).draw(DRAW)
    found, rates = [], []
    with torch.no_grad():
        for a, b in pairwise(times):
            x = denoiser.process.sample(x0, a, eps)
            apart = (denoiser.view(view, x, b) - denoiser.view(view, x, a)).flatten(1).norm(dim=1)
            found.append(float(apart.mean()) / (b - a))
            rates.append(abs(float(denoiser.process.sigma_rate((a + b) / 2))))
    scale = found[-1] / rates[-1] if rates[-1] > 0 else 0.0
    return TimeLipschitz([float(t) for t in times[:-1]], found, [scale * r for r in rates])
