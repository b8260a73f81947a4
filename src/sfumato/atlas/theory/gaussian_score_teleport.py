"""T3: at high noise every score is Gaussian, and sampling may start where that ends."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato.atlas.networks import digits_network
from sfumato.atlas.row import Check, Row, at_least, at_most, control, within
from sfumato.data import digits
from sfumato.exact import Empirical, Gaussian, GaussianMixture, Law, SpectralCovariance, far_field, fit_gaussian, fit_mixture
from sfumato.explain import gaussian_approximants, score_probe
from sfumato.metrics import fit_rate
from sfumato.noise import EDM, FlowMatching, ScalarProcess, VariancePreserving
from sfumato.sample import PRESETS, Heun, SkipForecast, Teleported, forecast_skip, karras, reference, reference_times, run
from sfumato.sample.judges.skip import missed
from sfumato.seeds import noise

PROCESS = EDM()
STARTS = 256
STEPS = 18


@functools.cache
def _law() -> Gaussian:
    return fit_gaussian(digits().batches(1024))


def _permuted(law: Gaussian, seed: int = 0) -> Gaussian:
    """The law with its eigenvectors dealt out anew: the right spectrum in the wrong directions."""
    order = torch.randperm(law.covariance.rank, generator=torch.Generator().manual_seed(seed))
    turned = SpectralCovariance.low_rank(law.covariance.basis.columns()[:, order], law.covariance.eigenvalues, law.covariance.rest)
    return Gaussian(law.mean, turned, law.event_shape)


def _starts() -> Tensor:
    return PROCESS.prior_sample(noise(7, STARTS, (1, 8, 8)).draw(0))


@functools.cache
def _truth() -> Tensor:
    """The network's flow from the starts, by Heun's method in 120 steps."""
    with torch.no_grad():
        return run(Heun().compile(PROCESS, karras(PROCESS, 120)), digits_network().denoise, _starts())


def _relative(x: Tensor, truth: Tensor) -> float:
    return float((x - truth).square().sum() / truth.square().sum())


def _integrated(law: Gaussian, process: ScalarProcess, x: Tensor, t: float, s: float) -> Tensor:
    """The probability flow by DOP853 over half log-SNR, where `y = x / alpha` follows `dy = (D - y) dlambda`."""
    from scipy.integrate import solve_ivp

    def rate(lam: float, flat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        u = process.time(torch.tensor(lam, dtype=torch.float64))
        y = torch.from_numpy(flat.copy()).reshape(x.shape)
        return np.asarray((law.posterior_mean(process.alpha(u) * y, process, u) - y).numpy().reshape(-1))

    ends = [float(process.half_log_snr(u)) for u in (t, s)]
    found = solve_ivp(rate, ends, (x / process.alpha(t)).numpy().reshape(-1), method="DOP853", rtol=1e-10, atol=1e-12)
    return process.alpha(s) * torch.from_numpy(found.y[:, -1]).reshape(x.shape)


def closed_forms() -> Iterator[Check]:
    """Check 1: flows against numerical integration, mixtures against automatic differentiation."""
    columns, _ = torch.linalg.qr(noise(0, 6, (6,), dtype=torch.float64).draw(0))
    law = Gaussian(
        noise(1, 1, (6,), dtype=torch.float64).draw(0)[0],
        SpectralCovariance.low_rank(columns[:, :4], torch.tensor([3.0, 1.0, 0.3, 0.05], dtype=torch.float64), 0.0),
    )
    for process in (EDM(), VariancePreserving(), FlowMatching()):
        t, s = 0.9, 0.01
        x = float(process.sigma(t)) * noise(2, 8, (6,), dtype=torch.float64).draw(0)
        numerical = _integrated(law, process, x, t, s)
        yield at_most(f"{process.kind}: flow against DOP853", float((law.flow(process, t, s)(x) - numerical).abs().max()), 1e-8)
    scaled = process.alpha(s) * law.mean + float(process.sigma(s) / process.sigma(t)) * (x - process.alpha(t) * law.mean)
    yield control(at_most("flow that ignores the covariance", float((scaled - numerical).abs().max()), 1e-8))
    parts = [SpectralCovariance.low_rank(columns[:, i : i + 2], torch.tensor([2.0, 0.5], dtype=torch.float64), 0.1) for i in range(3)]
    world = GaussianMixture([0.5, 0.3, 0.2], 2 * noise(3, 3, (6,), dtype=torch.float64).draw(0), parts)
    process = VariancePreserving()
    alpha, sigma = float(process.alpha(0.4)), float(process.sigma(0.4))
    noisy = GaussianMixture(world.weights, alpha * world.means, [c.map(lambda v: alpha**2 * v + sigma**2) for c in parts])
    x = noise(4, 5, (6,), dtype=torch.float64).draw(0).requires_grad_()
    (gradient,) = torch.autograd.grad(noisy.log_prob(x).sum(), x, create_graph=True)
    hessian = torch.stack([torch.autograd.grad(gradient[:, i].sum(), x, retain_graph=True)[0] for i in range(6)], 1)
    x = x.detach()
    tweedie = (sigma / alpha) ** 2 * (torch.eye(6, dtype=torch.float64) + sigma**2 * hessian)
    yield at_most("mixture's score against autograd", float((noisy.score(x) - gradient.detach()).abs().max()), 1e-10)
    yield at_most("mixture's Hessian against autograd", float((noisy.hessian(x) - hessian).abs().max()), 1e-10)
    covariance = world.posterior_covariance(x, process, 0.4)
    yield at_most("posterior covariance against Tweedie's formula", float((covariance - tweedie).abs().max()), 1e-10)


def _apart(ratio: float, law: Gaussian, probes: int = 3000) -> tuple[float, float]:
    """`E |D_points - D_law|^2` and `1 - EV` of the digits at one level."""
    points = digits().train.to(torch.float64)
    process = EDM(400.0)
    x0 = points[torch.arange(probes) % len(points)]
    t = float(process.time_of_ratio(ratio))
    x = process.sample(x0, t, noise(1, probes, (1, 8, 8), dtype=torch.float64).draw(0))
    own, other = Empirical(points).posterior_mean(x, process, t), law.posterior_mean(x, process, t)
    apart = (own - other).flatten(1).square().sum(1)
    return float(apart.mean()), float((apart / (own - x).flatten(1).square().sum(1)).mean())


def far_fields() -> Iterator[Check]:
    """Check 2: the denoiser of the points becomes the Gaussian's at the rate of the third cumulant."""
    law = _law()
    ratios = [5.0, 10.0, 20.0, 40.0]
    predicted = far_field(digits().train, law, [*ratios, 3.0])
    measured = {k: _apart(k, law) for k in (*ratios, 3.0)}
    for i, (low, high) in enumerate([(0.75, 1.0), (0.88, 1.05), (0.93, 1.07), (0.93, 1.07)]):
        share = measured[ratios[i]][0] / predicted.plain[i]
        yield within(f"denoiser error over its far-field prediction at {ratios[i]:g}", share, low, high)
    yield within("whitened prediction at 3, measured over predicted", measured[3.0][0] / predicted.whitened[-1], 1.0, 1.6)
    slope = fit_rate(ratios[1:], [measured[k][1] for k in ratios[1:]]).slope
    yield within("log-log slope of 1 - EV from 10 to 40", slope, -6.1, -5.9)
    turned = _permuted(law)
    slope = fit_rate(ratios[1:], [_apart(k, turned)[1] for k in ratios[1:]]).slope
    yield control(within("the same slope with eigenvectors permuted", slope, -6.1, -5.9))


