"""125: the path between data and noise of least kinetic energy follows from one function of the noise level."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control
from sfumato.exact import Empirical, GaussianMixture, Separation, SpectralCovariance, data_separation
from sfumato.noise import FlowMatching, ScalarProcess, Trigonometric
from sfumato.seeds import noise


@functools.cache
def _two(std: float) -> GaussianMixture:
    """Two components of that deviation on a line, mean square 1."""
    mean = math.sqrt(1 - std**2)
    means = torch.tensor([[-mean], [mean]], dtype=torch.float64)
    return GaussianMixture(None, means, [SpectralCovariance.isotropic(1, std**2)] * 2)


@functools.cache
def _separation(std: float) -> Separation:
    return data_separation(_two(std), 129)


def formula() -> Iterator[Check]:
    """Two points on a line: the energy of straight paths by quadrature and by sampling the velocity."""
    separation, belief = _separation(0.0), _two(0.0).denoiser(FlowMatching())
    energy = separation.energy(FlowMatching())
    yield close("energy of straight paths, quadrature", energy, 0.9824, absolute=1e-3)
    n = 20_000
    t = ((torch.arange(n, dtype=torch.float64) + 0.5) / n)[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    x = FlowMatching().sample(_two(0.0).sample(n, 0), t, noise(1, n, (1,), dtype=torch.float64).draw(2))
    squares = belief.velocity(x, t).square()
    error = float(squares.std()) / math.sqrt(n)
    yield at_most("quadrature less the sampled mean, standard errors", abs(float(squares.mean()) - energy) / error, 3)
    conditional = 2.0  # E|eps - x_0|^2: the energy of the paths themselves, not of their mean
    yield control(at_most("the energy of the conditional paths instead", abs(conditional - energy) / error, 3))


def _perturbed(generator: torch.Generator, separation: Separation) -> float:
    """The energy of the best path, randomly bent."""
    path, t = separation.optimal_path(), torch.linspace(0, 1, 1025, dtype=torch.float64)
    bumps = torch.stack([torch.sin(math.pi * k * t) / k for k in (1, 2, 3, 4)])
    shift, stretch = 0.15 * torch.randn(2, 4, generator=generator, dtype=torch.float64) @ bumps
    clock = (t + 0.2 * shift).cummax(0).values.clamp(0, 1)  # monotone, the ends kept
    angles = torch.tensor(path.angles, dtype=torch.float64)
    place = (clock * 1024).clamp(0, 1023.999)
    low = place.long()
    bent = angles[low] + (place - low) * (angles[low + 1] - angles[low])
    return separation.polar_energy(torch.tensor(path.radii, dtype=torch.float64) * torch.exp(stretch), bent)


def optimality() -> Iterator[Check]:
    """The best path's energy against others'."""
    for std, phi, least, straight, circle in ((0.0, 0.691, 0.459, 0.982, 0.869), (0.3, None, 0.148, 0.597, 0.264)):
        separation, name = _separation(std), f"two modes of deviation {std:g}"
        if phi is not None:
            yield close(f"Phi, {name}", float(separation.flat_angles()[-1]), phi, absolute=2e-3)
        best = separation.energy(separation.optimal_path())
        yield close(f"least energy, {name}", separation.optimal_energy, least, absolute=2e-3)
        yield close(f"energy of the path, {name}", best, least, absolute=6e-3)
        yield close(f"energy of straight lines, {name}", separation.energy(FlowMatching()), straight, absolute=1e-3)
        yield close(f"energy of the circle, {name}", separation.energy(Trigonometric()), circle, absolute=1e-3)
        generator = torch.Generator().manual_seed(0)
        yield at_least(
            f"least energy of 200 bent paths over its own, {name}", min(_perturbed(generator, separation) for _ in range(200)) / best, 1
        )
        wrong = Separation(separation.angles, separation.values[torch.randperm(129, generator=generator)]).optimal_path()
        yield control(at_most(f"energy of the path of a shuffled separation, {name}", separation.energy(wrong), best))


def dimensions() -> Iterator[Check]:
    """32 Gaussian points: the straight path is nearly the best in many dimensions."""
    generator, ratios = torch.Generator().manual_seed(0), []
    for dim in (2, 10, 50, 300):
        x = torch.randn(32, dim, generator=generator, dtype=torch.float64)
        x = (x - x.mean(0)) / (x - x.mean(0)).square().mean().sqrt()
        separation = data_separation(Empirical(x), 65, samples=256)
        ratios.append(separation.energy(FlowMatching()) / separation.optimal_energy)
    # in fewer dimensions the ratio is that of the points that were drawn
    for dim, ratio, known in zip((50, 300), ratios[2:], (1.098, 1.035), strict=True):
        yield close(f"energy of straight lines over the least, {dim} dimensions", ratio, known, relative=0.01)
    yield at_most("largest step of that ratio from few dimensions to more", max(b - a for a, b in pairwise(ratios)), 0)
    yield at_most("the ratio in 300 dimensions", ratios[3], 1.06)
    yield control(at_most("the ratio in 2 dimensions", ratios[0], 1.06))


def _w2(process: ScalarProcess, steps: int) -> float:
    """The distance of Euler's samples, started at the prior's quantiles, from the law's quantiles."""
    law, n = _two(0.3), 4000
    share = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x, belief = torch.special.ndtri(share)[:, None], law.denoiser(process)
    for i in range(steps):
        x = x - belief.velocity(x, 1 - i / steps) / steps
    low, high = torch.full_like(share, -4.0), torch.full_like(share, 4.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = sum(torch.special.ndtr((middle - float(m)) / 0.3) for m in law.means) / 2 < share
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return float((x[:, 0].sort().values - low).square().mean().sqrt())


def sampling() -> Iterator[Check]:
    """Euler steps, equally long in time, of the exact velocity: the distance of samples from the law."""
    best, straight, circle = _separation(0.3).optimal_path(), FlowMatching(), Trigonometric()
    known = ((straight, 2, 0.443), (straight, 4, 0.180), (straight, 8, 0.093), (circle, 2, 0.208), (circle, 4, 0.078))
    for process, steps, value in known:
        yield close(f"W2 at {steps} steps, {process.kind}", _w2(process, steps), value, absolute=0.006)
    for steps in (2, 4):
        own = _w2(best, steps)
        yield at_most(f"W2 at {steps} steps, the best path over straight lines", own / _w2(straight, steps), 0.5)
        yield at_most(f"W2 at {steps} steps, the best path over the circle", own / _w2(circle, steps), 1)
    wrong = Separation(_separation(0.3).angles, torch.flip(_separation(0.3).values, (0,))).optimal_path()
    yield control(at_most("the same at 2 steps, the path of a reversed separation", _w2(wrong, 2) / _w2(straight, 2), 0.5))


@functools.cache
def _errors() -> dict[str, list[float]]:
    paths = {"least energy": _separation(0.3).optimal_path(), "straight lines": FlowMatching(), "circle": Trigonometric()}
    return {name: [_w2(process, n) for n in (1, 2, 3, 4, 6)] for name, process in paths.items()}


def figure(ax: Any) -> None:
    """How far the samples of a few equal Euler steps are from the law of two modes, with exact denoisers: on the path of least
    kinetic energy far nearer than on straight lines, and nearer than on the circle in up to four.
    """
    for i, (name, values) in enumerate(_errors().items()):
        ax.plot((1, 2, 3, 4, 6), values, "o-", color=f"C{i}", label=name)
    ax.set(xscale="log", yscale="log", xlabel="Euler steps", ylabel="W2 distance from the law")
    ax.legend()


ROW = Row(
    id="125",
    slug="kinetic-optimal",
    title="On Kinetic Optimal Probability Paths for Generative Models",
    authors="Neta Shaul, Ricky T. Q. Chen, Maximilian Nickel, Matt Le, Yaron Lipman",
    year=2023,
    arxiv="2306.06626",
    claim="The Gaussian path of least kinetic energy follows from one function of the noise level, is the straight path for few points in "
    "many dimensions, and costs an Euler solver fewer steps.",
    reproduced="yes",
    checks=(formula, optimality, dimensions, sampling),
    figure=figure,
)
