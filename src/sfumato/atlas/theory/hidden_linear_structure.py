"""T4: the linear part of a denoiser is known before training; measure it, and build it in."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.networks import digits_network, sigma_data
from sfumato.atlas.row import Check, Row, at_least, at_most, control, within
from sfumato.data import digits, patches
from sfumato.denoise import GaussianScalings, Preconditioned, ResidualMLP
from sfumato.denoise.networks.eigen_coordinates import EigenCoordinates
from sfumato.denoiser import Denoiser
from sfumato.exact import Empirical, Gaussian, GaussianMixture, Law, SpectralCovariance, far_field, fit_gaussian
from sfumato.explain import linear_loss, linear_probe
from sfumato.learn import Average, DenoisingLoss, EDMWeight, FitSettings, LogNormalRatio, fit
from sfumato.noise import EDM, VariancePreserving
from sfumato.seeds import noise

PROCESS = EDM()
LEVELS = (0.1, 0.2, 0.5, 1.0)


def _permuted(law: Gaussian) -> Gaussian:
    order = torch.randperm(law.covariance.rank, generator=torch.Generator().manual_seed(0))
    turned = SpectralCovariance.low_rank(law.covariance.basis.columns()[:, order], law.covariance.eigenvalues, law.covariance.rest)
    return Gaussian(law.mean, turned, law.event_shape)


def linear_optimum() -> Iterator[Check]:
    """Check 1: a Newton step on the denoising loss of a mixture, taken component by component, ends at the Gaussian's denoiser."""
    process, unit = VariancePreserving(), torch.eye(6, dtype=torch.float64)
    t = float(process.time_of_ratio(0.6))
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    columns, _ = torch.linalg.qr(noise(0, 6, (6,), dtype=torch.float64).draw(0))
    parts = [SpectralCovariance.low_rank(columns[:, i : i + 2], torch.tensor([2.0, 0.5], dtype=torch.float64), 0.1) for i in range(3)]
    world = GaussianMixture([0.5, 0.3, 0.2], 2 * noise(3, 3, (6,), dtype=torch.float64).draw(0), parts)

    def loss(flat: Tensor) -> Tensor:
        W, b = flat[:36].reshape(6, 6), flat[36:]
        gap = alpha * W - unit
        shift = world.means @ gap.T + b
        within_parts = torch.stack([(gap @ c.dense() @ gap.T).trace() for c in parts])
        return world.weights @ (within_parts + shift.square().sum(1)) + sigma**2 * W.square().sum()

    zero = torch.zeros(42, dtype=torch.float64)
    gradient, hessian = torch.func.grad(loss)(zero), torch.func.hessian(loss)(zero)
    found = -torch.linalg.solve(hessian, gradient)
    law = world.gaussian()
    for name, covariance in (
        ("Gaussian denoiser", law.covariance.dense()),
        ("with diag(Sigma)", torch.diag(law.covariance.dense().diagonal())),
    ):
        W = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * unit)
        best = torch.cat([W.flatten(), (unit - alpha * W) @ law.mean])
        check = at_most(f"optimal W and b against the {name}", float((found - best).abs().max()), 1e-10)
        yield control(check) if "diag" in name else check
    optimum = float(linear_loss(law, process, t))
    yield at_most("optimal loss against its formula, relative", abs(float(loss(found)) / optimum - 1), 1e-10)


