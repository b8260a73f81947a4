"""136: iterative alpha-(de)blending. Left out: images larger than the digits."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, control, within
from sfumato.atlas.solvers.pictures import draw_curves
from sfumato.atlas.solvers.worlds import g4
from sfumato.data import digits
from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.exact.laws.blend import Blend, Sides
from sfumato.learn import DenoisingLoss, FitSettings, Uniform, UniformTime, fit
from sfumato.metrics import energy_distance, fit_rate
from sfumato.noise import FlowMatching
from sfumato.sample import ddim, run
from sfumato.sample.steps.blending import blend, random_blend
from sfumato.seeds import Noise, noise


def _mixture(means: list[list[float]], variances: list[float]) -> GaussianMixture:
    parts = [SpectralCovariance.isotropic(len(means[0]), v) for v in variances]
    return GaussianMixture(None, torch.tensor(means, dtype=torch.float64), parts)


def _even(n: int) -> list[float]:
    return [i / n for i in range(n + 1)]


@functools.cache
def _plane() -> tuple[Blend, Tensor, Tensor]:
    """Two components blended to G4, 200 draws of them, and where the limit map takes these."""
    world = Blend(_mixture([[-1.0, -1.0], [1.0, 1.0]], [0.3, 0.2]), g4())
    x = world.source.sample(200, 1)
    return world, x, blend(world.velocity, x, _even(100), method="rk4")


def convergence() -> Iterable[Check]:
    """The deterministic steps converge with order 1, the random walk with order 1/2, and to the same map."""
    world, x, exact = _plane()
    steps = (16, 32, 64, 128, 256)
    errors = [float((blend(world.velocity, x, _even(n)) - exact).square().mean().sqrt()) for n in steps]
    yield within("deterministic: slope of the error in the number of steps", fit_rate(steps, errors).slope, -1.1, -0.9)
    yield at_most("deterministic, 256 steps: error (card: 0.0055)", errors[-1], 0.008)
    few = (16, 64, 256)
    walks = [float((random_blend(world.draw, x, _even(n), 3) - exact).square().sum(1).mean().sqrt()) for n in few]
    yield within("random: slope of the distance in the number of steps", fit_rate(few, walks).slope, -0.58, -0.42)

    def independent(x: Tensor, a: float, noise: Noise) -> Sides:
        # keeps the belief of the source, and takes any target
        drawn = world.draw(x, a, noise)
        other = world.draw(torch.zeros_like(x), 0.0, noise)
        return Sides(drawn.source, other.target)

    walks = [float((random_blend(independent, x, _even(n), 3) - exact).square().sum(1).mean().sqrt()) for n in few]
    yield control(within("independent targets: slope of the distance", fit_rate(few, walks).slope, -0.58, -0.42))


def rearrangement() -> Iterable[Check]:
    """On the line the map is the monotone rearrangement `F1^-1(F0(x))`, the only flow with the right law at its end."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    source, target = _mixture([[-1.0], [1.0]], [0.1, 0.2]), _mixture([[-2.0], [0.0], [1.5]], [0.1, 0.05, 0.1])
    world, x = Blend(source, target), source.sample(200, 2)

    def cdf(law: GaussianMixture, value: float) -> float:
        return sum(
            float(w) * float(norm.cdf(value, float(m), float(c.rest) ** 0.5))
            for w, m, c in zip(law.weights, law.means, law.covariances, strict=True)
        )

    def quantile(p: float) -> float:
        return float(brentq(lambda y: cdf(target, y) - p, -8, 8, xtol=1e-12))

    exact = torch.tensor([[quantile(cdf(source, float(v)))] for v in x[:, 0]], dtype=torch.float64)
    gaps = {n: float((blend(world.velocity, x, _even(n)) - exact).abs().mean()) for n in (128, 1024)}
    yield at_most("1024 steps: mean distance to the rearrangement", gaps[1024], 0.01)
    yield at_least("128 to 1024 steps: the distance falls by", gaps[128] / gaps[1024], 3)
    back = _mixture([[2.0], [0.0], [-1.5]], [0.1, 0.05, 0.1])
    off = float((blend(Blend(source, back).velocity, x, _even(128)) - exact).abs().mean())
    yield control(at_most("another target, 128 steps: mean distance to the rearrangement", off, 0.1))


