r"""Is a score one of a diffusion? Its mean over noisy data is 0, and `alpha score` is a martingale along the reverse process.

For the exact score, by the tower rule, `alpha_t score(x_t, t) = E[alpha_s score(x_s, s) | x_t]` for `s < t`: from any state, however long
the reverse SDE is followed, the mean of `alpha score` stays what it was; also at a stopping time, e.g. when it first leaves a ball
(optional stopping). Source: Pang et al. 2023 (arXiv 2302.10688), theorem 1 and section 3.2.
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

from sfumato.denoise.calibrated import MeanError
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.explain.explanation import Explanation
from sfumato.learn.repairs.calibration import mean_error
from sfumato.noise import ScalarProcess
from sfumato.sample import Ancestral, run


@dataclass(frozen=True)
class MeanScore(Explanation):
    """How large the mean of a score is beside the score, per noise-to-signal ratio.

    Arguments:
        ratios: noise-to-signal ratios, falling.
        share: `|E score| / E |score|`; 0 for an exact one.
        floor: what the finite number of draws alone would give of it.
    """

    ratios: list[float]
    share: list[float]
    floor: list[float]

    @property
    def numbers(self) -> dict[str, float]:
        worst = max(range(len(self.share)), key=lambda i: self.share[i])
        return {"largest share": self.share[worst], "at the ratio": self.ratios[worst], "its floor": self.floor[worst]}

    @property
    def meaning(self) -> str:
        share, ratio, floor = self.numbers.values()
        last = "calibrating removes it" if share > 2 * floor else "no more than the draws alone would give, there is nothing to calibrate"
        return f"The model's score has a mean of up to {share:.2%} of its size, at a noise-to-signal ratio of {ratio:.2g}: {last}."

    def plot(self, ax: Any) -> None:
        """The share by level, above the floor of the draws."""
        ax.plot(self.ratios, self.share, "o-", color="C0", label="measured")
        ax.plot(self.ratios, self.floor, "--", color="C1", label="exact score, as many draws")
        ax.set(xscale="log", yscale="log", xlabel="noise-to-signal ratio", ylabel="|mean score| / mean |score|")
        ax.legend()


def mean_score(denoiser: Denoiser, data: Float[Tensor, "n *event"], ratios: Sequence[float], *, draws: int = 1, seed: int = 0) -> MeanScore:
    """The mean of a score on noisy data; arguments and errors as `sfumato.learn.mean_error`."""
    found: MeanError = mean_error(denoiser, data, ratios, draws=draws, seed=seed)
    # in the table's units the error of the predicted noise is alpha / sqrt(alpha^2 + sigma^2) of the value
    signal = torch.sqrt(torch.sigmoid(2 * found.half_log_snr))
    share, floor = (signal * torch.sqrt(v[:, -1]) / found.norm for v in (found.squared().to(torch.float64), found.floor))
    return MeanScore(torch.exp(-found.half_log_snr).tolist(), share.tolist(), floor.tolist())


@dataclass(frozen=True)
class ScoreMartingale(Explanation):
    """The mean of `alpha score` along the reverse SDE from one state.

    Arguments:
        times: where it was looked at, falling; the first is the start.
        alphas: the signal's factor there.
        means, errors: the mean over paths and its standard error, per time and coordinate; the first is exact.
        stopped, stopped_error: the mean at the stopping time, and its standard error.
    """

    times: list[float]
    alphas: list[float]
    means: list[list[float]]
    errors: list[list[float]]
    stopped: list[float]
    stopped_error: list[float]

    @property
    def numbers(self) -> dict[str, float]:
        return {"largest drift in standard errors": self.drift(), "at the stopping time": self._worst([self.stopped], [self.stopped_error])}

    def drift(self, unscaled: bool = False) -> float:
        """The largest distance of a mean from the start, in standard errors; `unscaled`: of the score itself, without `alpha`."""
        factors = [a if unscaled else 1.0 for a in self.alphas]
        rows = [([m / f for m in mean], [e / f for e in error]) for mean, error, f in zip(self.means, self.errors, factors, strict=True)]
        return self._worst([m for m, _ in rows[1:]], [e for _, e in rows[1:]], factors[0])

    def _worst(self, means: list[list[float]], errors: list[list[float]], factor: float = 1.0) -> float:
        start = [v / factor for v in self.means[0]]
        return max(abs(v - s) / e for mean, error in zip(means, errors, strict=True) for v, s, e in zip(mean, start, error, strict=True))

    @property
    def meaning(self) -> str:
        drift = self.drift()
        verdict = "as a diffusion's must" if drift < 3 else "so it is not the score of any diffusion from these data"
        return f"Along the reverse process the mean of alpha times the score moves by {drift:.1f} standard errors, {verdict}."

    def plot(self, ax: Any) -> None:
        """The first coordinate's mean with three standard errors, the constant it should be, and the score without `alpha`."""
        mean, error = [m[0] for m in self.means], [3 * e[0] for e in self.errors]
        ax.errorbar(self.times, mean, error, fmt="o-", color="C0", label="mean of alpha score")
        ax.axhline(mean[0], color="C1", ls="--", label="a martingale's")
        bare = [m * self.alphas[0] / a for m, a in zip(mean, self.alphas, strict=True)]
        ax.plot(self.times, bare, ":", color="C2", label="without alpha")
        ax.set(xlabel="time", ylabel="mean over paths")
        ax.legend()


