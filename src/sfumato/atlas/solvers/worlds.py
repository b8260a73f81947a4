"""The small exact worlds that solver rows are measured on (S4 and S5 of the cards)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sfumato.exact import ExactDenoiser, Gaussian, GaussianMixture, SpectralCovariance
from sfumato.noise import VariancePreserving
from sfumato.sample import Program, Solver, response, run
from sfumato.seeds import noise

PROCESS = VariancePreserving()
FIRST, LAST = -4.0, 2.0
"""Half log-SNR at the start and the end of every run."""
STARTS = 64


@functools.cache
def g4() -> GaussianMixture:
    """G4: four isotropic components in the plane."""
    means = torch.tensor([[1.5, 0.0], [-1.0, 1.2], [-0.6, -1.4], [0.3, 0.2]], dtype=torch.float64)
    parts = [SpectralCovariance.isotropic(2, v) for v in (0.25, 0.4, 0.3, 0.2)]
    return GaussianMixture([0.3, 0.3, 0.25, 0.15], means, parts)


def l1() -> Gaussian:
    """L1: one dimension, variance 0.3."""
    return Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.3))


def denoiser() -> ExactDenoiser:
    """The exact belief of G4 under `PROCESS`."""
    return g4().denoiser(PROCESS)


def grid(steps: int) -> tuple[float, ...]:
    """Times of `steps` steps, uniform in half log-SNR from `FIRST` to `LAST`."""
    return tuple(PROCESS.time(torch.linspace(FIRST, LAST, steps + 1, dtype=torch.float64)).tolist())


@functools.cache
def starts(n: int = STARTS, seed: int = 0) -> Tensor:
    """`n` draws `(n, 2)` of G4's marginal at `FIRST`."""
    t = float(PROCESS.time(FIRST))
    return PROCESS.sample(g4().sample(n, seed), t, noise(seed, n, (2,), dtype=torch.float64).draw(2))


@functools.cache
def ends(n: int = STARTS, seed: int = 0) -> Tensor:
    """Where the flow takes `starts`, by DOP853 in half log-SNR at 1e-12: `d(x/alpha)/d lambda = (D - x/alpha)`."""
    from scipy.integrate import solve_ivp

    belief, x = denoiser(), starts(n, seed)

    def rate(lam: float, flat: object) -> object:
        t = float(PROCESS.time(lam))
        y = torch.as_tensor(flat).reshape(n, 2)
        return (belief.denoise(float(PROCESS.alpha(t)) * y, t) - y).flatten().numpy()

    alpha = [float(PROCESS.alpha(PROCESS.time(lam))) for lam in (FIRST, LAST)]
    y = solve_ivp(rate, (FIRST, LAST), (x / alpha[0]).flatten().numpy(), "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    return alpha[1] * torch.as_tensor(y).reshape(n, 2)


def error(solver: Solver | Callable[[int], Program], steps: int) -> float:
    """The largest error over `starts` and coordinates of a deterministic solver on `grid(steps)`."""
    program = solver.compile(PROCESS, grid(steps)) if isinstance(solver, Solver) else solver(steps)
    with torch.no_grad():
        return float((run(program, denoiser().denoise, starts()) - ends()).abs().max())


def order(solver: Solver | Callable[[int], Program], steps: Sequence[int] = (80, 160)) -> float:
    """The measured order of convergence, `log(error ratio) / log(step ratio)`."""
    coarse, fine = (error(solver, n) for n in steps)
    return math.log(coarse / fine) / math.log(steps[1] / steps[0])


def start_variance() -> float:
    """The variance of L1's marginal at `FIRST`."""
    alpha, sigma = PROCESS.levels(PROCESS.time(FIRST))
    return float(alpha**2) * l1().covariance.rest + float(sigma**2)


def weak_error(program: Program) -> float:
    """The relative error of the output's variance on L1, from the exact marginal; exact, without a sample."""
    out = response(program, l1())
    return float(out.variance(start_variance()) / out.target) - 1


def weak_order(solver: Solver, steps: Sequence[int] = (80, 160)) -> float:
    """The measured order of `weak_error` on `grid(steps)`."""
    coarse, fine = (abs(weak_error(solver.compile(PROCESS, grid(n)))) for n in steps)
    return math.log(coarse / fine) / math.log(steps[1] / steps[0])
