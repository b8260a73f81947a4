"""Draws by one generator: of a law, and of its posteriors.

`Law.sample` keys every sample by itself, which costs more than the draw where a regression or a simulation needs hundreds of thousands of
small ones; here one stream serves them all, so a draw depends on the generator's state alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError
from sfumato.exact.laws.empirical import Empirical
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.exact.laws.law import Law
from sfumato.exact.laws.mixture import GaussianMixture
from sfumato.exact.laws.softmax import SCORES
from sfumato.exact.learning.proxy import levels, log_shares
from sfumato.noise import ScalarProcess, Time


def law_sample(law: Law, n: int, generator: torch.Generator) -> Float[Tensor, "n *event"]:
    """`n` independent draws of the law, in its dtype; of points by one stream, of other laws keyed by one integer of it."""
    if not isinstance(law, Empirical) or law.std:
        return law.sample(n, int(torch.randint(2**63 - 1, (), generator=generator)))
    level = torch.rand(n, generator=generator, dtype=torch.float64, device=law.device)
    edges = torch.cumsum(law.weights, 0)
    chosen = torch.searchsorted(edges, level * edges[-1], right=True).clamp(max=len(law) - 1)
    return (law.scale * law.cloud.points[chosen]).reshape(n, *law.event_shape)


def posterior_sample(law: Law, x: Float[Tensor, "batch *event"], process: ScalarProcess, t: Time, generator: torch.Generator) -> Tensor:
    """One draw of `x_0` given `x_t = x` per row of `x`, `(batch, *event)`.

    Arguments:
        law: points, a Gaussian or a mixture.
        generator: of the draws, on the device of `x`.

    Raises:
        ArgumentError: another law; no signal or no noise is left at `t`.
    """
    alpha, sigma = levels(process, t)
    flat = x.detach().reshape(len(x), -1).to(torch.float64)
    if isinstance(law, Empirical) and not law.std:
        pieces = torch.split(flat, max(1, SCORES // len(law)))
        chosen = torch.cat([_pick(torch.softmax(log_shares(law, some, alpha, sigma**2), 1), generator) for some in pieces])
        return (law.scale * law.cloud.points[chosen]).to(x.dtype).reshape(x.shape)
    mixture = GaussianMixture(None, law.mean[None], [law.covariance], law.event_shape) if isinstance(law, Gaussian) else law
    if not isinstance(mixture, GaussianMixture):
        raise ArgumentError("law", type(law).__name__, "points, a Gaussian or a mixture of Gaussians")
    noisy = [c.map(lambda v: alpha**2 * v + sigma**2) for c in mixture.covariances]
    seen = GaussianMixture(mixture.weights, alpha * mixture.means, noisy, law.event_shape)
    chosen = _pick(seen.responsibilities(x), generator)
    out = torch.randn(flat.shape, generator=generator, dtype=law.dtype, device=x.device)
    for k, (mean, covariance) in enumerate(zip(mixture.means, mixture.covariances, strict=True)):
        rows = chosen == k
        spread = covariance.map(lambda v: v * sigma**2 / (alpha**2 * v + sigma**2))
        centre = Gaussian(mean, covariance).posterior_mean(flat[rows].to(law.dtype), process, t)
        out[rows] = centre + spread.sqrt_matmul(out[rows])
    return out.to(x.dtype).reshape(x.shape)


def _pick(shares: Float[Tensor, "batch K"], generator: torch.Generator) -> Tensor:
    """One index per row of probabilities."""
    edges = torch.cumsum(shares.to(torch.float64), 1)
    level = torch.rand(len(shares), 1, generator=generator, dtype=torch.float64, device=shares.device)
    return torch.searchsorted(edges, level * edges[:, -1:], right=True)[:, 0].clamp(max=shares.shape[1] - 1)