class _Draws:
    """Fresh normal draws by one generator, asked in order."""

    def __init__(self, like: Tensor, seed: int) -> None:
        self.like, self.generator = like, torch.Generator(like.device).manual_seed(seed)

    def draw(self, j: int) -> Tensor:
        return torch.randn(self.like.shape, generator=self.generator, dtype=self.like.dtype, device=self.like.device)


def score_martingale(
    denoiser: Denoiser,
    x: Float[Tensor, " *event"],
    t: float,
    stops: Sequence[float],
    *,
    paths: int = 20_000,
    steps: int = 300,
    radius: float = math.inf,
    seed: int = 0,
) -> ScoreMartingale:
    """Follow the reverse SDE from `x` at `t`, in steps that are equal in log-SNR, and average `alpha score`.

    Arguments:
        denoiser: whose score steers the paths and is averaged.
        x: one state.
        stops: falling times in `(0, t)` to look at.
        paths, steps: how many of each; the steps to the last stop, and every stop is the end of one.
        radius: a path's stopping time is the first at which `|alpha score|` is above it, or the last stop.
        seed: of the noise.

    Raises:
        ArgumentError: stops that do not fall in `(0, t)`, fewer than 2 paths or as few steps as stops, a radius that is not positive.
    """
    process, ends = denoiser.process, [t, *stops]
    if len(ends) < 2 or any(a <= b for a, b in pairwise(ends)) or ends[-1] <= 0 or not 0 < t <= 1:
        raise ArgumentError("t, stops", ends, "times in (0, 1] that fall")
    if paths < 2 or steps < len(stops) or not radius > 0:
        raise ArgumentError("paths, steps, radius", (paths, steps, radius), "at least 2, at least one a stop, and positive")
    flat, times = x.expand(paths, *x.shape).clone(), _grid(process, ends, steps)
    seen: dict[float, Tensor] = {}
    held, going = torch.zeros(paths, x.numel(), dtype=x.dtype), torch.ones(paths, dtype=torch.bool)

    def look(y: Tensor, time: float) -> Tensor:
        nonlocal held, going
        alpha, sigma = (float(v) for v in process.levels(time))
        answer = denoiser.denoise(y, time)
        value = (alpha * (alpha * answer - y) / sigma**2).flatten(1)
        held = torch.where(going[:, None], value, held)
        going = going & (value.norm(dim=1) <= radius)
        if time in ends:
            seen[time] = value
        return answer

    with torch.no_grad():
        end = run(Ancestral(1.0).compile(process, times), look, flat, _Draws(flat, seed))
        look(end, times[-1])
    values = [seen[time] for time in ends]
    error = math.sqrt(paths)
    return ScoreMartingale(
        ends,
        process.alpha(torch.tensor(ends, dtype=torch.float64)).tolist(),
        [v.mean(0).tolist() for v in values],
        [(v.std(0) / error).tolist() for v in values],
        held.mean(0).tolist(),
        (held.std(0) / error).tolist(),
    )


def _grid(process: ScalarProcess, ends: list[float], steps: int) -> list[float]:
    """Falling times through all the ends, about equal in log-SNR."""
    lam = process.half_log_snr(torch.tensor(ends, dtype=torch.float64)).tolist()
    times = [ends[0]]
    for end, (low, high) in zip(ends[1:], pairwise(lam), strict=True):
        count = max(1, round(steps * (high - low) / (lam[-1] - lam[0])))
        inner = process.time(torch.linspace(low, high, count + 1, dtype=torch.float64)[1:-1]).tolist()
        times += [*inner, end]
    return times
