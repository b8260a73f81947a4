"""029: one SDE, its score and its flow give samples, likelihoods and codes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, control
from sfumato.atlas.solvers.worlds import g4
from sfumato.denoiser import Denoiser
from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.metrics import energy_distance
from sfumato.noise import ScalarProcess, SubVariancePreserving, Time, VarianceExploding, VariancePreserving
from sfumato.sample import Ancestral, Solver, dpm_solver, run, uniform_log_snr, uniform_time
from sfumato.sample.continuous.adaptive_ode import flow
from sfumato.sample.continuous.likelihood import log_likelihood
from sfumato.sample.steps.langevin import Corrected, NormLangevin
from sfumato.sample.steps.replacement import Replaced
from sfumato.sample.steps.reverse_sde import ReverseSDE
from sfumato.sample.steps.step import State, Step, Stream, TableStep, walk
from sfumato.seeds import noise
from sfumato.steer.classifier_guidance import ClassifierGuided

WORLD = g4()
POINTS = 50
SAMPLES = 1500


class _FullScore(Denoiser):
    """The belief whose flow moves by all of the score, as if the 1/2 of the flow were dropped: `D' = x / alpha + 2 (D - x / alpha)`."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner, self.process = inner, inner.process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        return 2 * self.inner.denoise(x, t, condition) - x  # alpha = 1


def likelihoods() -> Iterator[Check]:
    """Check 1: log-densities and codes by the adaptive flow."""
    process = VarianceExploding(1e-3, 50.0)
    belief, t = WORLD.denoiser(process), float(process.time_of_ratio(1e-3))
    x = WORLD.sample(POINTS, 0)
    exact, last = WORLD.through(process, t).log_prob(x), WORLD.through(process, 1.0).log_prob
    for tolerance, limit in ((1e-3, 1e-1), (1e-5, 3e-4), (1e-7, 3e-6)):
        found = log_likelihood(belief, x, t, tolerance=tolerance, terminal=last)
        asked = float(found.evaluations.double().mean())
        yield at_most(
            f"largest error of log p at {tolerance:g}, {asked:.0f} evaluations", float((found.log_prob - exact).abs().max()), limit
        )
    floor = float((log_likelihood(belief, x, t).log_prob - exact).abs().max())
    yield at_most("floor left by the prior N(0, sigma_max^2) in place of the marginal", floor, 6e-3)
    probed = log_likelihood(belief, x, t, divergence="rademacher", probes=64, seed=1, terminal=last).log_prob - exact
    error = float(probed.mean() / (probed.std() / math.sqrt(POINTS)))
    yield at_most("bias of 64 probes, in standard errors", abs(error), 3.0)
    code = flow(belief, x, t, 1.0, tolerance=1e-7).end
    back = flow(belief, code, 1.0, t, tolerance=1e-7).end
    yield at_most("data from their code", float((back - x).abs().max()), 1e-5)
    wrong = log_likelihood(_FullScore(belief), x, t, terminal=last).log_prob
    yield control(at_most("the same error without the 1/2 of the flow's drift", float((wrong - exact).abs().max()), 3e-4))


def _stay(denoiser: Denoiser, process: ScalarProcess, x: Tensor, t: Time, s: Time, state: State, stream: Stream) -> tuple[Tensor, State]:
    return x, state


def correctors() -> Iterator[Check]:
    """Check 2: half of the evaluations spent on Langevin sweeps are well spent; all of them are not."""
    process = VarianceExploding(0.01, 50.0)
    belief, end = WORLD.denoiser(process), float(process.time_of_ratio(0.01))
    truth = WORLD.sample(SAMPLES, 99)
    x = process.prior_sample(noise(3, SAMPLES, (2,), dtype=torch.float64).draw(0))
    predictor = ReverseSDE("euler", flow=True)

    def distance(step: Step, levels: int) -> float:
        return energy_distance(walk(step, belief, process, x, uniform_time(levels, 1.0, end), Stream.of(5, x)), truth).value

    alone = distance(TableStep(predictor), 100)
    corrected = distance(Corrected(TableStep(predictor), NormLangevin()), 50)
    yield at_most("energy distance with a sweep at 50 levels, over 100 levels of the predictor", corrected / alone, 1 / 3)
    own = distance(Corrected(TableStep(predictor), NormLangevin(norms="sample")), 50)
    yield control(at_most("the same with step sizes of each sample's own norms", own / alone, 1 / 3))
    stuck = distance(Corrected(_stay, NormLangevin()), 100)
    yield control(at_most("the same with 100 sweeps and no predictor", stuck / alone, 1 / 3))