def trained_linear_part() -> Iterator[Check]:
    """Check 2: the linear part of a trained network is the one its data prescribe; an untrained one's is not."""
    data = digits()
    law = fit_gaussian(data.batches(1024))
    probe = linear_probe(digits_network(), law, data.train, [0.2, 0.5, 1.0, 2.0, 5.0, 10.0], probes=12_800, jacobian=0)
    for level in probe.levels[:4]:
        yield at_least(f"cosine of W to W* at {level.ratio:g}", level.cosine, 0.98)
    for level in probe.levels[4:]:
        # W* is lam / sigma^2 there, and the network's noise in null directions is larger: only the leading modes can be judged
        yield at_most(f"cosine of W to W* at {level.ratio:g}, noise in null directions included", level.cosine, 0.98)
    yield at_most("error of the ten leading shrinkages, all levels", max(level.leading_error for level in probe.levels), 0.03)
    linear, least = probe.levels[0], min(probe.levels[:4], key=lambda level: level.nonlinear).nonlinear
    yield at_most("non-linear share at 0.2", linear.nonlinear, 0.05)
    yield within("non-linear share at 2", probe.levels[3].nonlinear, least, 0.3)
    untrained = Preconditioned(ResidualMLP(data.event_shape, 8, 1), PROCESS, sigma_data(data))
    raw = linear_probe(untrained, law, data.train, [0.5, 1.0, 2.0], jacobian=0)
    yield control(at_most("error of an untrained network's shrinkages", max(level.leading_error for level in raw.levels), 0.03))


def _held_out(denoiser: Denoiser, draws: int = 4) -> list[float]:
    """`E |D - x_0|^2` on held-out digits, by level."""
    x0 = digits().test.repeat(draws, 1, 1, 1)
    eps, out = noise(5, len(x0), (1, 8, 8)).draw(0), []
    with torch.no_grad():
        for k in LEVELS:
            t = float(PROCESS.time_of_ratio(k))
            out.append(float((denoiser.denoise(PROCESS.sample(x0, t, eps), t) - x0).flatten(1).square().sum(1).mean()))
    return out


def _train(law: Gaussian | None, settings: FitSettings, at: tuple[int, ...] = ()) -> tuple[Denoiser, dict[int, list[float]]]:
    """The trained denoiser, and held-out errors of its raw weights at given steps; EDM's scalings without a law."""
    data = digits()
    scale, network = sigma_data(data), ResidualMLP(data.event_shape, 192, 2)
    denoiser = Preconditioned(network, PROCESS, scale)
    if law is not None:
        denoiser = Preconditioned(EigenCoordinates(network, law.covariance.basis), PROCESS, GaussianScalings(law, 1e-3))
    seen = {0: _held_out(denoiser)}

    def look(step: int, model: Preconditioned, average: Average) -> None:
        if step in at:
            seen[step] = _held_out(model)

    fit(denoiser, data, settings, DenoisingLoss(EDMWeight(scale), LogNormalRatio(-0.6, 1.2)), on_step=look)
    return denoiser, seen


def preconditioning() -> Iterator[Check]:
    """Check 3: a network that starts at the linear optimum stays ahead of one that has to learn it.

    1200 steps at a rate of 3e-3, the better one for both; the start also at the card's 1e-3, at which the isotropic twin is slower.
    """
    law = fit_gaussian(digits().batches(1024))
    floored = Gaussian(law.mean, law.covariance.map(lambda v: v.clamp(min=1e-3)), law.event_shape).to(torch.float32)
    optimum = _held_out(floored.denoiser(PROCESS))
    looks, whole = tuple(range(100, 1200, 100)), FitSettings(1200, 128, 3e-3, warmup=0, seed=0)
    (twin, on_the_way), (own, early), (turned, _) = _train(None, whole, looks), _train(law, whole, (100,)), _train(_permuted(law), whole)
    plain, ours, wrong = _held_out(twin), _held_out(own), _held_out(turned)
    start = max(abs(a / b - 1) for a, b in zip(early[0], optimum, strict=True))
    yield at_most("step 0 against the linear optimum, relative", start, 1e-3)
    for i, k in enumerate(LEVELS):
        yield at_most(f"held-out error at {k:g}, Gaussian over EDM preconditioning", ours[i] / plain[i], 0.96)
        yield control(at_most(f"held-out error at {k:g}, permuted over EDM preconditioning", wrong[i] / plain[i], 0.96))
    brief = FitSettings(100, 128, 1e-3, warmup=0, schedule="constant", seed=0)
    ratio = _train(law, brief, (100,))[1][100][1] / _train(None, brief, (100,))[1][100][1]
    yield at_most("the same at 0.2 after 100 steps at 1e-3", ratio, 0.75)
    yield at_most("the same at 0.2 after 100 steps at 3e-3", early[100][1] / on_the_way[100][1], 0.85)
    caught = next((step for step in looks if on_the_way[step][1] <= optimum[1]), 1200)
    yield at_least("steps until EDM preconditioning reaches the linear optimum at 0.2", caught, 200)


