r"""The exact strong error of a stochastic program in a Gaussian world, without a sample.

Two programs of one solver, one over times among the other's, are driven by one Brownian path when each draw of the coarse one is the
matching sum of the fine one's. Which sum that is, the tables tell: at a point mass every answer is the point, so that all that is left of
a program is `sum_j n_j eps_j`, the solver's own stochastic integral, and over a coarse step `i` with the fine steps `J`

    eps_i = sum_{j in J} n_j eps_j / N_i,        N_i^2 = sum_{j in J} n_j^2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.spectral.covariance import SpectralCovariance
from sfumato.sample.judges.gaussian_error import response
from sfumato.sample.program import Program


def strong_error(coarse: Program, fine: Program, law: Gaussian, start_variance: float) -> float:
    """The root mean square distance between the ends of two scalar programs from one start `N(0, start_variance)`, on one Brownian path.

    Arguments:
        coarse, fine: the same solver over nested times; the fine one stands for the exact solution.
        law: an isotropic law of mean 0, per direction of which the distance is given.

    Raises:
        ArgumentError: another law, times that are not nested, or programs whose noise is not the same stochastic integral.
    """
    if not set(coarse.times) <= set(fine.times):
        raise ArgumentError("coarse, fine", "times that are not among the fine ones", "nested times")
    if law.covariance.rank or bool((law.mean != 0).any()):
        raise ArgumentError("law", f"a law of rank {law.covariance.rank}", "an isotropic law of mean 0")
    point = Gaussian(law.mean, SpectralCovariance.isotropic(law.dim, 0.0))
    (a, big), (b, small) = [(response(p, law), response(p, point).noise[:, -1]) for p in (coarse, fine)]
    shares = torch.zeros(len(big), len(small), dtype=torch.float64)
    steps = torch.tensor([_step_of(coarse, fine.times[j]) for j in fine.draws])
    for row, draw in enumerate(coarse.draws):
        inside = steps == _step_of(coarse, coarse.times[draw])
        if not _same(float(big[row]), small[inside]):
            raise ArgumentError("coarse, fine", f"other noise in the step to {coarse.times[draw]:.6g}", "the same stochastic integral")
        shares[row, inside] = small[inside] / big[row]
    apart = (a.noise[:, -1] @ shares if len(big) else 0.0) - b.noise[:, -1]
    return math.sqrt(float((a.start[-1] - b.start[-1]) ** 2 * start_variance + (apart**2).sum()))


def _step_of(program: Program, t: float) -> float:
    """The end of the program's step that a time lies in."""
    return max(s for s in program.times if s <= t)


def _same(whole: float, parts: Tensor) -> bool:
    return whole != 0 and bool(torch.isclose(parts.norm(), torch.tensor(abs(whole), dtype=torch.float64), rtol=1e-6))
