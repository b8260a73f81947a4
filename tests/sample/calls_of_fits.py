"""Calls at the limits of every argument of these files: the last values that have a meaning, and the first that have none."""

from __future__ import annotations

import math

import torch
from asymmetric import FULL, MIX, THIN, VP, X, f64, wave

from sfumato.noise import EDM, FlowMatching, agm, cld
from sfumato.sample import (
    Acceleration,
    AccelerationFlow,
    Ancestral,
    BeliefError,
    Bend,
    Conjugate,
    Exponential,
    LinearDDIM,
    LinearEuler,
    Linearisation,
    Program,
    Row,
    Sampler,
    Singlestep,
    Splitting,
    Starts,
    Statistics,
    StochasticSplitting,
    Trajectory,
    Warp,
    agreement,
    aligned,
    cheapest_paths,
    custom,
    ddim,
    distil,
    dpm_solver_v3,
    fit_program,
    fit_rows,
    improved_integration,
    jump_costs,
    karras,
    measure_statistics,
    measured_order,
    path_divergence,
    published,
    reference_times,
    refine_start,
    run,
    select_start,
    strong_error,
    subdivide,
    tangent,
    teach,
    uniform_log_snr,
    uniform_time,
    with_free_node,
)
from sfumato.sample.fits.bespoke import velocity_weights
from sfumato.sample.judges.consistency import probability_flow

BELIEF, OPEN, INF, NAN = MIX.denoiser(VP), (0.9, 0.5, 0.2), math.inf, math.nan
ZEROS, ONES = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
EDMS, NEAR = EDM(20.0), 1e-9
PATH = Trajectory(VP, OPEN, tuple(wave(3, 2, 3, size=1 + t) for t in OPEN))
STARTS = Starts.prior(VP, (2, 3), 3, 1, time=0.9)
CURVES = (torch.linspace(-1, 2, 4, dtype=torch.float64), *[torch.zeros(4, 1, dtype=torch.float64)] * 3)


def warp(tau=(0.0, 0.4, 1.0), scale=(1.0, 2.0, 1.0), tau_rate=(1.0, 1.0), scale_rate=(0.0, 0.0), stages=1):
    return Warp(stages, *(f64(*v) for v in (tau, scale, tau_rate, scale_rate)))


def spectral():
    return Exponential(Linearisation.gaussian(THIN), 2).compile(VP, OPEN)


