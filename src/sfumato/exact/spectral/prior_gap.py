r"""What starting from the prior costs, for Gaussian data: `KL(law of x_1 || prior)`, exactly.

With `x_1 ~ N(m, V)`, `m = A mu + O y`, `V = A C A^T + S`, and the prior `N(O y, P)`,

    KL = (tr P^{-1} V + (A mu)^T P^{-1} (A mu) - log det P^{-1} V - n) / 2.

Differentiable in whatever the process was made of, so a process can be learned by its descent.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.noise import LinearSDE
from sfumato.noise.linear_family.linear_law import plus_shift


def prior_gap(law: Gaussian, process: LinearSDE, condition: Float[Tensor, " *event"] | None = None) -> Float[Tensor, ""]:
    """The divergence in nats, of the joint state (auxiliary channels included).

    Arguments:
        law: of the data.
        process: any member of the linear SDE family with at most 256 numbers a state.
        condition: what the process drifts to, one for all samples.

    Raises:
        ArgumentError: a singular end or prior; a condition is missing or superfluous.
    """
    end, prior = process.marginal(1.0), process.prior()
    y = None if condition is None else condition.to("cpu", torch.float64)[None]
    mean = law.mean.to("cpu", torch.float64).reshape(1, *law.event_shape)
    away = plus_shift(end.mean(mean, y), prior.shift, y, sign=-1.0).flatten()
    signal, start = end.phi.matrix(law.event_shape), prior.covariance.matrix(law.event_shape)
    spread = signal @ law.covariance.to(torch.float64, "cpu").dense() @ signal.mT + end.covariance.matrix(law.event_shape)
    roots, failed = zip(*(torch.linalg.cholesky_ex(c) for c in (spread, start)), strict=True)
    if any(int(f) for f in failed):
        raise ArgumentError("process", "a singular law at t = 1, or a singular prior", "laws with a density")
    white = torch.linalg.solve_triangular(roots[1], torch.cat([roots[0], away[:, None]], 1), upper=False)
    logs = roots[0].diagonal().log().sum() - roots[1].diagonal().log().sum()
    return white.square().sum() / 2 - logs - len(away) / 2
