r"""The manifold that a model has learned: how many dimensions it has at each noise level, and slices through it.

Around a noisy point an eigenvalue `g` of `alpha dD/dx` above 1/2 marks a direction in which the data vary more than the noise (see
`sfumato.denoise.jacobian`); their number is the local dimension at that noise level, and `sum g`, the trace, the number of directions that
are kept, softly counted. A Gaussian of variances `l` has `#{l > k^2}` and `sum l / (l + k^2)`.

Sampling by the probability flow is a smooth map from noise to data. Its slice by the circle `x_1 = cos(th) z_1 + sin(th) z_2`, all of whose
points have the norm that noise has, is a closed curve of samples; for a Gaussian law an ellipse. The straight line between two noises
leaves that norm, by `1/sqrt 2` in its middle, and its samples lose variance.
Source: Wang & Vastola 2023 (arXiv 2303.02490), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoise.jacobian import local_covariance
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian
from sfumato.explain.explanation import Explanation
from sfumato.explain.sampling.trajectory import ASIDE
from sfumato.sample import Program, Sampler
from sfumato.seeds import noise

_MOST = 64


@dataclass(frozen=True)
class ManifoldDimension(Explanation):
    """Local dimensions by noise level, over an ensemble of noisy data; lists over ratios, rising.

    Arguments:
        ratios: the noise-to-signal ratios.
        dimensions, spreads: mean and standard deviation over points of the number of gains above 1/2.
        kept: the mean sum of the gains, over the `searched` leading ones.
        gaussian, gaussian_kept: both for the Gaussian law.
        searched: how many leading directions were looked for; no dimension can be counted higher.
        dim: the dimension of the space.
        unsettled: how many points' eigenpairs did not converge.
        asymmetry: the largest mean asymmetry of the Jacobians, 0 for a true posterior mean.
    """

    ratios: list[float]
    dimensions: list[float]
    spreads: list[float]
    kept: list[float]
    gaussian: list[float]
    gaussian_kept: list[float]
    searched: int
    dim: int
    unsettled: int
    asymmetry: float

    @property
    def numbers(self) -> dict[str, float]:
        """Dimensions at the least and the most noise, the Gaussian's, and how far the Jacobians are from symmetric."""
        return {
            "dimension_at_least_noise": self.dimensions[0],
            "gaussian_at_least_noise": self.gaussian[0],
            "dimension_at_most_noise": self.dimensions[-1],
            "gaussian_at_most_noise": self.gaussian[-1],
            "asymmetry": self.asymmetry,
            "unsettled": float(self.unsettled),
        }

    @property
    def meaning(self) -> str:
        """The dimension at both ends."""
        bound = " or more" if self.searched < self.dim and self.dimensions[0] > 0.9 * self.searched else ""
        return (
            f"At noise-to-signal ratio {self.ratios[0]:.3g} the data vary around a point in {self.dimensions[0]:.1f}{bound} of {self.dim}"
            f" directions by more than the noise (a Gaussian of the same covariance: {self.gaussian[0]:.0f}), at {self.ratios[-1]:.3g} in"
            f" {self.dimensions[-1]:.1f} ({self.gaussian[-1]:.0f})."
        )

    def plot(self, ax: Any) -> None:
        """Local dimension over the ratio, the Gaussian's, and that of data without structure: all directions or none."""
        ax.errorbar(self.ratios, self.dimensions, self.spreads, fmt="o-", color="C0", label="model, around noisy data")
        ax.plot(self.ratios, self.gaussian, "s--", color="C1", label="Gaussian")
        ax.axhline(self.searched, linestyle=":", color="C2", label="all directions" if self.searched == self.dim else "directions searched")
        ax.set_xscale("log")
        ax.set_xlabel("noise-to-signal ratio")
        ax.set_ylabel("directions that vary more than the noise")
        ax.legend()


