r"""The shape of sampling trajectories: how many dimensions they use, and how close they are to a rotation.

In variance-preserving coordinates, `z = x / sqrt(alpha^2 + sigma^2)`, with the angle `phi = atan(sigma / alpha)`, the probability flow of a
Gaussian law moves mode `k` (variance `l`, centred, from `c_k` at `phi = pi/2` to `sqrt(l) c_k` at `phi = 0`) as

    z_k = cos(phi) z_k(0) + sin(phi) z_k(pi/2) + r_k,        r_k = -2 a b / (sqrt(a^2 + b^2) + a + b) c_k,

with `a = cos(phi) sqrt(l)` and `b = sin(phi)`: a rotation in the plane of both ends, up to `|r_k| <= (2 - sqrt 2) max(a, b) |c_k|`, which
peaks where `a = b` and vanishes where `l = 0`. Between general ends the two coefficients are those of spherical interpolation. In the
coordinates of EDM the fall of the norm alone makes any path look one-dimensional; so shapes are quoted in `z`.
Source: Wang & Vastola 2023 (arXiv 2303.02490), sections 2-3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.data.dataset import check_finite
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian
from sfumato.explain.explanation import Explanation
from sfumato.noise import ScalarProcess
from sfumato.sample import Trajectory
from sfumato.seeds import noise

ASIDE = 2**32
"""The first draw that no sampler uses: what is drawn for a measurement does not meet the samples' own noise again under the same seed."""

_SHOWN = 10


@dataclass(frozen=True)
class PathShape:
    """The shape of a bundle of paths, averaged over paths.

    Arguments:
        centred, uncentred: the share of a path's energy in each of its leading principal components, about its mean and about the origin.
        outside: the share of its energy outside the plane of its two ends.
    """

    centred: list[float]
    uncentred: list[float]
    outside: float

    @property
    def planar(self) -> float:
        """The share in the first two centred components."""
        return sum(self.centred[:2])


@dataclass(frozen=True)
class TrajectoryReport(Explanation):
    """What trajectories look like in variance-preserving coordinates; lists over nodes run as the trajectories do.

    Arguments:
        ratios: the noise-to-signal ratio at every node.
        states, increments, denoised: the shapes of the states, of their steps, and of the denoiser's answers on the way, if there are any.
        gaussian: the shape of a Gaussian law's closed-form flow from the same starts, if a law was given.
        forward: the shape of the noising process's own paths from the same ends: what there is without a flow.
        residuals: `|z - rotation| / |z|`, root mean square over paths, at every node.
        angles, rotated: the mean angle from the start in degrees, and what a rotation between both ends makes of it.
    """

    ratios: list[float]
    states: PathShape
    increments: PathShape
    denoised: PathShape | None
    gaussian: PathShape | None
    forward: PathShape
    residuals: list[float]
    angles: list[float]
    rotated: list[float]

    @property
    def numbers(self) -> dict[str, float]:
        """Shares, the largest relative distance from a rotation, and the angle turned in degrees."""
        out = {
            "planar": self.states.planar,
            "outside_ends": self.states.outside,
            "planar_increments": self.increments.planar,
            "planar_forward": self.forward.planar,
            "largest_residual": max(self.residuals),
            "turned_degrees": self.angles[-1],
        }
        others = {"planar_denoised": self.denoised, "planar_gaussian": self.gaussian}
        return out | {name: shape.planar for name, shape in others.items() if shape is not None}

    @property
    def meaning(self) -> str:
        """How planar the trajectories are, against the noising paths."""
        return (
            f"Each trajectory stays in a plane but for {1 - self.states.planar:.2%} of its motion, turns by {self.angles[-1]:.0f} degrees"
            f" from noise to data, never further than {max(self.residuals):.0%} of its length from a plain rotation; noising paths that end"
            f" in the same samples leave their best plane with {1 - self.forward.planar:.0%} of their motion."
        )

    def plot(self, ax: Any) -> None:
        """Energy left outside the leading components, of the states, of the Gaussian flow and of the noising paths."""
        lines = [
            ("model", self.states, "C0", "o-"),
            ("Gaussian flow", self.gaussian, "C1", "s--"),
            ("noising paths", self.forward, "C2", "^:"),
        ]
        for label, shape, colour, style in lines:
            if shape is not None:
                left = [max(1 - sum(shape.centred[:i]), 1e-12) for i in range(1, len(shape.centred) + 1)]
                ax.semilogy(range(1, len(left) + 1), left, style, color=colour, label=label)
        ax.set_xlabel("principal components of a trajectory")
        ax.set_ylabel("share of its motion left out")
        ax.legend()


def rotation_remainder(alpha: Tensor, sigma: Tensor, variances: Tensor) -> Tensor:
    """`sqrt(a^2 + b^2) - a - b = -2 a b / (sqrt(a^2 + b^2) + a + b)`, `a = alpha sqrt(l)`, `b = sigma`: what a Gaussian mode's motion has
    beyond the rotation, per unit of its start, without cancellation; the three are broadcast.
    """
    a, b = alpha * variances.sqrt(), sigma
    total = torch.hypot(a, b) + a + b
    return torch.where(total > 0, -2 * a * b / total, 0.0)


