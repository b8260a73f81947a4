r"""Few-step sampling that grows: noise hides what a coarse grid cannot hold, so the noisy steps are taken on one.

Over falling times `t_1 > ... > t_{n+1} = 0` and rising sizes `r_1 <= ... <= r_n`, from noise of size `r_1`,

    D_i = denoiser(x_i, t_i),        x_{i+1} = alpha_{i+1} up(D_i) + sigma_{i+1} eps:

the *clean* estimate is enlarged (bicubic), and fresh noise covers what the enlargement made up. A student is trained on what it meets
there: data averaged down to `r_{i-1}`, enlarged to `r_i` and noised to `t_i`; its answer is judged beside data averaged down to `r_i`.
Source: Starodubcev et al. 2025 (arXiv 2503.16397), section 4 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import ScalarProcess, Time
from sfumato.sample.times.schedules import custom
from sfumato.seeds import Noise, Seed, noise


def enlarge(x: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c s s"]:
    """Bicubic enlargement to `size` by `size`; as it is, if it has that size."""
    return x if x.shape[-1] == size else interpolate(x, size=(size, size), mode="bicubic", align_corners=False)


def reduce(x: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c s s"]:
    """Area averages on `size` by `size` cells."""
    return adaptive_avg_pool2d(x, size)


@dataclass(frozen=True)
class ScaleWise:
    """When to take which size.

    Arguments:
        process: of the noise.
        times: `t_1 > ... > t_{n+1} = 0`.
        sizes: `r_1 <= ... <= r_n`, the sides of square events, one a step.

    Raises:
        ArgumentError: times that do not end at 0, or sizes that are not one a step or that fall.
    """

    process: ScalarProcess
    times: Sequence[float]
    sizes: Sequence[int]

    def __post_init__(self) -> None:
        if custom(self.times)[-1] != 0:
            raise ArgumentError("times", list(self.times), "times that end at 0")
        if len(self.sizes) != len(self.times) - 1 or list(self.sizes) != sorted(self.sizes) or min(self.sizes) < 1:
            raise ArgumentError("sizes", list(self.sizes), f"{len(self.times) - 1} sizes that do not fall, one a step")

    @property
    def cost(self) -> float:
        """Pixels seen over all steps, relative to taking every step at the last size."""
        return sum(r * r for r in self.sizes) / (len(self.sizes) * self.sizes[-1] ** 2)

    def sample(self, denoiser: Denoiser, n: int, channels: int, seed: Seed = 0, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """`n` samples `(n, channels, r_n, r_n)`; draw `i - 1` of a sample's noise is that of step `i`, cut to the step's size."""
        side = self.sizes[-1]
        draws = noise(seed, n, (channels, side, side), dtype=dtype)
        fresh = self._fresh(draws, 0)
        first = self.times[0]
        x = self.process.prior_sample(fresh) if first == 1 else float(self.process.sigma(first)) * fresh
        belief = denoiser.under(self.process)
        with torch.no_grad():
            for i, t in enumerate(self.times[:-1]):
                clean = belief.denoise(x, t)
                if i + 1 == len(self.sizes):
                    return clean
                x = self.process.sample(enlarge(clean, self.sizes[i + 1]), self.times[i + 1], self._fresh(draws, i + 1))
        return x

    def pair(self, step: int, clean: Float[Tensor, "n c h w"], fresh: Tensor) -> tuple[Tensor, Tensor]:
        """What the student meets at a step, and what it should have answered like: `(noisy, clean)` at the step's size.

        Arguments:
            step: from 0.
            clean: data of the last size.
            fresh: noise of the step's size.

        Raises:
            ShapeError: data of another size.
        """
        if clean.shape[-1] != self.sizes[-1]:
            raise ShapeError("clean", tuple(clean.shape), f"events of the last size, {self.sizes[-1]}")
        size = self.sizes[step]
        target = reduce(clean, size)
        source = target if step == 0 else enlarge(reduce(clean, self.sizes[step - 1]), size)
        return self.process.sample(source, self.times[step], fresh), target

    def _fresh(self, draws: Noise, step: int) -> Tensor:
        size = self.sizes[step]
        return draws.draw(step)[..., :size, :size]


class BySize(nn.Module, Denoiser):
    """One denoiser a size, where no network takes them all.

    Arguments:
        denoisers: by the side of the events they take; those that are modules are trained with this one.

    Raises:
        ArgumentError: none, or ones of different processes.
    """

    def __init__(self, denoisers: dict[int, Denoiser]) -> None:
        if len({str(d.process) for d in denoisers.values()}) != 1:
            raise ArgumentError("denoisers", sorted(denoisers), "at least one, all of one process")
        super().__init__()
        self.process = next(iter(denoisers.values())).process
        self._by_size = dict(denoisers)
        self.trained = nn.ModuleDict({str(size): d for size, d in denoisers.items() if isinstance(d, nn.Module)})

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        if x.shape[-1] not in self._by_size:
            raise ShapeError("x", tuple(x.shape), f"events of the sizes {sorted(self._by_size)}")
        return self._by_size[x.shape[-1]].denoise(x, t, condition)