def manifold_dimension(
    denoiser: Denoiser,
    x0: Float[Tensor, "n *event"],
    ratios: Sequence[float],
    law: Gaussian,
    *,
    k: int | None = None,
    condition: Tensor | None = None,
    seed: int = 0,
) -> ManifoldDimension:
    """Local dimensions of a model's manifold around `x0` plus noise.

    Arguments:
        denoiser: the model.
        x0: clean data; the same noise is used at every level.
        ratios: noise-to-signal ratios, in any order.
        law: the Gaussian to compare with, e.g. `fit_gaussian` of the data.
        k: how many leading directions to look for; by default all, but at most 64.
        condition: as the denoiser takes it, one row per point.
        seed: of the noise.

    Raises:
        ArgumentError: no ratios, or one that the process does not have, or not strictly between both ends.
    """
    if not ratios:
        raise ArgumentError("ratios", list(ratios), "at least one noise-to-signal ratio")
    dim, levels = x0[0].numel(), sorted(float(r) for r in ratios)
    count = min(dim, _MOST) if k is None else k
    eps = noise(seed, len(x0), tuple(x0.shape[1:]), dtype=x0.dtype, device=x0.device).draw(ASIDE)
    rows, unsettled, asymmetry = [], 0, 0.0
    for ratio in levels:
        t = float(denoiser.process.time_of_ratio(ratio))
        local = local_covariance(denoiser, denoiser.process.sample(x0, t, eps), t, count, condition=condition, seed=seed)
        found = (local.gains > 0.5).sum(1).to(torch.float64)
        unsettled += int((~local.converged).sum())
        asymmetry = max(asymmetry, float(local.asymmetry.mean()))
        total = law.covariance.basis.total
        spectrum = law.covariance.spectrum
        above, soft = total((spectrum > ratio**2).to(torch.float64)), total(spectrum / (spectrum + ratio**2))
        rows.append((float(found.mean()), float(found.std(correction=0)), float(local.gains.sum(1).mean()), float(above), float(soft)))
    found_list, spreads, kept, gaussian, gaussian_kept = (list(column) for column in zip(*rows, strict=True))
    return ManifoldDimension(levels, found_list, spreads, kept, gaussian, gaussian_kept, count, dim, unsettled, asymmetry)


@dataclass(frozen=True)
class ManifoldScan(Explanation):
    """A closed curve of samples, from a circle of starts.

    Arguments:
        angles: of the starts, in degrees, all round.
        samples: `(angles, *event)`.
        steps: the distance from each sample to the next one round.
        gaussian_steps: the same on the Gaussian's ellipse.
        planar: the share of the curve's motion in its two leading principal components; 1 for a Gaussian.
        spread: the root mean square distance of the samples from their mean, in units of the Gaussian's standard deviation.
        chord_spread: the same for starts on the two diameters' chords in place of the circle.
    """

    angles: list[float]
    samples: Float[Tensor, "angles *event"]
    steps: list[float]
    gaussian_steps: list[float]
    planar: float
    spread: float
    chord_spread: float

    @property
    def numbers(self) -> dict[str, float]:
        """Length and planarity of the curve, its largest step over the mean one, and spreads on the circle and on chords."""
        mean = sum(self.steps) / len(self.steps)
        return {
            "length": sum(self.steps),
            "gaussian_length": sum(self.gaussian_steps),
            "largest_step_over_mean": max(self.steps) / mean if mean else math.nan,
            "planar": self.planar,
            "spread": self.spread,
            "chord_spread": self.chord_spread,
        }

    @property
    def meaning(self) -> str:
        """How even the curve is."""
        n = self.numbers
        return (
            f"Once round the circle of noises the samples travel {n['length']:.1f} (a Gaussian's {n['gaussian_length']:.1f}); their largest"
            f" step is {n['largest_step_over_mean']:.1f} times the mean one, where one kind of sample turns into another, and"
            f" {self.planar:.0%} of the curve lies in a plane."
        )

    def plot(self, ax: Any) -> None:
        """The samples' steps over the angle, and the Gaussian's."""
        ax.plot(self.angles, self.steps, "o-", color="C0", label="model")
        ax.plot(self.angles, self.gaussian_steps, "s--", color="C1", label="Gaussian flow")
        ax.set_xlabel("angle of the starting noise, degrees")
        ax.set_ylabel("distance to the next sample")
        ax.legend()