def natural_patches() -> Iterator[Check]:
    """Check 4: on natural patches the Gaussian holds far further down than the far-field bound admits."""
    gray = patches(8, 4000).train.mean(1, keepdim=True).to(torch.float64)
    points = (gray - gray.mean()) / (gray - gray.mean(0)).square().mean().sqrt()
    law = fit_gaussian([points])
    yield within("leading variance, of 64 in all", float(law.covariance.eigenvalues[0]), 55, 63)
    ratios = [1.0, 2.0, 16.0, 32.0]
    predicted, process = far_field(points, law, ratios), EDM(400.0)
    own = Empirical(points)

    def apart(k: float, other: Gaussian) -> float:
        t, x0 = float(process.time_of_ratio(k)), points.repeat(4, 1, 1, 1)
        x = process.sample(x0, t, noise(1, len(x0), (1, 8, 8), dtype=torch.float64).draw(0))
        return float((own.posterior_mean(x, process, t) - other.posterior_mean(x, process, t)).flatten(1).square().sum(1).mean())

    for i, k in enumerate(ratios):
        if k <= 2:
            yield at_most(f"denoiser error over the naive far field at {k:g}", apart(k, law) / predicted.plain[i], 0.05)
        else:
            yield within(f"denoiser error over the whitened far field at {k:g}", apart(k, law) / predicted.whitened[i], 0.7, 1.4)
    turned = apart(32.0, _permuted(law)) / predicted.whitened[-1]
    yield control(within("the same at 32 with eigenvectors permuted", turned, 0.7, 1.4))


_SHOWN = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


@functools.cache
def _starts() -> dict[str, list[float]]:
    """Errors on held-out digits over that of answering the mean."""
    data, law = digits(), fit_gaussian(digits().batches(1024))
    ball = Gaussian(law.mean * 0, SpectralCovariance.isotropic(64, sigma_data(data) ** 2), law.event_shape)
    laws: dict[str, Law] = {"EDM's start": ball, "linear optimum": law, "training points": Empirical(data.train)}
    x0, found = data.test[:200].double(), {}
    eps = noise(5, len(x0), (1, 8, 8), dtype=torch.float64).draw(0)
    times = [float(PROCESS.time_of_ratio(k)) for k in _SHOWN]
    for name, own in laws.items():
        square = [(own.posterior_mean(PROCESS.sample(x0, t, eps), PROCESS, t) - x0).flatten(1).square().sum(1).mean() for t in times]
        found[name] = [float(v / (x0 - law.mean.reshape(1, 8, 8)).flatten(1).square().sum(1).mean()) for v in square]
    return found


def figure(ax: Any) -> None:
    """Errors of denoisers that need no training, on digits not seen before. The best linear one, known from mean and covariance, is well
    below where a network usually starts, and at low noise below the exact denoiser of the training points.
    """
    for name, colour in (("EDM's start", "C1"), ("linear optimum", "C0"), ("training points", "C2")):
        ax.plot(_SHOWN, _starts()[name], "o-", color=colour, label=name)
    ax.set(xscale="log", yscale="log", xlabel="noise-to-signal ratio", ylabel="error, share of the variance")
    ax.legend()


ROW = Row(
    id="T4",
    slug="hidden-linear-structure",
    title="The Hidden Linear Structure in Score-Based Models and its Application",
    authors="Binxu Wang, John J. Vastola",
    year=2023,
    arxiv="2311.10892",
    claim=(
        "The best linear denoiser of any data is that of the Gaussian with their mean and covariance; trained networks have it as their "
        "linear part, and a network that is given it from the start learns faster."
    ),
    reproduced="yes",
    checks=(linear_optimum, trained_linear_part, preconditioning, natural_patches),
    figure=figure,
)