def names_of_one_method() -> Iterable[Check]:
    """From Gaussian noise the step is DDIM's on a straight line, and the three predictions give one step."""
    noise = GaussianMixture(None, torch.zeros(1, 2, dtype=torch.float64), [SpectralCovariance.isotropic(2, 1.0)])
    world, x, process = Blend(noise, g4()), noise.sample(64, 4), FlowMatching()
    mine = blend(world.velocity, x, _even(16))
    times = [1 - a for a in _even(16)]
    theirs = run(ddim().compile(process, times), g4().denoiser(process).denoise, x)
    yield at_most("deterministic steps against DDIM, 16 steps", float((mine - theirs).abs().max()), 1e-12)
    target = blend(lambda x, a: world.sides(x, a).target, x, _even(16), predicts="target")
    yield at_most("predicting the target: difference", float((mine - target).abs().max()), 1e-12)
    late = [a for a in _even(16) if a > 0]
    first = x + late[0] * world.velocity(x, 0.0)
    source = blend(lambda x, a: world.sides(x, a).source, first, late, predicts="source")
    yield at_most("predicting the source after a first step: difference", float((mine - source).abs().max()), 1e-12)
    wrong = blend(lambda x, a: world.sides(x, a).target, x, _even(16))
    yield control(at_most("the target taken for the difference: difference", float((mine - wrong).abs().max()), 1e-12))


def learned() -> Iterable[Check]:
    """Check 3: noise to the digits' 16 largest principal components, by a network that regresses on the difference of the sides."""
    data, process = digits(), FlowMatching()
    train, test = (part.flatten(1) - data.train.flatten(1).mean(0) for part in (data.train, data.test))
    _, sizes, axes = torch.linalg.svd(train, full_matrices=False)
    # to unit mean variance
    scale = float(sizes[:16].square().mean().sqrt()) / len(train) ** 0.5
    train, test = (part @ axes[:16].T / scale for part in (train, test))
    floor, x = energy_distance(test.double(), train.double()).value, noise(4, 1000, (16,), dtype=torch.float32).draw(0)

    def distance(steps: int, model: Preconditioned) -> float:
        def difference(x: Tensor, a: float) -> Tensor:
            with torch.no_grad():
                return -model.velocity(x, 1 - a)

        return energy_distance(blend(difference, x, _even(steps)).double(), test.double()).value

    limit = 2 * floor + 0.02
    for steps in (600, 0):
        model = Preconditioned(ResidualMLP((16,), 128, 3), process, 1.0)
        if steps:
            fit(
                model,
                train,
                FitSettings(steps, learning_rate=3e-3, warmup=50, ema_decay=0.99),
                DenoisingLoss(Uniform(), UniformTime(), "velocity"),
            )
            name = "learned blend, 128 steps: energy distance to held-out digits"
            yield at_most(f"{name} (those learned from: {floor:.2g})", distance(128, model), limit)
            yield at_most(f"{name}, in 16 steps", distance(16, model), 2 * limit)
        else:
            yield control(at_most(f"{name}, before training", distance(128, model), limit))


@functools.cache
def _curves(steps: tuple[int, ...]) -> dict[str, list[float]]:
    world, x, exact = _plane()
    ends = {
        "deterministic": [blend(world.velocity, x, _even(n)) for n in steps],
        "random": [random_blend(world.draw, x, _even(n), 3) for n in steps],
    }
    return {name: [float((end - exact).square().sum(1).mean().sqrt()) for end in found] for name, found in ends.items()}


def figure(ax: Any) -> None:
    """Distance to where the limit map carries 200 draws of one mixture to another: taking blends apart at random comes nearer with the
    root of the number of steps, following the mean difference with the number itself.
    """
    steps = (8, 16, 32, 64)
    draw_curves(ax, steps, _curves(steps), "distance to the limit map")


ROW = Row(
    id="136",
    slug="iadb",
    title="Iterative alpha-(de)Blending: a Minimalist Deterministic Diffusion Model",
    authors="Eric Heitz, Laurent Belcour, Thomas Chambon",
    year=2023,
    arxiv="2305.03486",
    claim=(
        "Taking a blend of two laws apart at random and blending a little further converges, with the root of the number of steps, to a"
        " deterministic map between any two densities, which the mean difference of the pair follows with order 1; from Gaussian noise it"
        " is DDIM. A small network blends noise to digits; that its samples are better than other methods' was not measured."
    ),
    reproduced="partly",
    checks=(names_of_one_method, convergence, rearrangement, learned),
    figure=figure,
)