def slerp(z1: Tensor, z2: Tensor, weights: Float[Tensor, " n"]) -> Tensor:
    """`(sin((1 - w) th) z1 + sin(w th) z2) / sin th` with the angle `th` between both, `(n, *event)`: the arc from `z1` to `z2`.

    Raises:
        ShapeError: two shapes.
        ArgumentError: points in one line with the origin, between which there is no arc.
    """
    if z1.shape != z2.shape:
        raise ShapeError("z2", tuple(z2.shape), f"the shape of z1, {tuple(z1.shape)}")
    a, b = z1.to(torch.float64), z2.to(torch.float64)
    angle = torch.arccos(((a * b).sum() / (a.norm() * b.norm())).clamp(-1, 1))
    if not float(torch.sin(angle)) > 1e-6:
        raise ArgumentError("z1, z2", "points in one line with the origin", "two directions")
    w = weights.to(a).reshape(-1, *[1] * z1.ndim)
    return ((torch.sin((1 - w) * angle) * a + torch.sin(w * angle) * b) / torch.sin(angle)).to(z1.dtype)


def manifold_scan(
    denoiser: Denoiser,
    program: Program,
    law: Gaussian,
    z1: Float[Tensor, "*event"],
    z2: Float[Tensor, "*event"],
    *,
    angles: int = 24,
    condition: Tensor | None = None,
) -> ManifoldScan:
    """Walk a circle of starts and report the curve of samples.

    Arguments:
        denoiser: the model.
        program: a deterministic sampler that starts from the prior.
        law: the Gaussian to compare with.
        z1, z2: two standard normal noises; they are made orthogonal and of the norm `sqrt(dim)` before use.
        angles: how many starts, a multiple of 4.
        condition: one row per angle, as the denoiser takes it.

    Raises:
        ArgumentError: angles that are not a positive multiple of 4, noises in one line, a stochastic program.
    """
    if angles < 4 or angles % 4:
        raise ArgumentError("angles", angles, "a positive multiple of 4")
    if program.draws:
        raise ArgumentError("program", program.name, "a deterministic program")
    event, process = tuple(z1.shape), program.process
    turn = torch.arange(angles, dtype=torch.float64) * 2 * math.pi / angles
    starts = _ring(z1, z2, float(process.sigma(program.times[0])), turn)
    sampler = Sampler(denoiser, program, event, z1.dtype, z1.device)
    given = None if condition is None else torch.cat([condition, condition])
    ends = sampler.sample(2 * angles, condition=given, start=starts, chunk=2 * angles)
    flow = law.flow(process, program.times[0], program.times[-1])(starts[:angles])
    centred = ends[:angles].flatten(1).to(torch.float64)
    energy = torch.linalg.svdvals(centred - centred.mean(0)).square()
    total = float(energy.sum())
    unit = math.sqrt(float(law.covariance.trace()))
    return ManifoldScan(
        torch.rad2deg(turn).tolist(),
        ends[:angles],
        _steps(ends[:angles]),
        _steps(flow),
        float(energy[:2].sum()) / total if total else 1.0,
        _spread(ends[:angles]) / unit,
        _spread(ends[angles:]) / unit,
    )


def _ring(z1: Tensor, z2: Tensor, sigma: float, turn: Tensor) -> Tensor:
    """Starts on the circle of radius `sigma sqrt(dim)` in the plane of both noises, and then those on its chords, `(2 angles, *event)`."""
    plane = torch.linalg.qr(torch.stack([z1.flatten(), z2.flatten()], 1).to(torch.float64))
    if not float(plane.R.diagonal().abs().min()) > 1e-6 * float(plane.R.abs().max()):
        raise ArgumentError("z1, z2", "noises in one line", "two directions")
    axes = sigma * math.sqrt(z1.numel()) * plane.Q * plane.R.diagonal().sign()
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    # chords join the quarters' ends in straight lines, as linear interpolation would
    chords = circle / circle.abs().sum(1, keepdim=True)
    return (torch.cat([circle, chords]).to(axes.device) @ axes.T).reshape(2 * len(turn), *z1.shape).to(z1.dtype)


def _steps(x: Tensor) -> list[float]:
    return (x.roll(-1, 0) - x).flatten(1).to(torch.float64).norm(dim=1).tolist()


def _spread(x: Tensor) -> float:
    return float((x - x.mean(0)).flatten(1).to(torch.float64).norm(dim=1).square().mean().sqrt())