def trajectory_report(
    xs: Trajectory | Sequence[Tensor],
    ts: Sequence[float] | None = None,
    process: ScalarProcess | None = None,
    *,
    denoiser: Denoiser | None = None,
    law: Gaussian | None = None,
    condition: Tensor | None = None,
    seed: int = 0,
) -> TrajectoryReport:
    """Measure trajectories of the probability flow, from noise to data.

    Arguments:
        xs: a `Trajectory`, or its states `(batch, *event)` at falling times.
        ts, process: the times of the states and the process they belong to; both only with a list of states.
        denoiser: whose answers at the states are measured too.
        law: a Gaussian whose flow is measured beside them.
        condition: as the denoiser takes it, one row per trajectory.
        seed: of the noising paths.

    Raises:
        ArgumentError: times or a process that are missing or given twice, fewer than three states, times that do not fall, or a first state
            without noise.
        ShapeError: states that differ in shape.
        DataError: states or answers that are not finite.
    """
    path = _trajectory(xs, ts, process)
    said = None if denoiser is None else torch.stack(answers(denoiser, path, condition), 1)
    check_finite(torch.stack(list(path.states)), "states by time")
    if said is not None:
        check_finite(said, "the denoiser's answers")
    alpha, sigma = _levels(path)
    angles, z = torch.atan2(sigma, alpha), _preserved(path, path.states)
    first, last = angles[0], angles[-1]
    swept = torch.sin(first - last)
    rotation = (torch.sin(first - angles) / swept)[:, None] * z[:, -1:] + (torch.sin(angles - last) / swept)[:, None] * z[:, :1]
    off = (z - rotation).square().sum(2) / z.square().sum(2)
    flow = None if law is None else [law.flow(path.process, path.times[0], t)(path.states[0]) for t in path.times]
    return TrajectoryReport(
        (sigma / alpha).tolist(),
        path_shape(z),
        path_shape(z.diff(dim=1)),
        None if said is None else path_shape(said.flatten(2)),
        None if flow is None else path_shape(_preserved(path, flow)),
        path_shape(_preserved(path, _forward(path, seed))),
        off.mean(0).sqrt().tolist(),
        _turned(z),
        _turned(rotation),
    )


def answers(denoiser: Denoiser, path: Trajectory, condition: Tensor | None = None) -> list[Tensor]:
    """The denoiser's answers at a trajectory's states, each `(batch, *event)`; where there is no noise the answer is the state."""
    asked, out = denoiser.under(path.process), []
    with torch.no_grad():
        for x, t in zip(path.states, path.times, strict=True):
            alpha, sigma = (float(c) for c in path.process.levels(t))
            out.append(asked.denoise(x, t, condition) if sigma > 0 else x / alpha)
    return out


def path_shape(z: Float[Tensor, "batch nodes dim"]) -> PathShape:
    """The shape of paths; what is at rest throughout counts as lying in its plane."""
    z = z.to(torch.float64)
    ends = torch.linalg.qr(torch.stack([z[:, 0], z[:, -1]], 2))[0]
    left = z - (z @ ends) @ ends.transpose(1, 2)
    total = z.square().sum((1, 2))
    outside = torch.where(total > 0, left.square().sum((1, 2)) / total, 0.0)
    return PathShape(_shares(z - z.mean(1, keepdim=True)), _shares(z), float(outside.mean()))


def _shares(z: Tensor) -> list[float]:
    energy = torch.linalg.svdvals(z).square()
    shares = energy / energy.sum(1, keepdim=True)
    return torch.where(torch.isfinite(shares), shares, 0.0).mean(0)[:_SHOWN].tolist()


def _trajectory(xs: Trajectory | Sequence[Tensor], ts: Sequence[float] | None, process: ScalarProcess | None) -> Trajectory:
    if isinstance(xs, Trajectory):
        if ts is not None or process is not None:
            raise ArgumentError("ts, process", "both beside a Trajectory", "None", "A Trajectory knows its times and its process.")
        path = xs
    elif ts is None or process is None:
        raise ArgumentError("ts, process", (ts, process), "the states' times and their process")
    else:
        path = Trajectory(process, tuple(float(t) for t in ts), tuple(xs))
    if len({x.shape for x in path.states}) > 1:
        raise ShapeError("xs", sorted({tuple(x.shape) for x in path.states}), "states of one shape")
    falling = all(t > s for t, s in zip(path.times[:-1], path.times[1:], strict=True))
    if len(path.states) < 3 or len(path.times) != len(path.states) or not falling:
        raise ArgumentError("xs, ts", f"{len(path.states)} states at {len(path.times)} times", "at least three states at falling times")
    return path


def _levels(path: Trajectory) -> tuple[Tensor, Tensor]:
    t = torch.tensor(path.times, dtype=torch.float64)
    return path.process.alpha(t), path.process.sigma(t)


def _preserved(path: Trajectory, states: Sequence[Tensor]) -> Float[Tensor, "batch nodes dim"]:
    """States scaled to `alpha^2 + sigma^2 = 1`, float64."""
    return torch.stack([x.flatten(1).to(torch.float64) for x in states], 1) / torch.hypot(*_levels(path))[:, None]


def _forward(path: Trajectory, seed: int) -> list[Tensor]:
    """Paths of the noising process from the trajectories' ends, at the same nodes."""
    start = path.end
    draws = noise(seed, len(start), tuple(start.shape[1:]), dtype=start.dtype, device=start.device)
    out = [start]
    for j in range(len(path.times) - 1, 0, -1):
        step = path.process.transition(path.times[j], path.times[j - 1])
        out.insert(0, float(step.phi) * out[0] + math.sqrt(float(step.covariance)) * draws.draw(ASIDE + j))
    return out


def _turned(z: Tensor) -> list[float]:
    """The mean angle in degrees between every node and the first."""
    cosines = torch.nn.functional.cosine_similarity(z, z[:, :1], dim=2).clamp(-1, 1)
    return torch.rad2deg(torch.arccos(cosines)).mean(0).tolist()