def marginals() -> Iterator[Check]:
    """Check 3: 2000 Euler steps of each forward SDE, their moments followed exactly, as if by infinitely many paths."""
    steps, mean0, variance0 = 2000, 1.0, 0.3
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    processes = (VarianceExploding(), VariancePreserving(), SubVariancePreserving())
    for process in processes:
        factors = 1 + process.drift(t[:-1]) / steps
        mean, variance = mean0, variance0
        for f, g in zip(factors.tolist(), (process.diffusion_squared(t[:-1]) / steps).tolist(), strict=True):
            mean, variance = f * mean, f**2 * variance + g
        alpha, sigma = (float(v) for v in process.levels(1.0))
        exact = alpha**2 * variance0 + sigma**2
        yield at_most(f"{process.kind}: relative error of the variance", abs(variance / exact - 1), 0.01)
        # relative to the law's width: the mean itself vanishes in the noise
        yield at_most(f"{process.kind}: error of the mean in standard deviations", abs(mean - alpha * mean0) / math.sqrt(exact), 0.01)
    gap = (processes[2].sigma(t) ** 2 - processes[1].sigma(t) ** 2).max()
    yield at_most("largest excess of the sub-VP variance over VP's", float(gap), 0.0)
    yield control(
        at_most("largest excess of VP's over sub-VP's", float(-(processes[2].sigma(t) ** 2 - processes[1].sigma(t) ** 2).min()), 0.0)
    )


def conditioning() -> Iterator[Check]:
    """Check 4: a classifier's gradient conditions exactly; overwriting known coordinates does not."""
    process, n, wanted = VariancePreserving(), 1500, 1
    belief = WORLD.denoiser(process)
    times = uniform_log_snr(process, 50)
    draws = noise(4, n, (2,), dtype=torch.float64)
    x = process.prior_sample(draws.draw(0))

    def classified(y: Tensor, t: Time) -> Tensor:
        return torch.log(WORLD.through(process, t).responsibilities(y)[:, wanted])  # type: ignore[attr-defined]

    component = Gaussian(WORLD.means[wanted], WORLD.covariances[wanted])
    program = Ancestral(1.0, 2).compile(process, times)
    for name, model in (("guided", ClassifierGuided(belief, classified)), ("unguided", belief)):
        got = run(program, model.denoise, x, draws)
        away = float((got.mean(0) - component.mean).norm() / component.mean.norm())
        spread = abs(float(got.var(0).mean() / component.covariance.trace() * 2) - 1)
        check = at_most(f"{name}: error of the component's mean and variance, relative", max(away, spread), 0.05)
        yield check if name == "guided" else control(check)
    known = torch.tensor([-0.5, 0.0], dtype=torch.float64)
    exact = WORLD.given(torch.tensor([[1.0, 0.0]], dtype=torch.float64), known[:1], 1e-4)
    truth = exact.sample(n, 6)[:, 1:]
    step = Replaced(TableStep(Ancestral(1.0)), torch.tensor([True, False]), known)
    replaced = walk(step, belief, process, x, times, Stream.of(7, x))[:, 1:]
    posterior = run(program, exact.denoiser(process).denoise, x, draws)[:, 1:]
    yield at_most("energy distance to the conditional law by its own score", energy_distance(posterior, truth).value, 3e-3)
    yield at_least("energy distance to it by replacement", energy_distance(replaced, truth).value, 2e-2)


_LINE = GaussianMixture(
    [0.4, 0.6], torch.tensor([[-1.2], [0.8]], dtype=torch.float64), [SpectralCovariance.isotropic(1, v) for v in (0.02, 0.06)]
)


@functools.cache
def _paths(solver: Solver) -> tuple[list[float], list[list[float]]]:
    """Times, and seven paths of a line's mixture from the same starts."""
    process, seen = VariancePreserving(), []
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    program = solver.compile(process, uniform_time(200, 1.0, 1e-3))
    draws = noise(2, 7, (1,), dtype=torch.float64)
    run(program, _LINE.denoiser(process).denoise, x, draws, lambda event: seen.append((event.time, event.state[:, 0].tolist())))
    return [time for time, _ in seen], [list(path) for path in zip(*(state for _, state in seen), strict=True)]


def figure(ax: Any) -> None:
    """From seven points of noise on the right, time runs back to the data on the left: the reverse SDE's paths are rough, the flow's are
    smooth and do not cross, and both end where the data are.
    """
    for solver, colour, name in ((Ancestral(1.0), "C1", "reverse SDE"), (dpm_solver(2), "C0", "probability flow")):
        times, paths = _paths(solver)
        for i, path in enumerate(paths):
            ax.plot(times, path, color=colour, linewidth=1 + (colour == "C0"), label=name if i == 0 else None)
    x = torch.linspace(-3, 3, 200, dtype=torch.float64)
    ax.plot(-0.25 * _LINE.log_prob(x[:, None]).exp(), x, color="C2", label="data")
    ax.set_xlabel("time")
    ax.set_xticks([0, 0.5, 1])
    ax.set_ylabel("x")
    ax.legend()


ROW = Row(
    id="029",
    slug="score-sde",
    title="Score-Based Generative Modeling through Stochastic Differential Equations",
    authors="Yang Song, Jascha Sohl-Dickstein, Diederik P. Kingma, Abhishek Kumar, Stefano Ermon, Ben Poole",
    year=2021,
    arxiv="2011.13456",
    claim=(
        "A forward SDE's score reverses it; its flow gives exact likelihoods and codes, Langevin sweeps correct coarse predictors, and a "
        "likelihood's gradient conditions."
    ),
    reproduced="yes",
    checks=(marginals, likelihoods, correctors, conditioning),
    figure=figure,
)
