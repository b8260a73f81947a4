r"""From which noise level on a coarse grid is enough.

A sampler that works on a coarse grid until the level `(alpha, sigma)` and then enlarges its clean estimate and noises it afresh puts pure
noise of variance `sigma^2` where a frequency that the coarse grid lacks should have `alpha^2 S_k + sigma^2`. The flow that follows turns
this into the variance

    S_k / (1 + SNR_k),        SNR_k = alpha^2 S_k / sigma^2,

of a Gaussian law, so that the share `SNR_k / (1 + SNR_k)` is lost. Without the fresh noise all of it is. Source: the spectral argument of
Starodubcev et al. 2025 (arXiv 2503.16397), section 3; the exact loss is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.explain.explanation import Explanation
from sfumato.noise import ScalarProcess


@dataclass(frozen=True)
class ScaleCriterion(Explanation):
    """What the switch from each size costs at each noise level.

    Arguments:
        sizes: points per axis of the coarse grids.
        ratios: noise-to-signal ratios at the switch, rising, `(levels,)`.
        lost: the largest share of variance lost in a frequency that the size lacks, `(sizes, levels)`.
        tolerance: the share that is allowed.
        needed: the least ratio at which each size is enough, infinite where no level is.
    """

    sizes: tuple[int, ...]
    ratios: Float[Tensor, " levels"]
    lost: Float[Tensor, "sizes levels"]
    tolerance: float
    needed: tuple[float, ...]

    @property
    def numbers(self) -> dict[str, float]:
        return {f"noise_needed_for_{size}": ratio for size, ratio in zip(self.sizes, self.needed, strict=True)}

    @property
    def meaning(self) -> str:
        parts = ", ".join(
            f"{size} points while sigma/alpha is above {ratio:.3g}" for size, ratio in zip(self.sizes, self.needed, strict=True)
        )
        return f"To lose at most {100 * self.tolerance:g} % of the variance of any frequency, work on {parts}."

    def plot(self, ax: Any) -> None:
        for n, (size, lost) in enumerate(zip(self.sizes, self.lost, strict=True)):
            ax.plot(self.ratios.numpy(), lost.numpy(), color=f"C{n}", label=f"{size} points, fresh noise")
        ax.axhline(self.tolerance, color="grey", linestyle=":", label="allowed")
        ax.axhline(1.0, color="grey", linestyle="--", label="without fresh noise")
        ax.set_xscale("log")
        ax.set_xlabel("noise-to-signal ratio at the switch")
        ax.set_ylabel("largest share of variance lost")
        ax.legend()


def scale_criterion(
    variances: Float[Tensor, " modes"],
    frequencies: Float[Tensor, " modes"],
    process: ScalarProcess,
    sizes: tuple[int, ...],
    *,
    tolerance: float = 0.05,
    times: Float[Tensor, " levels"] | None = None,
) -> ScaleCriterion:
    """The criterion of the module's head, for modes of given variances and frequencies (waves per axis); a size holds those up to its half.

    Raises:
        ShapeError: not one frequency per variance.
        ArgumentError: negative variances, a tolerance outside (0, 1), a size that lacks nothing.
    """
    if frequencies.shape != variances.shape:
        raise ShapeError("frequencies", tuple(frequencies.shape), f"one per variance, {tuple(variances.shape)}")
    if not bool((variances >= 0).all()):
        raise ArgumentError("variances", float(variances.min()), "variances of at least 0")
    if not 0 < tolerance < 1:
        raise ArgumentError("tolerance", tolerance, "a share in (0, 1)")
    largest = [float(variances[frequencies > size / 2].amax()) if bool((frequencies > size / 2).any()) else 0.0 for size in sizes]
    if not all(v > 0 for v in largest):
        raise ArgumentError("sizes", sizes, "sizes that lack some frequency with variance")
    grid = torch.linspace(0.02, 0.98, 97, dtype=torch.float64) if times is None else times.to(torch.float64)
    ratios = process.ratio(grid)
    snr = torch.tensor(largest, dtype=torch.float64)[:, None] / ratios.square()
    # SNR = tolerance / (1 - tolerance) at the bound
    needed = tuple((v * (1 - tolerance) / tolerance) ** 0.5 for v in largest)
    return ScaleCriterion(sizes, ratios, snr / (1 + snr), tolerance, needed)
