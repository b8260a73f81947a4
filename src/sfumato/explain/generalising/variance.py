r"""The effective SDE: what sampling with a random score does on average over the models one could have trained.

A trained score is a random function with mean `s_avg` and covariance `V(z, z') = Cov[s(z), s(z')]` over training runs. Averaged over them,
the probability flow `x' = -b x - D s` (here `b = -F`, `D = g^2/2`) becomes, in falling time and in the Ito sense,

    dx = (b x + D s_avg) dtau + zeta dtau,        Cov[zeta(x, t), zeta(x', t')] = D V(x, t; x', t') D',

exactly if the score is a Gaussian process. Three simulators: `ensemble` integrates every trained model; `ensemble` of the models that a
spread draws (`LinearSpread.draw`, `KernelSpread.draw`) integrates whole random functions; `EffectiveSDE` is the case of noise that is white
in time, `V = S(x, t) delta(t - t')`, as an Euler-Maruyama simulation and, on the line, as a Fokker-Planck equation with the noise
coefficient `D^2 S / 2`. With `V = 0` what is left is the flow of `s_avg`.

The naive estimator uses, at each step of length `dt`, the proxy score of a fresh posterior draw: its `S` is `kappa C(x, t)` with
`kappa = dt`, and `s + sqrt(kappa/dt) (s~ - s)` makes `kappa` free. `C` depends on `x`, so Ito and Stratonovich differ, and this is Ito.
Source: Vastola 2025 (arXiv 2504.12532), sections 3-4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser, from_data
from sfumato.errors import ArgumentError
from sfumato.exact import Law
from sfumato.exact.diffusions.fokker_planck import Line, LineDensity, fokker_planck
from sfumato.exact.draws import posterior_sample
from sfumato.exact.learning.proxy import posterior_covariance, posterior_variance
from sfumato.noise import ScalarProcess, Time
from sfumato.sample.times.schedules import custom
from sfumato.seeds import Seed, noise

Spread = Callable[[Float[Tensor, "n *event"], float], Float[Tensor, "n dim dim"]]
"""The strength of a white noise on a denoiser's answer: `E[xi xi'^T] = Spread(x, t) delta(t - t')`, flat."""


def ensemble(
    denoisers: Sequence[Denoiser], event_shape: Sequence[int], times: Sequence[float], n: int, seed: int = 0
) -> Float[Tensor, "models n *event"]:
    """`n` samples of every model by Euler steps of the probability flow, float64; every model starts from noise of its own.

    Arguments:
        denoisers: one or more; that their samplers are the same is what makes their samples comparable.
        times: where the flow stops on its way, strictly falling, above 0.

    Raises:
        ArgumentError: no models; times that do not fall or that reach 0.
    """
    if not denoisers:
        raise ArgumentError("denoisers", 0, "at least one model")
    return torch.stack([_flow(d, _start(d.process, times, n, event_shape, seed, i), times) for i, d in enumerate(denoisers)])


class AverageDenoiser(Denoiser):
    """The mean of the answers of several denoisers of one process: `s_avg`, and its flow is the counterfactual `V = 0`.

    Raises:
        ArgumentError: none, or denoisers of different processes.
    """

    def __init__(self, denoisers: Sequence[Denoiser]) -> None:
        if len({d.process for d in denoisers}) != 1:
            raise ArgumentError("denoisers", f"{len(denoisers)} denoisers", "at least one, all of the same process")
        self.denoisers, self.process = tuple(denoisers), denoisers[0].process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        return torch.stack([d.denoise(x, t, condition) for d in self.denoisers]).mean(0)


@dataclass(frozen=True)
class EffectiveSDE:
    """The effective SDE of a score whose noise is white in time.

    Arguments:
        mean: the average denoiser, which gives `s_avg`.
        spread: see `Spread`; the score's `S` is `alpha^2/sigma^4` times it. None for `V = 0`.
    """

    mean: Denoiser
    spread: Spread | None

    @classmethod
    def naive(cls, law: Law, process: ScalarProcess, kappa: float) -> EffectiveSDE:
        """That of the naive estimator: `S = kappa C`, `kappa` in units of time.

        Raises:
            ArgumentError: a negative `kappa`.
        """
        _check_kappa(kappa)

        def spread(x: Tensor, t: float) -> Tensor:
            if law.dim == 1:
                return kappa * posterior_variance(law, x, process, t)[:, None, None]
            return kappa * posterior_covariance(law, x, process, t)

        return cls(law.denoiser(process), spread if kappa else None)

    def without_noise(self) -> EffectiveSDE:
        """The counterfactual `V = 0`."""
        return replace(self, spread=None)

    def sample(self, event_shape: Sequence[int], times: Sequence[float], n: int, seed: int = 0) -> Float[Tensor, "n *event"]:
        """`n` samples by Euler-Maruyama, float64; times as in `ensemble`."""
        process = self.mean.process
        x = _start(process, times, n, event_shape, seed, 0)
        for step, (t, gap) in enumerate(_steps(times)):
            moved = x - gap * self.mean.velocity(x, t)
            if self.spread is not None:
                white = noise(seed, 1, (n, x[0].numel()), dtype=torch.float64).draw(1 + step)[0]
                values, vectors = torch.linalg.eigh(self.spread(x, t))
                kick = torch.einsum("nij,nj->ni", vectors * values.clamp(min=0).sqrt()[:, None], white)
                moved += _pull(process, t) * gap**0.5 * kick.reshape(x.shape)
            x = moved
        return x

    def density(self, times: Sequence[float], line: Line) -> LineDensity:
        """The law of `sample` for real numbers, by the Fokker-Planck equation.

        Raises:
            ArgumentError: a line that misses more than a millionth of the prior.
        """
        process, std = self.mean.process, float(self.mean.process.sigma(custom(times)[0]))
        centres = line.centres
        start = torch.exp(-0.5 * (centres / std) ** 2)
        if float(start[[0, -1]].max()) > 1e-5:
            raise ArgumentError(
                "line", (line.low, line.high), f"a line of at least 5 standard deviations of the prior, {std:.3g}, each way"
            )

        def drift(x: Tensor, t: float) -> Tensor:
            return -self.mean.velocity(x[:, None], t)[:, 0]

        def strength(x: Tensor, t: float) -> Tensor:
            return torch.zeros_like(x) if self.spread is None else self.spread(x[:, None], t)[:, 0, 0] * _pull(process, t) ** 2 / 2

        return fokker_planck(LineDensity(line, start), list(times), drift, strength)


def naive(law: Law, process: ScalarProcess, times: Sequence[float], n: int, kappa: float | None = None, seed: int = 0) -> Tensor:
    """`n` samples of the naive estimator, `(n, *event)` and float64: a fresh posterior draw at every step.

    Arguments:
        kappa: the noise's strength, in units of time; None for that of the estimator as it is, the step itself.

    Raises:
        ArgumentError: a negative `kappa`; times as in `ensemble`.
    """
    if kappa is not None:
        _check_kappa(kappa)
    generator = torch.Generator().manual_seed(seed)
    x = _start(process, times, n, law.event_shape, seed, 0)
    for t, gap in _steps(times):
        mean, drawn = law.posterior_mean(x, process, t), posterior_sample(law, x, process, t, generator)
        guess = drawn if kappa is None else mean + (kappa / gap) ** 0.5 * (drawn - mean)
        x = x - gap * from_data(guess, "velocity", x, t, process)
    return x


def _flow(denoiser: Denoiser, x: Tensor, times: Sequence[float]) -> Tensor:
    with torch.no_grad():
        for t, gap in _steps(times):
            x = x - gap * denoiser.velocity(x, t)
    return x


def _steps(times: Sequence[float]) -> Iterator[tuple[float, float]]:
    """The time at which each step starts, and its length."""
    if custom(times)[-1] == 0:
        raise ArgumentError("times", "a last time of 0", "a last time above 0", "A proxy has no end without noise; end at a small time.")
    return ((t, t - s) for t, s in pairwise(times))


def _start(process: ScalarProcess, times: Sequence[float], n: int, event_shape: Sequence[int], seed: Seed, model: int) -> Tensor:
    if n < 1:
        raise ArgumentError("n", n, "at least 1 sample")
    white = noise(seed, 1, (n, *event_shape), first=model, dtype=torch.float64).draw(0)[0]
    return float(process.sigma(custom(times)[0])) * white


def _pull(process: ScalarProcess, t: float) -> float:
    """What a unit of error of the denoiser moves the sample by, per unit of time: `D alpha / sigma^2`."""
    return float(process.diffusion_squared(t) / 2 * process.alpha(t) / process.sigma(t) ** 2)


def _check_kappa(kappa: float) -> None:
    if not 0 <= kappa < float("inf"):
        raise ArgumentError("kappa", kappa, "a strength of at least 0")
