"""003: sampling trajectories are nearly straight, and steered by an annealed mean shift."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control, within
from sfumato.data import digits
from sfumato.exact import Empirical, Gaussian, SpectralCovariance
from sfumato.explain import slerp
from sfumato.explain.sampling.geometry import TrajectoryGeometry, blended, density_ascent, trajectory_geometry, wandering
from sfumato.noise import EDM
from sfumato.sample import Trajectory, ddim, karras, reference, run
from sfumato.seeds import noise

F64 = torch.float64
PROCESS = EDM(40.0)
TIMES = karras(PROCESS, 61, ratio_min=0.02)[:-1]


@functools.cache
def points() -> Tensor:
    """All digits, scaled to [0, 1] and centred."""
    data = digits()
    images = torch.cat([data.train, data.test]).to(F64)
    images = (images - images.min()) / (images.max() - images.min())
    return images - images.mean(0)


def start(n: int, seed: int = 0) -> Tensor:
    """Pure noise at the first node."""
    return PROCESS.prior_sample(noise(seed, n, (1, 8, 8), dtype=F64).draw(0))


def walk(n: int) -> Trajectory:
    """Trajectories of the training set's own belief, over EDM's 61 nodes from 40 to 0.02."""
    flat = points().flatten(1)
    law = Gaussian(flat.mean(0), SpectralCovariance.from_dense(torch.cov(flat.T)), (1, 8, 8))
    return reference(Empirical(points()).denoiser(PROCESS).denoise, start(n), PROCESS, law, TIMES)


@functools.cache
def _world() -> tuple[Trajectory, TrajectoryGeometry, TrajectoryGeometry]:
    path, belief = walk(48), Empirical(points()).denoiser(PROCESS)
    return path, trajectory_geometry(belief, path), trajectory_geometry(belief, wandering(path))


def _between() -> Iterator[Check]:
    """Check 3, two parts: an Euler step is a convex combination; latents between two latents."""
    law, (t, s) = Empirical(points()), TIMES[30:32]
    x = points()[:16] + PROCESS.sigma_max * t * noise(3, 16, (1, 8, 8), dtype=F64).draw(1)
    convex = (s / t) * x + (1 - s / t) * law.posterior_mean(x, PROCESS, t)
    stepped = run(ddim().compile(PROCESS, (t, s)), law.denoiser(PROCESS).denoise, x)
    yield at_most("an Euler step against the convex combination", float((stepped - convex).abs().max()), 1e-14)
    pairs, half = torch.split(start(64, 7) / PROCESS.sigma_max, 2), torch.tensor([0.5], dtype=F64)
    size = math.sqrt(sum(float(z.square().sum()) for z in pairs) / 64)

    def ratio(blend: Callable[[Tensor, Tensor], Tensor]) -> float:
        return sum(float(blend(*pair).norm()) for pair in pairs) / len(pairs) / size

    yield within("norm of the arc's middle", ratio(lambda a, b: slerp(a, b, half)), 0.95, 1.05)
    yield within("norm of the rescaled blend", ratio(lambda a, b: blended(a, b, half)), 0.95, 1.05)
    yield control(within("norm of the plain blend (card: 0.713)", ratio(lambda a, b: (a + b) / 2), 0.95, 1.05))


def _straight() -> Iterator[Check]:
    """Check 1: a chord, and an offset that lives in three dimensions."""
    _, found, lost = _world()
    numbers = found.numbers
    yield at_most("largest distance from the chord over its length (card: 0.0054)", numbers["largest_deviation"], 0.02)
    yield close("ratio at which it is largest", numbers["at_ratio"], 2.7, relative=0.1)
    yield at_least("share of a trajectory in one direction (card: 0.99995)", numbers["straight"], 0.9999)
    yield close("share of the offset in one direction", found.offsets.uncentred[0], 0.983, absolute=0.005)
    yield at_least("share of the offset in three directions", numbers["offset_in_three"], 0.995)
    yield control(at_most("random directions: largest distance from the chord", lost.numbers["largest_deviation"], 0.02))
    yield control(at_least("random directions: share of the offset in three directions", lost.numbers["offset_in_three"], 0.995))


def _closer(found: TrajectoryGeometry) -> float:
    """How many times closer to the end the answer is than the state, at least, for ratios in [0.2, 10]."""
    zipped = zip(found.ratios, found.distances, found.answer_distances, strict=True)
    return min(a / b for k, a, b in zipped if 0.2 <= k <= 10)


def _early() -> Iterator[Check]:
    """Check 2: the denoising trajectory arrives first; stopping at a node and returning the answer is a jump."""
    path, found, lost = _world()
    for k, state, answer in ((2.0, 14.4, 1.69), (0.5, 3.80, 0.65)):
        i = min(range(len(TIMES)), key=lambda i: abs(math.log(found.ratios[i] / k)))
        yield close(f"distance of the state to the end at k = {k:g}", found.distances[i], state, relative=0.05)
        yield close(f"distance of the answer to the end at k = {k:g}", found.answer_distances[i], answer, relative=0.05)
    yield at_least("the answer is closer to the end than the state, times, over k in [0.2, 10]", _closer(found), 4.0)
    yield control(at_least("random directions: the answer is closer, times", _closer(lost), 4.0))
    node = 45
    jump = run(ddim().compile(PROCESS, (TIMES[node], 0.0)), Empirical(points()).denoiser(PROCESS).denoise, path.states[node])
    off = abs(float((jump - path.end).flatten(1).norm(dim=1).mean()) - found.answer_distances[node])
    yield at_most(f"a jump from k = {found.ratios[node]:.2g} lands at the distance the report says", off, 1e-12)


def _mean_shift() -> Iterator[Check]:
    """Check 3: ascent of the kernel density, shrinking norms; limits."""
    path, found, _ = _world()
    law = Empirical(points())
    shift, euler = density_ascent(law, path)
    yield at_least("mean-shift steps that do not lower the kernel density", shift, 1.0)
    yield at_least("Euler steps that do not lower it", euler, 1.0)
    down, _ = density_ascent(law, wandering(path))
    yield at_least("the same mean-shift steps from wandering states", down, 1.0)
    yield at_least("steps in which |x| falls (card: 0.991)", found.shrinking, 0.97)
    norm = found.norms[0] / (PROCESS.sigma_max * math.sqrt(64))
    yield within("|x_T| over its noise level times sqrt(d)", norm, 0.95, 1.05)
    nearest = torch.cdist(path.end.flatten(1), points().flatten(1)).min(1).values
    yield at_most("trajectories end on data points: largest distance, in k sqrt(d)", float(nearest.max()) / (0.02 * 8), 1.5)
    yield at_most("largest noise: the answer's distance from the data's mean", found.answer_norms[0], 0.5)


@functools.cache
def _drawn() -> TrajectoryGeometry:
    return trajectory_geometry(Empirical(points()).denoiser(PROCESS), walk(4))


def figure(ax: Any) -> None:
    """How far trajectories to the digits leave the straight line between their ends, in lengths of that line: never by more than a
    hundredth, where paths whose steps have random directions wander far.
    """
    _drawn().plot(ax)


ROW = Row(
    id="003",
    slug="geometric-perspective",
    title="A Geometric Perspective on Diffusion Models",
    authors="Defang Chen, Zhenyu Zhou, Jian-Ping Mei, Chunhua Shen, Chun Chen, Can Wang",
    year=2023,
    arxiv="2305.19947",
    claim=(
        "With the training set's own belief on the digits, trajectories leave their chords by half a percent of their length, the "
        "denoiser's answers are over five times nearer to the end at every intermediate noise level, and every Euler step climbs the "
        "kernel density."
    ),
    reproduced="yes",
    checks=(_between, _straight, _early, _mean_shift),
    figure=figure,
)