def explained_shares() -> Iterator[Check]:
    """Check 3: what a trained network's score looks like; a network that memorised 20 images looks otherwise."""
    data = digits()
    laws: dict[str, Law] = {**gaussian_approximants(_law()), "permuted": _permuted(_law())}
    laws |= {"mixture": fit_mixture(data.batches(1024), 10, seed=0), "empirical": Empirical(data.train)}
    approximants = {name: law.denoiser(PROCESS) for name, law in laws.items()}
    ratios = [0.3, 1.5, 2.0, 5.0]
    probe = score_probe(digits_network(), approximants, data.train[:1000], ratios)
    share = {name: probe.explained[name][0] for name in laws}
    yield at_least("mixture over Gaussian at 0.3", share["mixture"][0] - share["gaussian"][0], 0.02)
    yield at_least("Gaussian over points at 0.3", share["gaussian"][0] - share["empirical"][0], 0.2)
    yield at_least("Gaussian over isotropic at 0.3", share["gaussian"][0] - share["isotropic"][0], 0.2)
    yield at_least("Gaussian's least share from 1.5 up", min(share["gaussian"][1:]), 0.98)
    yield control(at_least("the same with eigenvectors permuted", min(share["permuted"][1:]), 0.98))
    few = data.train[:20]
    memory = {"gaussian": fit_gaussian([few]).denoiser(PROCESS), "empirical": Empirical(few).denoiser(PROCESS)}
    probe = score_probe(digits_network(20, 600), memory, few.repeat(25, 1, 1, 1), [0.3])
    gap = probe.explained["gaussian"][0][0] - probe.explained["empirical"][0][0]
    yield control(at_least("Gaussian over points at 0.3, trained on 20 images", gap, 0.2))


