"""Calls at the limits of every argument of these files: the last values that have a meaning, and the first that have none."""

from __future__ import annotations

import math

import torch
from asymmetric import MIX, VP, X, f64, wave

from sfumato.noise import EDM, BetaTable, Blend, FlowMatching
from sfumato.sample import (
    Adaptive,
    Ancestral,
    BrownianPath,
    Churned,
    DenoisingMCMC,
    Encoding,
    ExactLevels,
    Interval,
    LearnedVariance,
    NormLangevin,
    PredictorCorrector,
    Restart,
    Restoration,
    ReverseChain,
    ReverseSDE,
    ScaleWise,
    Stream,
    Thresholded,
    Trajectory,
    adaptive_dpm_solver,
    adaptive_sde,
    adjoint,
    blend,
    cold_sample,
    cycle_encode,
    ddim,
    flow,
    log_likelihood,
)
from sfumato.sample.continuous.adaptive_ode import check_ends, solve
from sfumato.sample.steps.denoising_mcmc import descend, log_levels
from sfumato.sample.steps.langevin import sweeps
from sfumato.sample.steps.restoration import restoration_step

BELIEF, OPEN, INF, NAN = MIX.denoiser(VP), (0.9, 0.5, 0.2), math.inf, math.nan
ZEROS, ONES = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
EDMS, NEAR = EDM(20.0), 1e-9
LEVELS = log_levels(VP, 3, 0.1, 2.0)
EXACT = ExactLevels(MIX, VP, LEVELS)
PATH = Trajectory(VP, OPEN, tuple(wave(3, 2, 3, size=1 + t) for t in OPEN))


def over_time(t, h, window, g=1.0):
    return restoration_step(X, t, h, window, lambda x, t: -x, lambda x, t: -x, lambda t: g)


def stream():
    return Stream.of(1, X)


def chains(times=LEVELS, logits=EXACT, **how):
    return DenoisingMCMC(BELIEF, times, logits, **how)


def dpm(**how):
    return adaptive_dpm_solver(BELIEF, X, 0.5, 0.4, **{"rtol": 5.0, "atol": 5.0} | how)


def rate(u, y):
    return -y


