r"""The path between data and noise whose flow has the least kinetic energy.

For `x_t = alpha x_0 + sigma eps`, data of mean 0 with `E|x_0|^2 = d`, and polar coordinates `alpha = r sin(theta)`, `sigma = r cos(theta)`,

    (1/d) int E |v|^2 dt = int r'^2 + lam(theta) r^2 theta'^2 dt,        lam = 1 - V / cos(theta)^2,

where `V` is the mean square error per number of the best denoiser at `k = 1/tan(theta)`. The data enter through `lam` alone: 1 where they
look like isolated points at this noise level, 0 where they look like `N(0, I)`. With `phi(theta) = int_0^theta sqrt(lam)` the metric is
flat, so the best path is a chord of constant speed, from `(r, phi) = (1, 0)` to `(1, Phi)`, and its energy is `2 - 2 cos(Phi)`. `lam = 1`
gives the straight lines of flow matching, energy 2. Source: Shaul et al. 2023 (arXiv 2306.06626); derived anew, conventions ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.laws.law import Law
from sfumato.exact.laws.mixture import GaussianMixture
from sfumato.noise import ScalarProcess, Trigonometric
from sfumato.noise.scalars.polar_table import PolarTable
from sfumato.seeds import noise

FLOOR = 1e-3
"""The least separation that the best path reckons with: where there is none, turning is free, and the path would jump."""


@dataclass(frozen=True, eq=False)
class Separation:
    """The data separation function.

    Arguments:
        angles: rising from 0 to pi/2, equally spaced, the ends included.
        values: `lam` there, in [0, 1].
    """

    angles: Float[Tensor, " n"]
    values: Float[Tensor, " values"]

    def __post_init__(self) -> None:
        if self.angles.shape != self.values.shape or len(self.angles) < 3:
            raise ShapeError("values", tuple(self.values.shape), "one value an angle, at least three")
        if not bool(((self.values >= 0) & (self.values <= 1)).all()):
            raise ArgumentError("values", (float(self.values.min()), float(self.values.max())), "separations in [0, 1]")

    def at(self, angle: Tensor) -> Tensor:
        """`lam` between the nodes, linearly."""
        return torch.from_numpy(np.interp(angle.numpy(), self.angles.numpy(), self.values.numpy()))

    def flat_angles(self, floor: float = 0.0) -> Float[Tensor, " n"]:
        """`phi` at the nodes, with `lam` held above `floor`."""
        root = self.values.clamp(min=floor).sqrt()
        return torch.cat([root.new_zeros(1), torch.cumulative_trapezoid(root, self.angles)])

    @property
    def optimal_energy(self) -> float:
        """`2 - 2 cos(Phi)`, the least energy of any path."""
        return 2 - 2 * math.cos(float(self.flat_angles()[-1]))

    def energy(self, process: ScalarProcess, nodes: int = 4000) -> float:
        """The kinetic energy per number of a process, by its polar coordinates at so many equal steps in time."""
        alpha, sigma = process.levels(torch.linspace(0, 1, nodes + 1, dtype=torch.float64))
        return self.polar_energy(torch.hypot(alpha, sigma), torch.atan2(alpha, sigma))

    def polar_energy(self, radii: Float[Tensor, " m"], angles: Float[Tensor, " m"]) -> float:
        """The same of a path given at equally spaced times."""
        steps = len(radii) - 1
        middle_r, middle_angle = (radii[1:] + radii[:-1]) / 2, (angles[1:] + angles[:-1]) / 2
        return float((radii.diff() ** 2 + self.at(middle_angle) * middle_r**2 * angles.diff() ** 2).sum() * steps)

    def optimal_path(self, nodes: int = 1024) -> PolarTable:
        """The path of least energy, as a process; with `lam` held above `FLOOR`, which costs a little energy."""
        phi, share = self.flat_angles(FLOOR), torch.linspace(1, 0, nodes + 1, dtype=torch.float64)
        far = float(phi[-1])
        x, y = (1 - share) + share * math.cos(far), share * math.sin(far)
        angles = np.interp(torch.atan2(y, x).numpy(), phi.numpy(), self.angles.numpy())
        angles[0], angles[-1] = math.pi / 2, 0.0
        return PolarTable(tuple(torch.hypot(x, y).tolist()), tuple(angles.tolist()))


def separation_of(mean_square_error: Callable[[float], float], nodes: int = 257) -> Separation:
    """From `V` at the angle `theta`, e.g. a trained denoiser's loss; the ends are the limits of their neighbours.

    At `theta = 0` data are invisible, `V = 1` and `lam = 0`.
    """
    angles = torch.linspace(0, math.pi / 2, nodes, dtype=torch.float64)
    inner = [1 - mean_square_error(float(a)) / math.cos(float(a)) ** 2 for a in angles[1:-1]]
    return Separation(angles, torch.tensor([0.0, *inner, inner[-1]], dtype=torch.float64).clamp(0, 1))


def data_separation(law: Law, nodes: int = 257, *, samples: int = 512, seed: int = 0) -> Separation:
    """The separation of a law of mean 0 and mean square 1 per number.

    A mixture in one dimension is integrated by Gauss-Hermite quadrature around each component; otherwise `V` is the mean over samples, the
    same for all angles.

    Raises:
        ArgumentError: a one-dimensional mixture of another scale, for which the ends of the path would be wrong.
    """
    process = Trigonometric()
    if isinstance(law, GaussianMixture) and law.dim == 1:
        second = float(law.gaussian().covariance.trace() + law.mean.square().sum())
        if abs(second - 1) > 1e-6 or abs(float(law.mean)) > 1e-6:
            raise ArgumentError("law", f"mean {float(law.mean):.3g}, mean square {second:.3g}", "mean 0 and mean square 1")
        mixture = law
        return separation_of(lambda angle: _by_quadrature(mixture, process, 1 - angle * 2 / math.pi), nodes)
    clean = law.sample(samples, seed)
    eps = noise(seed, samples, law.event_shape, dtype=law.dtype).draw(2)

    def error(angle: float) -> float:
        t = 1 - angle * 2 / math.pi
        return float((clean - law.posterior_mean(process.sample(clean, t, eps), process, t)).square().mean())

    return separation_of(error, nodes)


def _by_quadrature(law: GaussianMixture, process: ScalarProcess, t: float, nodes: int = 61) -> float:
    points, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(nodes))
    alpha, sigma = process.levels(t)
    spread = torch.sqrt(alpha**2 * torch.stack([c.trace() for c in law.covariances]) + sigma**2)
    x = alpha * law.means + spread[:, None] * points
    variance = law.posterior_covariance(x.reshape(-1, 1), process, t).reshape(x.shape)
    return float(law.weights @ (variance @ weights)) / float(weights.sum())
