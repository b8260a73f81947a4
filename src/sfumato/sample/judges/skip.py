r"""How far a sampler may be teleported, predicted from a few evaluations along the Gaussian flow.

Split the belief into a Gaussian law's answer and a residual, `D = D_G + R`. In `y = x / alpha` over half log-SNR `lambda`, with
`S = sqrt(l + k^2)` in every mode, the flow is `d(y~ / S) = R / S d lambda` (see `linearisation.py`). To first order in `R` a sample
that was carried to level `s` by the law alone has missed

    delta(s) = S_s int_{lambda_1}^{lambda_s} R / S d lambda,        R along the Gaussian trajectory,

and the law's own flow shrinks that by `sqrt(l) / S_s` on the way to clean data. So the error of the final sample, relative to its size, is

    error(s)^2 = E |sqrt(l) int R / S d lambda|^2 / E |x_0|^2.

Above a ratio of `FAR` deviations a residual, which falls like `1 / k^2`, is left out of the integral. Ours, after the analytical
teleportation of Wang & Vastola 2024 (arXiv 2412.09726).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.sample.compilers.teleport import Teleported
from sfumato.sample.sampler import Sampler
from sfumato.sample.solver import Solver
from sfumato.seeds import noise

FAR = 300.0
"""The noise-to-signal ratio, in standard deviations of the data's leading mode, at which the prediction starts on a process without a last
one."""


@dataclass(frozen=True)
class SkipForecast:
    """What teleporting to each level costs at the end.

    Arguments:
        law: what carries the samples.
        tolerance: the relative error allowed.
        ratio: the lowest level whose predicted error, and that of all above, is within the tolerance; the first level if there is none.
        ratios: the levels, falling.
        predicted: the root mean square error of the final sample, relative to its root mean square size.
        ungained: the same, were deviations carried along unchanged (`S_s / S` set to 1): what the gain factor is worth.
        evaluations: what the prediction cost, in evaluations of the denoiser on `batch` states.
        batch: how many trajectories were followed.
    """

    law: Gaussian
    tolerance: float
    ratio: float
    ratios: tuple[float, ...]
    predicted: tuple[float, ...]
    ungained: tuple[float, ...]
    evaluations: int
    batch: int

    @property
    def within(self) -> bool:
        """Whether any level is within the tolerance."""
        return self.predicted[0] <= self.tolerance

    def at(self, ratio: float) -> float:
        """The predicted error at a level, between those computed by a power law, and the larger one of two of which one is 0.

        Raises:
            ArgumentError: a level outside those computed.
        """
        if not self.ratios[-1] * (1 - 1e-9) <= ratio <= self.ratios[0] * (1 + 1e-9):
            raise ArgumentError("ratio", ratio, f"a level in [{self.ratios[-1]:.3g}, {self.ratios[0]:.3g}]")
        if ratio in self.ratios:
            return self.predicted[self.ratios.index(ratio)]
        for (a, e), (b, f) in pairwise(zip(self.ratios, self.predicted, strict=True)):
            if ratio > b:
                share = math.log(a / ratio) / math.log(a / b)
                return math.exp((1 - share) * math.log(e) + share * math.log(f)) if e and f else max(e, f)
        return self.predicted[-1]


def missed(
    denoiser: Denoiser, law: Gaussian, x: Float[Tensor, " batch *event"], ratios: Sequence[float]
) -> tuple[list[Float[Tensor, "batch dim"]], list[Float[Tensor, "batch dim"]]]:
    """`int R / S d lambda` and `int R d lambda` from the first ratio to each, by the trapezium rule along the Gaussian flow from `x`.

    Arguments:
        x: states at `t = 1`.
        ratios: falling; one evaluation each.
    """
    process = denoiser.process
    gained, plain = [], []
    inner: tuple[Tensor, Tensor] | None = None
    zero = x.flatten(1).to(law.dtype) * 0
    total, last = (zero, zero), 0.0
    for k in ratios:
        t = float(process.time_of_ratio(k))
        state = law.flow(process, 1.0, t)(x)
        with torch.no_grad():
            residual = (denoiser.denoise(state, t) - law.posterior_mean(state, process, t)).flatten(1).to(law.dtype)
        here = law.covariance.apply(lambda v, k=k: torch.rsqrt(v + k**2), residual), residual  # type: ignore[misc]
        if inner is not None:
            width = math.log(last / k)
            total = total[0] + width / 2 * (inner[0] + here[0]), total[1] + width / 2 * (inner[1] + here[1])
        inner, last = here, k
        gained.append(total[0])
        plain.append(total[1])
    return gained, plain


def forecast_skip(
    denoiser: Denoiser,
    law: Gaussian,
    tolerance: float = 0.02,
    *,
    ratios: Sequence[float] | None = None,
    batch: int = 64,
    seed: int = 0,
) -> SkipForecast:
    """Predict the cost of teleporting to each level, and choose the lowest within the tolerance.

    Arguments:
        denoiser: of the model.
        law: the Gaussian of its data.
        tolerance: relative root mean square error of the final sample, in (0, 1).
        ratios: falling levels, one evaluation each, all but the first a candidate; by default 40, down to the data's mean deviation.
        batch: trajectories.
        seed: of their starts.

    Raises:
        ArgumentError: a tolerance outside (0, 1), fewer than three ratios or ratios that do not fall.
    """
    if not 0 < tolerance < 1:
        raise ArgumentError("tolerance", tolerance, "a relative error in (0, 1)")
    process, spectrum = denoiser.process, law.covariance.spectrum
    if ratios is None:
        top = min(float(process.ratio(1.0)), FAR * math.sqrt(float(spectrum.max())))
        low = math.sqrt(float(law.covariance.trace()) / law.dim)
        ratios = [top * (low / top) ** (i / 39) for i in range(40)]
    if len(ratios) < 3 or not all(a > b > 0 for a, b in pairwise(ratios)):
        raise ArgumentError("ratios", list(ratios), "at least three falling noise-to-signal ratios")
    x = process.prior_sample(noise(seed, batch, law.event_shape, device=law.device).draw(0))
    gained, plain = missed(denoiser, law, x, ratios)
    size = float(law.covariance.trace()) + float(law.mean.to(torch.float64).square().sum())

    def error(away: Tensor) -> float:
        return math.sqrt(float(away.to(torch.float64).square().sum(1).mean()) / size)

    predicted = [error(law.covariance.apply(torch.sqrt, v)) for v in gained[1:]]
    shrink = [lambda v, k=k: torch.sqrt(v / (v + k**2)) for k in ratios[1:]]
    ungained = [error(law.covariance.apply(f, v)) for f, v in zip(shrink, plain[1:], strict=True)]
    good = next((i for i, e in enumerate(predicted) if not e <= tolerance), len(predicted))
    levels = tuple(float(k) for k in ratios[1:])
    return SkipForecast(law, tolerance, levels[max(good - 1, 0)], levels, tuple(predicted), tuple(ungained), len(ratios), batch)


@dataclass(frozen=True)
class HybridSamples:
    """Samples of a teleported sampler.

    Arguments:
        samples: `(n, *event)`.
        ratio: where they landed.
        evaluations, saved: evaluations used, and how many fewer than without teleportation.
        predicted: the relative error that teleportation was predicted to add.
    """

    samples: Float[Tensor, "n *event"]
    ratio: float
    evaluations: int
    saved: int
    predicted: float


def hybrid_sample(
    denoiser: Denoiser, solver: Solver, forecast: SkipForecast, times: Sequence[float], n: int, seed: int = 0
) -> HybridSamples:
    """Draw samples by closed form down to the forecast's level, and by the solver on the rest of the times.

    The samples are those of `solver` from the same noise, up to the predicted error.

    Raises:
        ArgumentError: no level of the forecast is within its tolerance, or no time stands at or above its level.
    """
    if not forecast.within:
        raise ArgumentError("forecast", f"an error of {forecast.predicted[0]:.2g} at best", f"a level within {forecast.tolerance:g}")
    full = solver.compile(denoiser.process, times)
    program = Teleported(solver, forecast.law, ratio=forecast.ratio).compile(denoiser.process, times)
    samples = Sampler(denoiser, program, forecast.law.event_shape).sample(n, seed)
    landing = float(denoiser.process.ratio(program.times[program.evaluated[0]]))
    saved = full.evaluations - program.evaluations
    return HybridSamples(samples, landing, program.evaluations, saved, forecast.at(min(landing, forecast.ratios[0])))