def teleportation() -> Iterator[Check]:
    """Check 4: skipping the Gaussian part saves evaluations; flying without the covariance or the mean costs what it should."""
    model, x, truth, law = digits_network(), _starts(), _truth(), _law().to(torch.float32)
    times = karras(PROCESS, STEPS, ratio_min=0.02)

    def error(solver: Heun | Teleported, grid: tuple[float, ...]) -> tuple[float, int]:
        program = solver.compile(PROCESS, grid)
        with torch.no_grad():
            return _relative(run(program, model.denoise, x), truth), program.evaluations

    _, full = error(Heun(), times)
    jumped, cost = error(Teleported(Heun(), law, skip=8), times)
    shorter, same = error(Heun(), karras(PROCESS, STEPS - 8, ratio_min=0.02))
    yield at_least("evaluations saved by landing at 5.0", 1 - cost / full, 0.4)
    yield at_most(f"its error over that of {same} evaluations without", jumped / shorter, 0.2)
    for name in ("dpm-solver++-2m", "unipc-2-bh2"):
        moved = Teleported(PRESETS[name], law, skip=6).compile(PROCESS, times)
        plain = PRESETS[name].compile(PROCESS, karras(PROCESS, STEPS - 6, ratio_min=0.02))
        with torch.no_grad():
            ratio = _relative(run(moved, model.denoise, x), truth) / _relative(run(plain, model.denoise, x), truth)
        yield at_most(f"{name} in {moved.evaluations} evaluations: landing at 11.2 over not", ratio, 0.5)
    at_two, _ = error(Teleported(Heun(), law, skip=10), times)
    tail, scale = Heun().compile(PROCESS, times[10:]), times[10] / times[0]
    mean = law.mean.reshape(1, 8, 8)
    for name, start in (("rescaled about the mean", mean + scale * (x - mean)), ("rescaled without the mean", scale * x)):
        with torch.no_grad():
            wrong = _relative(run(tail, model.denoise, start), truth)
        yield control(at_most(f"start at 2.0 {name}, error over the flow's", wrong / at_two, 2.0))
    cold, warm = [Teleported(PRESETS["dpm-solver++-3m"], law, ratio=3.0, warm=w) for w in (False, True)]
    coarse = karras(PROCESS, 14, ratio_min=0.02)
    with torch.no_grad():
        errors = [_relative(run(solver.compile(PROCESS, coarse), model.denoise, x), truth) for solver in (warm, cold)]
    yield at_most("14 steps of order 3 from about 3: warm history over cold start", errors[0] / errors[1], 0.8)


