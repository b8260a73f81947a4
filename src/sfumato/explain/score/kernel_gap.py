r"""What a sampler loses whose steps draw from one Gaussian: `sum E_{x_t} min_N KL(q(x_s | x_t) || N)` over its steps.

A few large steps through well-separated modes cost without bound: every halving of the modes' width adds `log 2` per dimension. Many small
ones cost nothing. Source: Li et al. 2023 (arXiv 2309.14068), theorems 3.1 and 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from sfumato.errors import ArgumentError
from sfumato.exact import GaussianMixture, gaussian_gap, gaussian_gap_1d, reverse_kernel
from sfumato.explain.explanation import Explanation
from sfumato.noise import ScalarProcess
from sfumato.seeds import Noise, noise

_NODES = 201


@dataclass(frozen=True)
class KernelGap(Explanation):
    """Nats lost per step by the best Gaussian.

    Arguments:
        times: the steps' starts, falling.
        gaps: `E KL(q || N)` of each step; a mixture of enough Gaussians has 0.
    """

    times: list[float]
    gaps: list[float]

    @property
    def numbers(self) -> dict[str, float]:
        worst = max(range(len(self.gaps)), key=lambda i: self.gaps[i])
        return {"sum": sum(self.gaps), "largest": self.gaps[worst], "from the time": self.times[worst]}

    @property
    def meaning(self) -> str:
        found = self.numbers
        return (
            f"{len(self.gaps)} steps of one Gaussian each lose {found['sum']:.3g} nats in all, most ({found['largest']:.3g}) in "
            f"the step from t = {found['from the time']:.2g}."
        )

    def plot(self, ax: Any) -> None:
        """The loss per step, beside that of a mixture."""
        ax.plot(self.times, self.gaps, "o-", color="C0", label="best single Gaussian")
        ax.axhline(0.0, color="C1", ls="--", label="mixture, exact")
        ax.set(xlabel="time from which the step is made", ylabel="nats lost")
        ax.legend()


def kernel_gap(law: GaussianMixture, process: ScalarProcess, times: Sequence[float], *, states: int = 2000, seed: int = 0) -> KernelGap:
    """The loss of every step: by quadrature in one dimension, and on samples in more.

    Arguments:
        law: of the clean data.
        process: whose reverse steps they are.
        times: falling.
        states: samples of `x_t`, and as many of `x_s`, in more than one dimension.
        seed: of these.

    Raises:
        ArgumentError: fewer than two times, times that do not fall, no states.
    """
    if len(times) < 2 or any(a <= b for a, b in pairwise(times)) or states < 2:
        raise ArgumentError("times, states", (list(times), states), "at least two falling times, and at least two states")
    if law.dim == 1:
        return KernelGap([float(t) for t in times[:-1]], [_quadrature(law, process, t, s) for t, s in pairwise(times)])
    gaps = []
    for i, (t, s) in enumerate(pairwise(times)):
        draws: Noise = noise(seed, states, law.event_shape, dtype=law.dtype)
        less = process.sample(law.sample(states, seed), s, draws.draw(2 + 2 * i))
        step = process.transition(s, t)
        x = float(step.phi) * less + math.sqrt(float(step.covariance)) * draws.draw(3 + 2 * i)
        gaps.append(float(gaussian_gap(reverse_kernel(law, process, x, t, s), less.flatten(1)[None]).mean()))
    return KernelGap([float(t) for t in times[:-1]], gaps)


def _quadrature(law: GaussianMixture, process: ScalarProcess, t: float, s: float) -> float:
    at = law.through(process, t)
    width = 8 * math.sqrt(float(max(c.trace() for c in law.covariances)) * float(process.alpha(t)) ** 2 + float(process.sigma(t)) ** 2)
    centres = float(process.alpha(t)) * law.means
    share = torch.linspace(0, 1, _NODES, dtype=law.dtype)[:, None]
    x = centres.min() - width + (centres.max() - centres.min() + 2 * width) * share
    shaped = x.reshape(-1, *law.event_shape)
    gap = gaussian_gap_1d(reverse_kernel(law, process, shaped, t, s))
    return float(torch.trapezoid(at.log_prob(shaped).exp() * gap, x[:, 0]))
