r"""The geometry of sampling in the units of clean data, `y = x / alpha` over `k = sigma / alpha`: a line, nearly, steered from afar.

There the probability flow is `dy/dk = (y - D) / k`, so every sample drags a second curve along, its *denoising trajectory* `D(y_k, k)`,
and an Euler step is a convex combination of both: `y' = (k'/k) y + (1 - k'/k) D`. For a data set, `D` is one step of mean shift with
bandwidth `k`, which never lowers the kernel density at that bandwidth, and so neither does the Euler step. The sample stays close to the
chord between its ends, bends alike whatever it becomes, and `D` is near the end long before `y` is. Sources: Chen et al. 2023 (arXiv
2305.19947), Chen et al. 2024 (arXiv 2405.11326).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Law
from sfumato.explain.explanation import Explanation
from sfumato.explain.sampling.trajectory import ASIDE, PathShape, answers, path_shape
from sfumato.noise import EDM
from sfumato.sample import Trajectory
from sfumato.seeds import noise


@dataclass(frozen=True)
class TrajectoryGeometry(Explanation):
    """How straight trajectories are and where they aim; lists run over the nodes, and are means over paths.

    Arguments:
        ratios: the noise-to-signal ratio at every node.
        deviations: the distance from the chord between a path's ends, relative to the chord's length.
        aimless: the same of paths with steps of the same lengths in random directions.
        alike: the least and the median correlation between two paths' curves of deviation.
        states, offsets: the shapes of the paths, and of their offsets from the chord.
        norms, answer_norms: `|y|` and `|D|`.
        shrinking: the share of steps in which `|y|` falls.
        distances, answer_distances: how far `y` and `D` are from the path's end; the second is the error of stopping there and
            returning `D`.
        angles: between the step that `D` asks for and the chord, in degrees.
        curvatures: `|dT/ds|` of the unit tangent `T`, at the inner nodes.
    """

    ratios: list[float]
    deviations: list[float]
    aimless: list[float]
    alike: tuple[float, float]
    states: PathShape
    offsets: PathShape
    norms: list[float]
    answer_norms: list[float]
    shrinking: float
    distances: list[float]
    answer_distances: list[float]
    angles: list[float]
    curvatures: list[float]

    @property
    def widest(self) -> int:
        """The node at which the paths are furthest from their chords."""
        return max(range(len(self.deviations)), key=self.deviations.__getitem__)

    @property
    def numbers(self) -> dict[str, float]:
        """The largest deviation and where, what the leading directions explain, how alike paths bend."""
        return {
            "largest_deviation": max(self.deviations),
            "at_ratio": self.ratios[self.widest],
            "aimless_deviation": max(self.aimless),
            "straight": self.states.centred[0],
            "offset_in_three": sum(self.offsets.uncentred[:3]),
            "alike_least": self.alike[0],
            "alike_median": self.alike[1],
            "shrinking": self.shrinking,
        }

    @property
    def meaning(self) -> str:
        """How straight the paths are, and how early the denoiser knows their ends."""
        half = next((i for i, d in enumerate(self.answer_distances) if d < 0.5 * self.answer_distances[0]), 0)
        return (
            f"Samples move in lines that are straight to {max(self.deviations):.2%} of their length and bend most at a noise-to-signal"
            f" ratio of {self.ratios[self.widest]:.2g}, all alike (median correlation {self.alike[1]:.2f}). The denoiser's answer has come"
            f" half of its way to the final sample at a ratio of {self.ratios[half]:.2g}: from there on previews are worth looking at."
        )

    def plot(self, ax: Any) -> None:
        """Distances from the chord along the path, beside those of paths that wander."""
        levels = [(k, i) for i, k in enumerate(self.ratios) if k > 0]
        for name, curve, colour, style in (("trajectories", self.deviations, "C0", "-"), ("random directions", self.aimless, "C2", ":")):
            ax.loglog([k for k, _ in levels], [max(curve[i], 1e-12) for _, i in levels], style, color=colour, label=name)
        ax.axhline(0.02, color="C1", linestyle="--", label="2 % of the chord")
        ax.set_xlabel("noise-to-signal ratio k")
        ax.set_ylabel("distance from the chord / its length")
        ax.set_ylim(1e-5, 2.0)
        ax.legend()


def trajectory_geometry(
    denoiser: Denoiser, trajectory: Trajectory, *, condition: Tensor | None = None, seed: int = 0
) -> TrajectoryGeometry:
    """Measure trajectories of the probability flow.

    Arguments:
        denoiser: the belief that steers them.
        trajectory: their states from noise to data, e.g. of `sfumato.sample.fits.reference`, of at least two paths.
        condition: as the denoiser takes it, one row per path.
        seed: of the random directions.

    Raises:
        ArgumentError: fewer than four nodes or two paths, or a first node without signal.
    """
    y, k = _clean(trajectory)
    said = torch.stack([d.flatten(1).to(torch.float64) for d in answers(denoiser, trajectory, condition)], 1)
    far, offset = _deviations(y)
    lost, _ = _deviations(_wandering(y, seed))
    end = y[:, -1:]
    return TrajectoryGeometry(
        k.tolist(),
        far.mean(0).tolist(),
        lost.mean(0).tolist(),
        _alike(far),
        path_shape(y),
        path_shape(offset),
        y.norm(dim=2).mean(0).tolist(),
        said.norm(dim=2).mean(0).tolist(),
        float((y.norm(dim=2).diff(dim=1) < 0).double().mean()),
        (y - end).norm(dim=2).mean(0).tolist(),
        (said - end).norm(dim=2).mean(0).tolist(),
        _angles(said - y, end - y[:, :1]),
        _curvatures(y),
    )


def wandering(trajectory: Trajectory, seed: int = 0) -> Trajectory:
    """Paths from the same starts, with steps as long in `x / alpha` but in random directions: what there is without a belief."""
    y, _ = _clean(trajectory)
    lost, shape = _wandering(y, seed), trajectory.states[0].shape
    alpha = trajectory.process.alpha(torch.tensor(trajectory.times, dtype=torch.float64))
    states = tuple((float(a) * lost[:, i]).reshape(shape).to(trajectory.states[0].dtype) for i, a in enumerate(alpha))
    return Trajectory(trajectory.process, trajectory.times, states)


def density_ascent(law: Law, trajectory: Trajectory) -> tuple[float, float]:
    """The shares of steps that do not lower `log p_k` at fixed `k`: mean-shift steps `y -> D`, and Euler steps to the next node.

    Arguments:
        law: whose noisy density climbs; for an `Empirical` set it is the kernel density with bandwidth `k`, for which both are 1.
    """
    y, k = _clean(trajectory)
    process, up, count = EDM(float(k[0])), [0, 0], 0
    shape = (-1, *law.event_shape)
    for i in range(len(k) - 1):
        t, here = float(k[i] / k[0]), y[:, i].reshape(shape)
        noisy, answer = law.through(process, t), law.posterior_mean(here, process, t)
        share = float(k[i + 1] / k[i])
        before = noisy.log_prob(here)
        rounding = 1e-12 * before.abs()
        for n, after in enumerate((answer, share * here + (1 - share) * answer)):
            up[n] += int((noisy.log_prob(after) >= before - rounding).sum())
        count += len(here)
    return up[0] / count, up[1] / count


def answer_gaps(denoiser: Denoiser, other: Denoiser, trajectory: Trajectory) -> list[float]:
    """The root mean square of `|D - D'|` at every node: where two beliefs, such as a network's and the training set's, part."""
    pairs = zip(answers(denoiser, trajectory), answers(other, trajectory), strict=True)
    return [float((a - b).flatten(1).to(torch.float64).square().sum(1).mean().sqrt()) for a, b in pairs]


def blended(z1: Tensor, z2: Tensor, weights: Float[Tensor, " n"]) -> Tensor:
    """`((1 - w) z1 + w z2) / sqrt((1 - w)^2 + w^2)`: blends of two draws of noise that are draws of noise themselves, `(n, *event)`.

    The plain blend's norm is too small by that root, 0.71 in the middle; `slerp` does the same on the arc.

    Raises:
        ShapeError: two shapes.
    """
    if z1.shape != z2.shape:
        raise ShapeError("z2", tuple(z2.shape), f"the shape of z1, {tuple(z1.shape)}")
    w = weights.to(z1).reshape(-1, *[1] * z1.ndim)
    return ((1 - w) * z1 + w * z2) / torch.sqrt((1 - w) ** 2 + w**2)


def _clean(trajectory: Trajectory) -> tuple[Float[Tensor, "batch nodes dim"], Float[Tensor, " nodes"]]:
    """States over alpha, float64, and the ratios."""
    t = torch.tensor(trajectory.times, dtype=torch.float64)
    alpha, k = trajectory.process.alpha(t), trajectory.process.ratio(t)
    if len(t) < 4 or len(trajectory.states[0]) < 2 or not bool(torch.isfinite(k).all()):
        given = f"{len(t)} nodes of {len(trajectory.states[0])} paths from a ratio of {float(k[0]):.3g}"
        raise ArgumentError("trajectory", given, "at least 4 nodes of at least 2 paths, from a node with signal")
    y = torch.stack([x.flatten(1).to(device="cpu", dtype=torch.float64) for x in trajectory.states], 1) / alpha[:, None]
    return y, k


def _deviations(y: Tensor) -> tuple[Tensor, Tensor]:
    """Distances from each path's chord, relative to its length, `(batch, nodes)`; and the offsets themselves."""
    chord = y[:, -1:] - y[:, :1]
    length = chord.norm(dim=2, keepdim=True)
    along = chord / length
    away = y - y[:, -1:]
    offset = away - (away * along).sum(2, keepdim=True) * along
    return offset.norm(dim=2) / length[..., 0], offset