# file: calls that have a meaning, calls that have none
CALLS = {
    "fits/bespoke.py": (
        [
            lambda: warp(),
            lambda: Warp.of(1, 1),
            lambda: warp(tau=(5e-10, 0.4, 1.0)),
            lambda: warp(stages=2),
            lambda: velocity_weights(VP, f64(0.1)),
        ],
        [
            lambda: warp(stages=0),
            lambda: warp(stages=3),
            lambda: warp(stages=2, tau=(0, 0.2, 0.4, 1.0), scale=(1.0,) * 4, tau_rate=(1.0,) * 3, scale_rate=(0.0,) * 3),
            lambda: Warp.of(0),
            lambda: warp(tau=(2e-9, 0.4, 1.0)),
            lambda: warp(tau=(0.0, 0.4, 1 + 2e-9)),
            lambda: warp(tau=(0.0, 0.0, 1.0)),
            lambda: warp(scale=(1.0, 0.0, 1.0)),
            lambda: warp(tau_rate=(1.0, 0.0)),
            lambda: warp(scale_rate=(0.0,)),
            lambda: warp(scale=(1.0, 1.0)),
            lambda: velocity_weights(VP, f64(0.1, 0.0)),
        ],
    ),
    "fits/boundary_fit.py": (
        [
            lambda: agreement(wave(2, 2)),
            lambda: select_start(STARTS, X[:1], lambda x, i: x, frozenset({(1, 0)})),
            lambda: refine_start(X[0], X[1:2], lambda x, i: x, iterations=1),
        ],
        [
            lambda: agreement(wave(1, 2)),
            lambda: agreement(wave(2, 1)),
            lambda: select_start(STARTS, X[:0], lambda x, i: x, frozenset()),
            lambda: select_start(STARTS, X[:2], lambda x, i: x, frozenset({(1, 0)})),
            lambda: refine_start(X[0], X[1:2], lambda x, i: x, iterations=0),
            lambda: refine_start(X[0], X[1:2], lambda x, i: x.detach()),
            lambda: select_start(STARTS, X[:1], lambda x, i: x * NAN, frozenset({(1, 0)})),
        ],
    ),
    "fits/calibration.py": (
        [lambda: subdivide(VP, OPEN, 1), lambda: teach(BELIEF.denoise, ddim(), STARTS, OPEN, 1)],
        [
            lambda: subdivide(VP, OPEN, 0),
            lambda: teach(BELIEF.denoise, ddim(), STARTS, OPEN[1:]),
            lambda: teach(BELIEF.denoise, Ancestral(), STARTS, OPEN),
        ],
    ),
    "fits/distilled.py": (
        [lambda: distil(BELIEF.denoise, ddim(), STARTS, OPEN, parts=1, ridge=0.0)],
        [
            lambda: distil(BELIEF.denoise, ddim(), STARTS, OPEN, from_start=True),
            lambda: distil(BELIEF.denoise, ddim(), STARTS, OPEN, teacher=PATH),
            lambda: distil(BELIEF.denoise, ddim(), STARTS, (0.9, 0.5, 0.2, 0.0), prediction="noise"),
            lambda: distil(BELIEF.denoise, ddim(), STARTS, OPEN, ridge=-NEAR),
        ],
    ),
    "fits/fitted.py": (
        [
            lambda: fit_program(BELIEF.denoise, PATH, (0, 1), THIN, history=1, ridge=0.0),
            lambda: fit_program(BELIEF.denoise, PATH, (1,), FULL),
        ],
        [
            lambda: fit_program(BELIEF.denoise, PATH, (), THIN),
            lambda: fit_program(BELIEF.denoise, PATH, (0, 0), THIN),
            lambda: fit_program(BELIEF.denoise, PATH, (-1, 1), THIN),
            lambda: fit_program(BELIEF.denoise, PATH, (0, 2), THIN),
            lambda: fit_program(BELIEF.denoise, PATH, (0, 1), THIN, history=0),
            lambda: fit_program(BELIEF.denoise, PATH, (0, 1), THIN, ridge=-NEAR),
            lambda: fit_program(lambda x, t: x * NAN, PATH, (0, 1), THIN),
        ],
    ),
    "fits/improved_integration.py": (
        [lambda: improved_integration(BELIEF.denoise, ddim(), STARTS, OPEN, history=0, parts=1)],
        [
            lambda: improved_integration(BELIEF.denoise, ddim(), STARTS, OPEN, history=-1),
            lambda: improved_integration(BELIEF.denoise, ddim(), STARTS, OPEN[1:]),
            lambda: improved_integration(BELIEF.denoise, Singlestep(3), STARTS, OPEN, "stages"),
        ],
    ),
    "fits/row_fit.py": (
        [lambda: fit_rows(ddim().compile(VP, OPEN), BELIEF.denoise, STARTS, {1: [Row({0: ONES})] * 17}, lambda i, s: X, 0.0)],
        [
            lambda: fit_rows(ddim().compile(VP, OPEN), BELIEF.denoise, STARTS, {1: [Row({0: ONES})] * 18}, lambda i, s: X),
            lambda: fit_rows(spectral(), BELIEF.denoise, STARTS, {}, lambda i, s: X),
            lambda: fit_rows(Ancestral().compile(VP, OPEN), BELIEF.denoise, STARTS, {}, lambda i, s: X),
            lambda: fit_rows(ddim().compile(VP, OPEN), BELIEF.denoise, STARTS, {1: [Row({0: ONES})]}, lambda i, s: X, -NEAR),
            lambda: fit_rows(ddim().compile(VP, OPEN), BELIEF.denoise, STARTS, {1: [Row({0: ONES})]}, lambda i, s: X * NAN),
        ],
    ),
    "fits/reference.py": ([lambda: reference_times(VP, 4)], [lambda: reference_times(VP, 3)]),
    "fits/statistics.py": (
        [lambda: Statistics(*CURVES), lambda: measure_statistics(BELIEF, X[:2], (-1.0, 0.0, 1.0, 2.0), 1, probes=1)],
        [
            lambda: Statistics(*(v[:3] for v in CURVES)),
            lambda: Statistics(0 * CURVES[0], *CURVES[1:]),
            lambda: Statistics(*CURVES[:3], INF * torch.ones(4, 1, dtype=torch.float64)),
            lambda: Statistics(*CURVES[:3], CURVES[3].T),
            lambda: Statistics(*CURVES, THIN),
            lambda: measure_statistics(BELIEF, X[:1], (-1.0, 0.0, 1.0, 2.0), 1),
            lambda: measure_statistics(BELIEF, X[:2], (-1.0, 0.0, 1.0, 2.0), 1, probes=0),
        ],
    ),
    "fits/statistics_solver.py": (
        [lambda: dpm_solver_v3(Statistics(*CURVES), 1), lambda: dpm_solver_v3(Statistics(*CURVES), 3)],
        [
            lambda: dpm_solver_v3(Statistics(*CURVES), 0),
            lambda: dpm_solver_v3(Statistics(*CURVES), 4),
            lambda: dpm_solver_v3(Statistics(CURVES[0], CURVES[1], CURVES[2] + 300, CURVES[3])),
        ],
    ),
    "judges/consistency.py": (
        [
            lambda: measured_order(lambda n: ddim().compile(VP, uniform_time(n, 0.9, 0.1)), FULL, (3, 4, 5), n=2),
            lambda: probability_flow(BELIEF, X, 0.5, 0.4, 1e-3),
        ],
        [
            lambda: measured_order(lambda n: ddim().compile(VP, uniform_time(n, 0.9, 0.1 / n)), FULL, (3, 4, 5), n=2),
            lambda: measured_order(lambda n: Ancestral().compile(VP, uniform_time(n, 0.9, 0.1)), FULL, (3, 4, 5), n=2),
            lambda: probability_flow(BELIEF, X, 0.5, 0.0),
            lambda: probability_flow(MIX.denoiser(FlowMatching()), X, 1.0, 0.5),
        ],
    ),
    "judges/path_divergence.py": (
        [
            lambda: BeliefError((1.0, 2.0), (1.0, 1.0)),
            lambda: path_divergence(BELIEF, X, (2.0, 1.0)),
            lambda: BeliefError((1.0, 2.0), (1.0, 2.0)).bound()((2.0, 1.0)),
        ],
        [
            lambda: BeliefError((1.0,), (1.0,)),
            lambda: BeliefError((1.0, 2.0), (1.0,)),
            lambda: BeliefError((0.0, 2.0), (1.0, 1.0)),
            lambda: BeliefError((1.0, 1.0), (1.0, 1.0)),
            lambda: BeliefError((1.0, 2.0), (0.0, 1.0)),
            lambda: BeliefError((1.0, 2.0), (1.1, 1.0)),
            lambda: path_divergence(BELIEF, X, (2.0, 1.0), order=0),
            lambda: path_divergence(BELIEF, X, (2.0,)),
            lambda: path_divergence(BELIEF, X, (2.0, 2.0)),
            lambda: path_divergence(BELIEF, X, (2.0, 0.0)),
            lambda: path_divergence(BELIEF, X, (INF, 1.0)),
            lambda: BeliefError((1.0, 2.0), (1.0, 2.0)).bound()((2.001, 1.0)),
            lambda: BeliefError((1.0, 2.0), (1.0, 2.0)).bound()((2.0, 0.999)),
        ],
    ),
    "judges/strong_error.py": (
        [],
        [
            lambda: strong_error(ddim().compile(VP, OPEN), ddim().compile(VP, OPEN), THIN, 1.0),
            lambda: strong_error(ddim().compile(VP, OPEN), ddim().compile(VP, (0.9, 0.2)), THIN, 1.0),
        ],
    ),
    "linear/acceleration.py": (
        [lambda: Acceleration(agm(), 1.0), lambda: AccelerationFlow(1), lambda: AccelerationFlow(3)],
        [
            lambda: Acceleration(agm(), -NEAR),
            lambda: Acceleration(agm(), 1 + NEAR),
            lambda: Acceleration(cld()),
            lambda: AccelerationFlow(0),
            lambda: AccelerationFlow(4),
        ],
    ),
    "linear/conjugate.py": (
        [lambda: Bend(-1.0), lambda: Conjugate(nodes=1), lambda: Conjugate(nodes=4)],
        [lambda: Bend(INF), lambda: Bend(NAN), lambda: Conjugate(nodes=0), lambda: Conjugate(nodes=5)],
    ),
    "linear/linear_solvers.py": (
        [lambda: LinearDDIM(1), lambda: LinearDDIM(4), lambda: LinearEuler(0.0)],
        [lambda: LinearDDIM(0), lambda: LinearDDIM(5), lambda: LinearEuler(-NEAR), lambda: LinearEuler(INF)],
    ),
    "linear/splitting.py": (
        [lambda: Splitting("NSE"), lambda: StochasticSplitting("OBA", position_noise=0.0)],
        [
            lambda: StochasticSplitting("OB"),
            lambda: StochasticSplitting("OABC"),
            lambda: StochasticSplitting(position_noise=-NEAR),
            lambda: StochasticSplitting(position_noise=INF),
        ],
    ),
    "program.py": ([lambda: Program("two", VP, (1.0, 0.0), (Row(), Row({0: ONES})))], [lambda: Program("one", VP, (1.0,), (Row(),))]),
    "run.py": (
        [lambda: run(ddim().compile(VP, OPEN), BELIEF.denoise, X)],
        [lambda: run(Ancestral().compile(VP, OPEN), BELIEF.denoise, X), lambda: run(spectral(), BELIEF.denoise, X[:, :1])],
    ),
    "sampler.py": (
        [lambda: Sampler(BELIEF, ddim().compile(VP, OPEN), (2, 3)).sample(1, chunk=1)],
        [
            lambda: Sampler(BELIEF, ddim().compile(VP, OPEN), (2, 3)).sample(0),
            lambda: Sampler(BELIEF, ddim().compile(VP, OPEN), (2, 3)).sample(1, chunk=0),
            lambda: Sampler(BELIEF, ddim().compile(VP, OPEN), (2, 3)).sample(2, start=X),
            lambda: Sampler(BELIEF, ddim().compile(VP, OPEN), (2, 3)).sample(3, start=X[:, :1]),
            lambda: Sampler(BELIEF, ddim().compile(VP, OPEN), (2, 3)).sample(2, condition=X),
        ],
    ),
    "times/aligned_schedule.py": (
        [
            lambda: tangent(EDMS, 1, NEAR, 2.0, 1.0),
            lambda: aligned(EDMS, 1, sum, 2.0, 1.0, candidates=3, sweeps=0),
            lambda: published(EDMS, "stable-diffusion-xl", 2),
        ],
        [
            lambda: tangent(EDMS, 0, 1.0),
            lambda: tangent(EDMS, 1, 0.0),
            lambda: tangent(EDMS, 1, 1.0, 1.0, 1.0),
            lambda: tangent(EDMS, 1, 1.0, 1.0, 0.0),
            lambda: tangent(FlowMatching(), 1, 1.0),
            lambda: aligned(EDMS, 0, sum, 2.0, 1.0),
            lambda: aligned(EDMS, 1, sum, 2.0, 1.0, candidates=2),
            lambda: aligned(EDMS, 1, sum, 2.0, 1.0, sweeps=-1),
            lambda: aligned(EDMS, 1, sum, 1.0, 1.0),
            lambda: aligned(EDMS, 1, sum, 1.0, 0.0),
            lambda: aligned(FlowMatching(), 1, sum, INF, 1.0),
            lambda: published(EDMS, "stable-diffusion-xl", 1),
            lambda: published(EDMS, "stable"),
        ],
    ),
    "times/dynamic_schedule.py": (
        [
            lambda: cheapest_paths(torch.ones(2, 2, dtype=torch.float64), 1, NEAR),
            lambda: cheapest_paths(torch.ones(4, 4, dtype=torch.float64), 3),
            lambda: jump_costs(BELIEF.denoise, PATH),
        ],
        [
            lambda: cheapest_paths(torch.ones(4, 4, dtype=torch.float64), 0),
            lambda: cheapest_paths(torch.ones(4, 4, dtype=torch.float64), 4),
            lambda: cheapest_paths(torch.ones(4, 4, dtype=torch.float64), 2, 0.0),
            lambda: cheapest_paths(torch.ones(4, 4, dtype=torch.float64), 2, INF),
            lambda: cheapest_paths(NAN * torch.ones(4, 4, dtype=torch.float64), 2),
            lambda: cheapest_paths(torch.ones(1, 1, dtype=torch.float64), 1),
            lambda: jump_costs(BELIEF.denoise, Trajectory(FlowMatching(), (1.0, 0.5), PATH.states[:2])),
            lambda: with_free_node(BELIEF.denoise, PATH, (0.9, 0.5), ddim()),
            lambda: with_free_node(BELIEF.denoise, PATH, (0.9, 0.5, 0.2), Exponential(teleport=True)),
            lambda: with_free_node(BELIEF.denoise, PATH, (0.9, 0.2), ddim()),
        ],
    ),
    "times/schedules.py": (
        [
            lambda: custom((1.0, 0.0)),
            lambda: uniform_time(1),
            lambda: uniform_time(1, 0.2, 0.0),
            lambda: uniform_log_snr(VP, 1),
            lambda: uniform_log_snr(FlowMatching(), 2),
            lambda: karras(EDMS, 1, ratio_max=1.0, ratio_min=NEAR),
        ],
        [
            lambda: custom((1.0,)),
            lambda: custom((1 + NEAR, 0.5)),
            lambda: custom((0.5, -NEAR)),
            lambda: custom((0.5, 0.5)),
            lambda: uniform_time(0),
            lambda: uniform_time(1, 0.2, 0.2),
            lambda: uniform_time(1, 1 + NEAR),
            lambda: uniform_time(1, 0.2, -NEAR),
            lambda: uniform_log_snr(FlowMatching(), 1),
            lambda: karras(EDMS, 2, ratio_max=1.0, ratio_min=1.0),
            lambda: karras(EDMS, 2, ratio_min=0.0),
            lambda: karras(EDMS, 0),
        ],
    ),
}
