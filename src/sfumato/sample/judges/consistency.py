r"""What a table can be trusted with, read from the table alone, and how fast its error falls.

Push `X_j = alpha_j c + V_j` through a program. Data at the single point `c` have `D = c`, and data `N(0, l)` have `D = gamma X` with
`gamma = alpha l / (alpha^2 l + sigma^2)`, so the exact answer is known at every node:

    data     sum_j A_ij alpha_j + sum_j B_ij = alpha_i      the signal part: constants stay constants
    noise    |V_i| = sigma_i                                point masses: all that is left is noise of the right size
    law      |V_i| = sqrt(alpha_i^2 l + sigma_i^2)          a spectral program on its own law

where `V` holds one coefficient for the start and one for each draw. Affine-invariant solvers have no data defect; exponential integrators
of the data or noise prediction have neither defect; those of a Gaussian law have no law defect, and data and noise defects that fall with
their order (no data defect where the score is interpolated, `power = 1`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.laws.law import Law
from sfumato.metrics.rate import Rate, fit_rate
from sfumato.noise import ScalarProcess
from sfumato.sample.program import Program
from sfumato.sample.run import run


@dataclass(frozen=True)
class Consistency:
    """The largest absolute defects over nodes and modes, see the module; `law` is None for a scalar program."""

    data: float
    noise: float
    law: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """The three numbers by name."""
        return asdict(self)


def consistency(program: Program) -> Consistency:
    """The defects of a program."""
    a, b, _ = program.dense()
    alpha, _ = program.levels
    signal = torch.einsum("ijm,j->im", a, alpha) + b.sum(1)
    data = float((signal - alpha[:, None])[1:].abs().max())
    zero = torch.zeros(program.modes, dtype=torch.float64)
    law = None
    if program.space is not None:
        law = _noise_defect(program, program.space.covariance.spectrum.to("cpu"))
    return Consistency(data, _noise_defect(program, zero), law)


def _noise_defect(program: Program, variance: Tensor) -> float:
    """The largest `| |V_i| - sqrt(alpha_i^2 l + sigma_i^2) |` on a law of variance `l` in each mode.

    Without draws row by row, from exact `V_j` and with their sign; else from the start on, for `V_j` then depends on how it came about.
    """
    a, b, c = program.dense()
    alpha, sigma = (level[:, None] for level in program.levels)
    size = torch.sqrt(alpha**2 * variance + sigma**2)  # (nodes, modes)
    gain = torch.where(size == 0, 0.0, alpha * variance / torch.where(size == 0, 1.0, size) ** 2)
    mixing = a + b * gain
    if not program.draws:
        return float((torch.einsum("ijm,jm->im", mixing, size) - size)[1:].abs().max())
    parts = size.new_zeros(len(program.times), 1 + len(program.draws), program.modes)
    parts[0, 0] = size[0]
    for i in range(1, len(program.times)):
        parts[i] = torch.einsum("jm,jdm->dm", mixing[i, :i], parts[:i])
        parts[i, 1:] += c[i, list(program.draws)]
    return float((torch.linalg.vector_norm(parts, dim=1) - size).abs().max())


def probability_flow(denoiser: Denoiser, x: Tensor, t: float, s: float, tolerance: float = 1e-12) -> Tensor:
    """`x_s` of the probability flow through `x` `(batch, *event)` at time `t`, by adaptive steps of order 8 in float64.

    Integrates `d(x / sigma) / d lambda = exp(lambda) D` in half log-SNR (SciPy's DOP853).

    Raises:
        ArgumentError: an end at which the log-SNR is infinite, or steps that fail to reach `s`.
    """
    from scipy.integrate import solve_ivp

    process = denoiser.process
    first, last = (float(process.half_log_snr(u)) for u in (t, s))
    if not (math.isfinite(first) and math.isfinite(last)):
        raise ArgumentError("t, s", (t, s), "two times of finite log-SNR", "The flow is followed in log-SNR.")

    def slope(lam: float, scaled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        u = process.time(lam)
        state = torch.from_numpy(scaled).to(x.device).reshape(x.shape) * float(process.sigma(u))
        return math.exp(lam) * denoiser.denoise(state, u).reshape(-1).cpu().numpy()

    y = (x.to(torch.float64) / float(process.sigma(t))).reshape(-1).cpu().numpy()
    path = solve_ivp(slope, (first, last), y, method="DOP853", rtol=tolerance, atol=tolerance)
    if not path.success:
        raise ArgumentError("tolerance", tolerance, "one that the steps can meet", path.message)
    return (torch.from_numpy(path.y[:, -1]).reshape(x.shape) * float(process.sigma(s))).to(x)


def measured_order(
    compile: Callable[[int], Program],
    law: Law,
    steps: Sequence[int] = (80, 113, 160),
    *,
    n: int = 64,
    seed: int = 0,
) -> Rate:
    """The order `p` of a deterministic solver: the slope of the largest error over `n` paths against step size `1 / steps`.

    Paths start from the law's exact marginal and are compared with its probability flow: in closed form for a Gaussian, else by
    `probability_flow`.

    Arguments:
        compile: the program of a number of steps, e.g. `lambda n: solver.compile(process, uniform_log_snr(process, n))`.
        law: the law of the clean data, float64.
        steps: at least three numbers of steps.

    Raises:
        ArgumentError: a program that draws noise, or programs that do not share their ends.
    """
    programs = [compile(k) for k in steps]
    ends = {(p.times[0], p.times[-1], p.process) for p in programs}
    if len(ends) != 1 or any(p.draws for p in programs):
        raise ArgumentError("compile", [p.name for p in programs], "deterministic programs between the same two times")
    ((t, s, process),) = ends
    denoiser = law.denoiser(process)
    x, exact = _paths(law, process, t, s, n, seed)
    errors = [float((run(program, denoiser.denoise, x) - exact).abs().max()) for program in programs]
    return fit_rate([1 / k for k in steps], errors)


@lru_cache(maxsize=8)
def _paths(law: Law, process: ScalarProcess, t: float, s: float, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """The two ends of `n` paths of the flow; kept, since orders are measured of many solvers in one world."""
    x = law.through(process, t).sample(n, seed)
    return x, law.flow(process, t, s)(x) if isinstance(law, Gaussian) else probability_flow(law.denoiser(process), x, t, s)