# file: calls that have a meaning, calls that have none
CALLS = {
    "continuous/adaptive_exponential.py": (
        [lambda: dpm(order=2), lambda: dpm(rtol=0.0), lambda: dpm(atol=0.0), lambda: dpm(first=NEAR, rtol=1e9, atol=1e9)],
        [
            lambda: dpm(order=1),
            lambda: dpm(order=4),
            lambda: dpm(rtol=0.0, atol=0.0),
            lambda: dpm(rtol=-NEAR),
            lambda: dpm(atol=-NEAR),
            lambda: dpm(first=0.0),
            lambda: adaptive_dpm_solver(BELIEF, X, 0.5, 0.5),
            lambda: adaptive_dpm_solver(BELIEF, X, 0.5, 0.0),
            lambda: adaptive_dpm_solver(MIX.denoiser(FlowMatching()), X, 1.0, 0.5),
        ],
    ),
    "continuous/adaptive_ode.py": (
        [
            lambda: solve(rate, wave(2, 2), 0.0, 1.0, 0.999),
            lambda: solve(rate, wave(2, 2), 0.0, 1e-3, 1.2e-14),
            lambda: solve(rate, wave(2, 2), 0.0, 1.0, 0.1, 1),
            lambda: check_ends(NEAR, 1.0),
        ],
        [
            lambda: solve(rate, wave(2, 2), 0.0, 1.0, 1.0),
            lambda: solve(rate, wave(2, 2), 0.0, 1.0, 1e-14),
            lambda: solve(rate, wave(2, 2), 1.0, 1.0),
            lambda: solve(rate, wave(2, 2), 0.0, 1.0, 0.1, 0),
            lambda: check_ends(0.0, 1.0),
            lambda: check_ends(1.0, 0.0),
            lambda: check_ends(0.5, 0.5),
            lambda: check_ends(0.5, 1.1),
            lambda: flow(BELIEF, X, 0.5, 0.0),
        ],
    ),
    "continuous/adjoint.py": (
        [lambda: adjoint(BELIEF.denoise, PATH, X, order=1), lambda: adjoint(BELIEF.denoise, PATH, X, order=2)],
        [
            lambda: adjoint(BELIEF.denoise, PATH, X[:2]),
            lambda: adjoint(BELIEF.denoise, PATH, X, parameters=(ONES,)),
            lambda: adjoint(BELIEF.denoise, Trajectory(VP, (0.5, 0.0), PATH.states[:2]), X),
        ],
    ),
    "continuous/likelihood.py": (
        [lambda: log_likelihood(BELIEF, X, 0.9, divergence="rademacher", tolerance=0.1).bits_per_dimension(NEAR)],
        [
            lambda: log_likelihood(BELIEF, X, 0.9, divergence="rademacher", probes=0),
            lambda: log_likelihood(BELIEF, X, 0.0),
            lambda: log_likelihood(BELIEF, X, 1.0),
            lambda: log_likelihood(BELIEF, X, 0.9, divergence="rademacher", tolerance=0.1).bits_per_dimension(0.0),
        ],
    ),
    "steps/adaptive_sde.py": (
        [
            lambda: Adaptive(relative=0.0),
            lambda: Adaptive(absolute=0.0),
            lambda: Adaptive(safety=1 - NEAR, exponent=NEAR, first=NEAR),
            lambda: adaptive_sde(BELIEF, X, stream(), Adaptive(9.0, 9.0, first=0.3), start=1.0, end=0.8, max_attempts=1),
        ],
        [
            lambda: Adaptive(-NEAR),
            lambda: Adaptive(absolute=-NEAR),
            lambda: Adaptive(0.0, 0.0),
            lambda: Adaptive(INF),
            lambda: Adaptive(safety=0.0),
            lambda: Adaptive(safety=1.0),
            lambda: Adaptive(exponent=0.0),
            lambda: Adaptive(first=0.0),
            lambda: adaptive_sde(BELIEF, X, stream(), start=0.5, end=0.5),
            lambda: adaptive_sde(BELIEF, X, stream(), end=0.0),
            lambda: adaptive_sde(BELIEF, X, stream(), start=1.01),
            lambda: adaptive_sde(BELIEF, X, stream(), max_attempts=0),
        ],
    ),
    "steps/blending.py": (
        [lambda: blend(lambda x, a: x, wave(2, 2), (0.0, 1.0)), lambda: blend(lambda x, a: x, wave(2, 2), (NEAR, 1.0), predicts="source")],
        [
            lambda: blend(lambda x, a: x, wave(2, 2), (1.0,)),
            lambda: blend(lambda x, a: x, wave(2, 2), (0.0, 0.0, 1.0)),
            lambda: blend(lambda x, a: x, wave(2, 2), (0.0, 0.9)),
            lambda: blend(lambda x, a: x, wave(2, 2), (0.1, 1.0)),
            lambda: blend(lambda x, a: x, wave(2, 2), (0.0, 1.0), predicts="source"),
            lambda: blend(lambda x, a: x, wave(2, 2), (0.0, 1.0), method="rk5"),
            lambda: blend(lambda x, a: x, wave(2, 2), (0.0, 1.0), predicts="target", method="heun"),
        ],
    ),
    "steps/brownian.py": (
        [lambda: BrownianPath(stream())(0.0)],
        [lambda: BrownianPath(stream())(-NEAR), lambda: BrownianPath(stream())(INF)],
    ),
    "steps/cold.py": (
        [lambda: cold_sample(lambda x, s: x, Blend(X[0], (1, 0.5), (0, 0.5)), X, 1)],
        [
            lambda: cold_sample(lambda x, s: x, Blend(X[0], (1, 0.5), (0, 0.5)), X, 0),
            lambda: cold_sample(lambda x, s: x, Blend(X[0], (1, 0.5), (0, 0.5)), X, 2),
        ],
    ),
    "steps/cycle.py": (
        [lambda: cycle_encode(Ancestral().compile(VP, OPEN), BELIEF.denoise, X)],
        [
            lambda: cycle_encode(ddim().compile(VP, OPEN), BELIEF.denoise, X),
            lambda: Encoding(X, {}).draw(1),
            lambda: cycle_encode(Ancestral().compile(VP, (0.5, 0.0)), BELIEF.denoise, X),
        ],
    ),
    "steps/denoising_mcmc.py": (
        [
            lambda: log_levels(VP, 2, 0.1, 1.0),
            lambda: chains(LEVELS[:2]),
            lambda: chains(variance=0.0, moves=1),
            lambda: ExactLevels(MIX, VP, LEVELS, (1.0, 2.0, 3.0)),
            lambda: chains().start(X, torch.tensor([0, 2, 1])),
            lambda: chains((0.5, 1.0)),
            lambda: descend(BELIEF, X, f64(0.1, 0.2, 0.3), 0.1, stream(), 2),
        ],
        [
            lambda: log_levels(VP, 1, 0.1, 1.0),
            lambda: log_levels(VP, 2, 0.0, 1.0),
            lambda: log_levels(VP, 2, 1.0, 1.0),
            lambda: chains(LEVELS[:1]),
            lambda: chains((0.0, 0.5)),
            lambda: chains((0.5, 0.5)),
            lambda: chains((0.5, 1.01)),
            lambda: chains(kappa=0.0),
            lambda: chains(variance=-NEAR),
            lambda: chains(eta=0.0),
            lambda: chains(moves=0),
            lambda: chains(logits=lambda x: x, adjusted=True),
            lambda: ExactLevels(MIX, VP, LEVELS, (1.0, 2.0)),
            lambda: ExactLevels(MIX, VP, LEVELS, (1.0, 0.0, 1.0)),
            lambda: ExactLevels(MIX, VP, LEVELS, (1.0, INF, 1.0)),
            lambda: chains().start(X, torch.tensor([0, 3, 1])),
            lambda: chains().start(X, torch.tensor([0, -1, 1])),
            lambda: chains(LEVELS[:2]).start(X, torch.tensor([0, 1, 1])),
            lambda: next(chains().blocks(chains().start(X, torch.tensor([0, 2, 1])), stream(), 0)),
            lambda: descend(BELIEF, X, f64(0.1, 0.2, 0.3), 0.1, stream(), 1),
            lambda: descend(BELIEF, X, f64(0.1, 0.2, 0.3), 0.0, stream()),
            lambda: descend(BELIEF, X, f64(0.1, 0.2, 0.3), 0.101, stream()),
        ],
    ),
    "steps/langevin.py": (
        [lambda: sweeps(VP, 0.1, NEAR, 1), lambda: PredictorCorrector(sweeps=1, ratio=1 - NEAR), lambda: NormLangevin(NEAR, 1.0)],
        [
            lambda: sweeps(VP, 0.1, 0.0, 1),
            lambda: sweeps(VP, 0.1, 0.1, 0),
            lambda: sweeps(VP, 0.0, 0.1, 1),
            lambda: PredictorCorrector(sweeps=0),
            lambda: PredictorCorrector(ratio=0.0),
            lambda: PredictorCorrector(ratio=1.0),
            lambda: NormLangevin(0.0),
            lambda: NormLangevin(1.0),
            lambda: NormLangevin(kept=0.0),
            lambda: NormLangevin(kept=1 + NEAR),
        ],
    ),
    "steps/restart.py": (
        [
            lambda: Interval(NEAR, 1.0, 2, 0),
            lambda: Restart((), noise=0.0),
            lambda: Churned(lambda *a: a, 0.0, 0.0, 0.0, 0.0),
            lambda: Churned(lambda *a: a, 0.1, 1.0, 1.0),
        ],
        [
            lambda: Interval(0.0, 1.0),
            lambda: Interval(1.0, 1.0),
            lambda: Interval(1.0, INF),
            lambda: Interval(1.0, 2.0, 1),
            lambda: Interval(1.0, 2.0, 2, -1),
            lambda: Restart((), noise=-NEAR),
            lambda: Restart((), noise=NAN),
            lambda: Churned(lambda *a: a, -NEAR),
            lambda: Churned(lambda *a: a, 0.1, noise=-NEAR),
            lambda: Churned(lambda *a: a, 0.1, -NEAR),
            lambda: Churned(lambda *a: a, 0.1, 1.0, 0.9),
            lambda: Restart((Interval(0.3, float(VP.ratio(0.5))),)).snapped(VP, (0.9, 0.5)),
        ],
    ),
    "steps/restoration.py": (
        [lambda: Restoration(1), lambda: over_time(0.5, 0.1, 1), lambda: over_time(0.5, 0.1, 5), lambda: over_time(0.5, NEAR, 1, NEAR)],
        [
            lambda: Restoration(1 - NEAR),
            lambda: Restoration(INF),
            lambda: Restoration("half"),
            lambda: over_time(0.5, 0.0, 1),
            lambda: over_time(0.5, 0.1, 1 - NEAR),
            lambda: over_time(0.5, 0.1, 5 + 1e-6),
            lambda: over_time(0.5, 0.1, 1, 0.0),
            lambda: over_time(0.5, 0.1, 1, INF),
            lambda: over_time(0.5, 0.1, 1, f64(1.0)),
            lambda: Restoration(1.5).compile(FlowMatching(), (1.0, 0.5)),
        ],
    ),
    "steps/reverse_chain.py": (
        [
            lambda: ReverseChain(VP, (1.0, 0.5, 0.0)),
            lambda: ReverseChain.respaced(BetaTable((0.1,) * 4), 2),
            lambda: ReverseChain.respaced(BetaTable((0.1,) * 4), 4),
        ],
        [
            lambda: ReverseChain(VP, (1.0, 0.0)),
            lambda: ReverseChain(VP, (1.0, 0.5, 0.1)),
            lambda: ReverseChain.respaced(BetaTable((0.1,) * 4), 1),
            lambda: ReverseChain.respaced(BetaTable((0.1,) * 4), 5),
            lambda: LearnedVariance((0.5,)).compile(VP, (1.0, 0.5, 0.0)),
            lambda: ReverseChain(VP, (1.0, 0.5, 0.0)).best_log_variance(ONES),
        ],
    ),
    "steps/reverse_sde.py": (
        [lambda: ReverseSDE("diffusion", flow=True), lambda: ReverseSDE("large").compile(VP, OPEN)],
        [
            lambda: ReverseSDE("large", flow=True),
            lambda: ReverseSDE("large").compile(FlowMatching(), (1.0, 0.5)),
            lambda: ReverseSDE().compile(FlowMatching(), (1.0, 0.5)),
        ],
    ),
    "steps/scale_wise.py": (
        [lambda: ScaleWise(VP, (1.0, 0.5, 0.0), (1, 1))],
        [
            lambda: ScaleWise(VP, (1.0, 0.5, 0.1), (1, 1)),
            lambda: ScaleWise(VP, (1.0, 0.5, 0.0), (2, 1)),
            lambda: ScaleWise(VP, (1.0, 0.5, 0.0), (0, 1)),
            lambda: ScaleWise(VP, (1.0, 0.5, 0.0), (1,)),
            lambda: ScaleWise(VP, (1.0, 0.5, 0.0), (2, 4)).pair(0, wave(1, 1, 2, 2), wave(1, 1, 2, 2)),
        ],
    ),
    "steps/thresholding.py": (
        [lambda: Thresholded(BELIEF, 1.0, NEAR).denoise(X, 0.5)],
        [
            lambda: Thresholded(BELIEF, 0.0),
            lambda: Thresholded(BELIEF, 1 + NEAR),
            lambda: Thresholded(BELIEF, bound=0.0),
            lambda: Thresholded(BELIEF, bound=INF),
        ],
    ),
}