def automatic_skip() -> Iterator[Check]:
    """Check 5: the cost of a jump is predicted from 40 evaluations along the Gaussian flow."""
    model, law = digits_network(), _law().to(torch.float32)
    forecast = forecast_skip(model, law, 0.03)
    truth = reference(model.denoise, _starts(), PROCESS, law, reference_times(PROCESS, 120))
    for ratio in (4.7, 2.9, 1.8, 1.24):
        measured = _jump(law, ratio, truth.end)
        yield within(f"predicted over measured squared error of a jump to {ratio:g}", forecast.at(ratio) ** 2 / measured, 1 / 2.5, 2.5)
    levels = [k for k in forecast.ratios if k > 1.2]
    gained, _ = missed(model, law, _starts(), [80.0, *levels])
    t = float(PROCESS.time_of_ratio(levels[-1]))
    delta = law.covariance.apply(lambda v: torch.sqrt(v + levels[-1] ** 2), gained[-1])
    nearest = min(range(len(truth.times)), key=lambda i: abs(truth.times[i] - t))
    here = truth.times[nearest]
    away = (truth.states[nearest] - law.flow(PROCESS, 1.0, here)(_starts())).flatten(1)
    correlation = float(torch.corrcoef(torch.stack([delta.flatten(), away.flatten()]))[0, 1])
    yield at_least(f"correlation of predicted and true deviations at {float(PROCESS.ratio(here)):.2f}", correlation, 0.98)
    ungained = _ungained(forecast, 4.7) ** 2 / _jump(law, 4.7, truth.end)
    yield control(within("prediction at 4.7 with deviations carried unchanged", ungained, 1 / 2.5, 2.5))


def _jump(law: Gaussian, ratio: float, truth: Tensor) -> float:
    """The relative squared error that a jump alone adds: the rest of the way is walked accurately."""
    t = float(PROCESS.time_of_ratio(ratio))
    times = (t, *(s for s in reference_times(PROCESS, 120) if s < t * (1 - 1e-9)))
    landed = law.flow(PROCESS, 1.0, t)(_starts())
    return _relative(reference(digits_network().denoise, landed, PROCESS, law, times).end, truth)


def _ungained(forecast: SkipForecast, ratio: float) -> float:
    i = min(range(len(forecast.ratios)), key=lambda i: abs(forecast.ratios[i] - ratio))
    return forecast.ungained[i]


_FIGURE_RATIOS = (0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 20.0, 40.0)


@functools.cache
def _missed() -> dict[str, list[float]]:
    laws = {"Gaussian": _law(), "same, eigenvectors permuted": _permuted(_law()), "isotropic": gaussian_approximants(_law())["isotropic"]}
    return {name: [_apart(k, law, 400)[1] for k in _FIGURE_RATIOS] for name, law in laws.items()}


def figure(ax: Any) -> None:
    """How much of the digits' exact score a Gaussian misses: from moderate noise on next to nothing, and ever less. With the right
    variances in the wrong directions, or with one variance for all, it misses far more.
    """
    for i, (name, values) in enumerate(_missed().items()):
        ax.plot(_FIGURE_RATIOS, values, "o-", color=f"C{i}", label=name)
    ax.set(xscale="log", yscale="log", xlabel="noise-to-signal ratio", ylabel="share of the score missed")
    ax.legend()


ROW = Row(
    id="T3",
    slug="gaussian-score-teleport",
    title="The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and its Applications",
    authors="Binxu Wang, John J. Vastola",
    year=2024,
    arxiv="2412.09726",
    claim=(
        "At moderate and high noise a trained score is that of a Gaussian with the data's mean and covariance, so the first part of "
        "sampling can be replaced by one matrix product; at low noise it is nearer to a coarse mixture than to the training points."
    ),
    reproduced="yes",
    checks=(closed_forms, far_fields, explained_shares, teleportation, automatic_skip),
    figure=figure,
)
