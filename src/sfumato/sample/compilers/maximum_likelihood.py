r"""The reverse step of greatest likelihood: among all `x_s = a x_t + b D + c eps`, the one under which forward paths are most probable.

Given `x_0`, a step back from `t` to `s` is `N(mu x_t + nu x_0, q)` with, over `h` in half log-SNR,

    mu = exp(-h) sigma_s / sigma_t,        nu = alpha_s (1 - exp(-2h)),        q = sigma_s^2 (1 - exp(-2h)),

and the expected log-likelihood of such pairs under `N(a x_t + b D, c^2)` is greatest at `a = mu`, `b = nu` and

    c^2 = q + nu^2 v(k_t),        v(k) = E |x_0 - D|^2 / d,

at any step size: the mean is the ancestral one, and the belief's own spread `v` is added to its variance. In practice the spread is
dropped. Source: Popov et al. 2022 (arXiv 2109.13821), for `x_s = x_t + beta h ((1/2 + w) x_t + (1 + k) score) + c eps` under a
variance-preserving process; `published_parameters` are their `k` and `w`. In terms of the answer none of it divides by `beta h`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.noise import EDM, ScalarProcess, VariancePreserving
from sfumato.sample.compilers.stochastic import Stochastic, StochasticTable
from sfumato.sample.program import Program
from sfumato.sample.solver import Solver
from sfumato.sample.times.schedules import custom
from sfumato.seeds import Seed, noise

Spread = Callable[[float], float]
"""`v(k)`: the mean squared error of the belief at a noise-to-signal ratio, per number of an event."""


def gaussian_spread(law: Gaussian) -> Spread:
    """The closed form of a Gaussian law with variances `l`: the mean of `l k^2 / (l + k^2)` over its directions."""
    spectrum = law.covariance.spectrum.to("cpu")

    def spread(k: float) -> float:
        kept = spectrum if k == math.inf else torch.where(spectrum == 0, 0.0, spectrum * k**2 / (spectrum + k**2))
        return float(law.covariance.basis.total(kept)) / law.dim

    return spread


def score_spread(denoiser: Denoiser, data: Float[Tensor, "batch *event"], seed: Seed = 0) -> Spread:
    """The spread that a score implies, `v(k) = k^2 (1 - E |eps|^2 / d)` with its predicted noise `eps`, on noised `data`.

    It equals the mean squared error for the exact belief of the data's law; sampling noise may make it negative at small `k`, and then 0 is
    returned.
    """
    z = noise(seed, len(data), data.shape[1:], dtype=data.dtype).draw(1).to(data.device)

    def spread(k: float) -> float:
        at = data + k * z
        with torch.no_grad():
            answer = denoiser.under(EDM(k)).denoise(at, 1.0)
        return max(0.0, k**2 * (1 - float(((at - answer) / k).square().mean())))

    return spread


@dataclass(frozen=True)
class MaximumLikelihood(Solver):
    """The step of greatest likelihood, see the module; one evaluation a step. Row `i` uses draw `i`.

    Arguments:
        spread: the belief's spread `v(k)`; None drops it, as published for practice, which makes it the ancestral sampler.
    """

    spread: Spread | None = None

    @property
    def name(self) -> str:
        return f"maximum-likelihood{'' if self.spread else '-without-spread'}"

    @property
    def deterministic(self) -> bool:
        return False

    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        table = StochasticTable(process, custom(times))
        for i in range(1, len(table.times)):
            h = table.half_log_snr[i] - table.half_log_snr[i - 1]
            split = Stochastic(torch.zeros(1, dtype=torch.float64), 0.0, log_kept=-h)
            old = table.node(i - 1, i - 1)
            _, nu, q = _posterior(table, i)
            fresh = math.sqrt(q + nu**2 * self._spread(math.exp(-old.half_log_snr)))
            table.noisy_step(split, i - 1, i - 1, i, [old], i, fresh)
        return table.program(self.name)

    def _spread(self, k: float) -> float:
        value = self.spread(k) if self.spread else 0.0
        if not 0 <= value < math.inf:
            raise ArgumentError("spread", f"{value:.6g} at the ratio {k:.6g}", "a finite mean squared error")
        return value


def _posterior(table: StochasticTable, i: int) -> tuple[float, float, float]:
    """`mu`, `nu` and `q` of step `i`."""
    h = table.half_log_snr[i] - table.half_log_snr[i - 1]
    lost = -math.expm1(-2 * h)
    return math.exp(-h) * table.sigma[i] / table.sigma[i - 1], table.alpha[i] * lost, table.sigma[i] ** 2 * lost


def published_parameters(process: VariancePreserving, t: float, s: float) -> tuple[float, float]:
    """The paper's `(k, w)` of the step from `t` to `s`: how far the score's and the state's factors are from Euler-Maruyama's.

    Raises:
        ArgumentError: `s` is not below `t`, or another process than the variance-preserving one of the paper.
    """
    if type(process) is not VariancePreserving:
        raise ArgumentError("process", type(process).__name__, "a variance-preserving process with linear betas")
    mu, nu, _ = _posterior(StochasticTable(process, custom((t, s))), 1)
    alpha, sigma = (float(v) for v in process.levels(t))
    rate = float(process.diffusion_squared(t)) * (t - s)
    score = nu * sigma**2 / (alpha * rate)
    return score - 1, (mu - 1) / rate + score / sigma**2 - 0.5


def path_log_likelihood(program: Program, spread: Spread, second_moment: float) -> float:
    """The expected log-likelihood of forward paths under a program's steps, in nats per number, summed over the steps.

    Arguments:
        program: scalar, each row made of the state, the answer and the draw of one step; the last at some noise, or with a spread.
        spread: the belief's spread `v(k)`, of the exact belief.
        second_moment: `E |x_0|^2 / d`.

    Raises:
        ArgumentError: a program of another form, or one with a step that draws no noise.
    """
    table, total = StochasticTable(program.process, program.times), 0.0
    for i, row in enumerate(program.rows[1:], start=1):
        parts = [dict(part) for _, part in row.parts()]
        if program.space is not None or any(set(part) - {j} for part, j in zip(parts, (i - 1, i - 1, i), strict=True)):
            raise ArgumentError("program", f"row {i} of {program.name}", "rows of one state, one answer and one draw")
        a, b, c = (float(part.get(j, torch.zeros(1))) for part, j in zip(parts, (i - 1, i - 1, i), strict=True))
        if c == 0:
            raise ArgumentError("program", f"row {i} of {program.name}, without noise", "steps that draw noise")
        mu, nu, q = _posterior(table, i)
        alpha, sigma, v = table.alpha[i - 1], table.sigma[i - 1], spread(math.exp(-table.half_log_snr[i - 1]))
        of_state = (mu - a) ** 2 * (alpha**2 * second_moment + sigma**2) + 2 * (mu - a) * (nu - b) * alpha * second_moment
        away = q + nu**2 * v + of_state + (nu - b) ** 2 * (second_moment - v)
        total -= 0.5 * (math.log(2 * math.pi * c**2) + away / c**2)
    return total