def _wandering(y: Tensor, seed: int) -> Tensor:
    steps = y.diff(dim=1)
    draws = noise(seed, len(y), tuple(steps.shape[1:]), dtype=torch.float64).draw(ASIDE)
    turned = torch.nn.functional.normalize(draws, dim=2) * steps.norm(dim=2, keepdim=True)
    return torch.cat([y[:, :1], y[:, :1] + turned.cumsum(1)], 1)


def _alike(curves: Tensor) -> tuple[float, float]:
    matrix = torch.corrcoef(curves)
    pairs = matrix[torch.ones_like(matrix, dtype=torch.bool).triu(1)]
    return float(pairs.min()), float(pairs.median())


def _angles(asked: Tensor, chord: Tensor) -> list[float]:
    cosines = torch.nn.functional.cosine_similarity(asked, chord, dim=2).clamp(-1, 1)
    return torch.rad2deg(torch.arccos(cosines)).mean(0).tolist()


def _curvatures(y: Tensor) -> list[float]:
    steps = y.diff(dim=1)
    length = steps.norm(dim=2)
    turn = torch.nn.functional.normalize(steps, dim=2).diff(dim=1).norm(dim=2)
    rate = torch.where(turn > 0, turn / (0.5 * (length[:, 1:] + length[:, :-1])), 0.0)
    return torch.where(torch.isfinite(rate), rate, math.inf).mean(0).tolist()
