"""Calls at the limits of every argument of these files: the last values that have a meaning, and the first that have none."""

from __future__ import annotations

import math

import torch
from asymmetric import FULL, MIX, THIN, VP

from sfumato.noise import EDM
from sfumato.sample import (
    ERSDE,
    Ancestral,
    Band,
    Exponential,
    Linearisation,
    Momentum,
    Program,
    Row,
    RungeKutta,
    SASolver,
    Singlestep,
    Teleported,
    chain,
    ddim,
    deis,
    dpm_solver,
    forecast_skip,
    ipndm,
    teleport,
    unipc,
)
from sfumato.sample.compilers.er_sde import NoiseScale
from sfumato.sample.compilers.extrapolation import Extrapolation
from sfumato.sample.compilers.maximum_likelihood import MaximumLikelihood, path_log_likelihood, published_parameters
from sfumato.sample.compilers.runge_kutta import Tableau
from sfumato.sample.compilers.teleport import steps_above
from sfumato.sample.judges.skip import SkipForecast

BELIEF, OPEN, INF, NAN = MIX.denoiser(VP), (0.9, 0.5, 0.2), math.inf, math.nan
ZEROS, ONES = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
EDMS, NEAR = EDM(20.0), 1e-9
FORECAST = SkipForecast(THIN, 0.02, 2.0, (4.0, 2.0, 1.0), (0.02, 0.03, 0.5), (0.1, 0.2, 0.3), 4, 2)


def spectral():
    return Exponential(Linearisation.gaussian(THIN), 2).compile(VP, OPEN)


# file: calls that have a meaning, calls that have none
CALLS = {
    "compilers/ancestral.py": (
        [lambda: Ancestral(0.0), lambda: Ancestral(1.0), lambda: Ancestral(0.5, 1), lambda: Ancestral(0.5, 2)],
        [lambda: Ancestral(-NEAR), lambda: Ancestral(1 + NEAR), lambda: Ancestral(1.0, 0), lambda: Ancestral(1.0, 3)],
    ),
    "compilers/chain.py": (
        [lambda: chain([ddim().compile(VP, (0.9, 0.5)), ddim().compile(VP, (0.5, 0.1))])],
        [
            lambda: chain([]),
            lambda: chain([ddim().compile(VP, (0.9, 0.5)), ddim().compile(VP, (0.4, 0.1))]),
            lambda: chain([ddim().compile(VP, (0.9, 0.5)), ddim().compile(EDMS, (0.5, 0.1))]),
            lambda: chain([spectral(), ddim().compile(VP, (0.2, 0.1))]),
        ],
    ),
    "compilers/er_sde.py": (
        [
            lambda: ERSDE(1),
            lambda: ERSDE(3, published=True),
            lambda: ERSDE(2, rectangles=1),
            lambda: NoiseScale("flat", torch.ones_like).log_kept(2.0, 1.0),
        ],
        [
            lambda: ERSDE(0),
            lambda: ERSDE(4),
            lambda: ERSDE(2, published=True),
            lambda: ERSDE(rectangles=-1),
            lambda: NoiseScale("falls", lambda k: k**-1e-6).log_kept(2.0, 1.0),
            lambda: NoiseScale("none", lambda k: k * NAN).log_kept(2.0, 1.0),
        ],
    ),
    "compilers/exponential.py": (
        [
            lambda: Exponential(steps=1),
            lambda: Exponential(steps=6),
            lambda: Exponential(steps=5, start="exact"),
            lambda: Exponential(steps=4, corrector=True, start="exact"),
            lambda: Exponential(teleport=True).compile(VP, OPEN),
            lambda: Exponential(evaluation="pece", corrector=True),
        ],
        [
            lambda: Exponential(steps=0),
            lambda: Exponential(steps=7),
            lambda: Exponential(steps=6, start="exact"),
            lambda: Exponential(steps=5, corrector=True, start="exact"),
            lambda: Exponential(teleport=True).compile(VP, OPEN[:2]),
            lambda: Exponential(evaluation="pece"),
            lambda: Exponential(teleport=True, start="exact"),
        ],
    ),
    "compilers/extrapolation.py": (
        [lambda: Extrapolation.of("data", "slope"), lambda: Extrapolation.of("noise", "adams").shares(0.0, 0.5, [-1.0, 0.0], (1.0, 1.0))],
        [lambda: Extrapolation.of("noise", "adams").shares(0.0, 0.5, [0.1 * i for i in range(6)], (1.0, 1.0))],
    ),
    "compilers/linearisation.py": (
        [
            lambda: Linearisation(ZEROS, 0.0),
            lambda: Linearisation(ONES, 1.0),
            lambda: Linearisation.noise().gain(0.1, 1.0),
            lambda: Linearisation.data().weights(0.0, INF, [0.0], (1.0, 0.0)),
            lambda: Linearisation.data().gain(0.0, 1.0),
        ],
        [
            lambda: Linearisation(ZEROS, -NEAR),
            lambda: Linearisation(ONES, 1 + NEAR),
            lambda: Linearisation(-NEAR * ONES),
            lambda: Linearisation(NAN * ONES),
            lambda: Linearisation(ONES[None]),
            lambda: Linearisation.noise().gain(0.0, 1.0),
            lambda: Linearisation.isotropic(0.3, 0.0).weights(0.0, INF, [0.0], (1.0, 0.0)),
            lambda: Linearisation.data().weights(0.0, INF, [0.0, -1.0], (1.0, 0.0)),
            lambda: Linearisation.data().weights(0.0, 1.0, [0.0, -INF], (1.0, 0.1)),
        ],
    ),
    "compilers/maximum_likelihood.py": (
        [
            lambda: published_parameters(VP, 0.5, 0.4),
            lambda: MaximumLikelihood(lambda k: 0.0).compile(VP, OPEN),
            lambda: path_log_likelihood(Ancestral(1.0).compile(VP, OPEN), lambda k: 0.1, 1.0),
        ],
        [
            lambda: MaximumLikelihood(lambda k: -NEAR).compile(VP, OPEN),
            lambda: MaximumLikelihood(lambda k: INF).compile(VP, OPEN),
            lambda: path_log_likelihood(ddim().compile(VP, OPEN), lambda k: 0.1, 1.0),
            lambda: path_log_likelihood(spectral(), lambda k: 0.1, 1.0),
            lambda: path_log_likelihood(Ancestral(1.0, 2).compile(VP, OPEN), lambda k: 0.1, 1.0),
        ],
    ),
    "compilers/momentum.py": (
        [lambda: Momentum(1, 1.0), lambda: Momentum(5, NEAR), lambda: Momentum(3, 0.5, "nesterov", "data", corrector=True)],
        [
            lambda: Momentum(0),
            lambda: Momentum(6),
            lambda: Momentum(2, 0.0),
            lambda: Momentum(2, 1 + NEAR),
            lambda: Momentum(4, 0.5, "nesterov", "data"),
            lambda: Momentum(2, 0.5, "ghvb", "data"),
            lambda: Momentum(2, 0.5, "nesterov", corrector=True),
        ],
    ),
    "compilers/multistep.py": (
        [
            lambda: dpm_solver(1),
            lambda: dpm_solver(3, published=True),
            lambda: ipndm(1),
            lambda: ipndm(5),
            lambda: deis(3),
            lambda: unipc(3),
        ],
        [lambda: dpm_solver(0), lambda: dpm_solver(4), lambda: dpm_solver(2, published=True), lambda: ipndm(0), lambda: ipndm(6)],
    ),
    "compilers/runge_kutta.py": (
        [
            lambda: RungeKutta("rk4"),
            lambda: Tableau(2, (0, 1), ((), (1 + 1e-13,)), (0.5, 0.5)),
            lambda: RungeKutta("euler", "time").compile(VP, (0.5, 0.0)),
        ],
        [
            lambda: RungeKutta("rk5"),
            lambda: Tableau(2, (0, 1), ((), (1 + 1e-11,)), (0.5, 0.5)),
            lambda: Tableau(2, (0, 1), ((), (1,)), (0.5, 0.5 + 1e-11)),
            lambda: Tableau(2, (0,), ((), (1,)), (0.5, 0.5)),
            lambda: Tableau(2, (0, 1), ((), (1, 0)), (0.5, 0.5)),
            lambda: Tableau(1, (0, 1), ((), (1,)), (1,)),
            lambda: RungeKutta("heun", "time").compile(VP, (0.5, 0.0)),
        ],
    ),
    "compilers/sa_solver.py": (
        [
            lambda: Band(0.0),
            lambda: SASolver(1, 0),
            lambda: SASolver(4, 4),
            lambda: SASolver(evaluation="pece"),
            lambda: SASolver(rescaled=True),
            lambda: SASolver(tau=lambda p, t: 0.0).compile(VP, OPEN),
            lambda: SASolver(finish="renewed").compile(VP, (0.5, 0.0)),
        ],
        [
            lambda: Band(-NEAR),
            lambda: Band(INF),
            lambda: Band(1.0, 0.5, 0.5),
            lambda: SASolver(0),
            lambda: SASolver(5),
            lambda: SASolver(3, -1),
            lambda: SASolver(3, 5),
            lambda: SASolver(3, 0, evaluation="pece"),
            lambda: SASolver(prediction="noise", rescaled=True),
            lambda: SASolver(finish="renewed").compile(VP, OPEN),
            lambda: SASolver(tau=lambda p, t: -NEAR).compile(VP, OPEN),
            lambda: SASolver(tau=lambda p, t: INF).compile(VP, OPEN),
        ],
    ),
    "compilers/singlestep.py": (
        [lambda: Singlestep(2, ratios=(0.99,)), lambda: Singlestep(3, ratios=(0.01, 0.02))],
        [
            lambda: Singlestep(1),
            lambda: Singlestep(4),
            lambda: Singlestep(2, ratios=(0.0,)),
            lambda: Singlestep(2, ratios=(1.0,)),
            lambda: Singlestep(3, ratios=(0.5, 0.5)),
            lambda: Singlestep(3, ratios=(0.5,)),
            lambda: Singlestep(2, ratios=(0.2, 0.5)),
        ],
    ),
    "judges/skip.py": (
        [
            lambda: forecast_skip(MIX.denoiser(EDMS), THIN, 1 - NEAR, ratios=(9.0, 2.0, 1.0), batch=2),
            lambda: FORECAST.at(4.0),
            lambda: FORECAST.at(1.0),
        ],
        [
            lambda: forecast_skip(BELIEF, THIN, 0.0),
            lambda: forecast_skip(BELIEF, THIN, 1.0),
            lambda: forecast_skip(BELIEF, THIN, ratios=(2.0, 1.0)),
            lambda: forecast_skip(BELIEF, THIN, ratios=(3.0, 3.0, 1.0)),
            lambda: forecast_skip(BELIEF, THIN, ratios=(3.0, 2.0, 0.0)),
            lambda: FORECAST.at(4.0001),
            lambda: FORECAST.at(0.9999),
        ],
    ),
    "compilers/teleport.py": (
        [
            lambda: Teleported(ddim(), THIN, skip=1).compile(VP, OPEN),
            lambda: Teleported(ddim(), THIN, ratio=NEAR),
            lambda: teleport(ddim().compile(VP, OPEN), THIN, 0.5),
            lambda: steps_above(EDMS, OPEN, 2.0),
        ],
        [
            lambda: Teleported(ddim(), THIN),
            lambda: Teleported(ddim(), THIN, 1, 2.0),
            lambda: Teleported(ddim(), THIN, skip=0),
            lambda: Teleported(ddim(), THIN, ratio=0.0),
            lambda: Teleported(ddim(), THIN, skip=2).compile(VP, OPEN),
            lambda: teleport(ddim().compile(VP, OPEN), THIN, 0.4),
            lambda: teleport(ddim().compile(VP, OPEN), THIN, 0.9),
            lambda: teleport(ddim().compile(VP, OPEN), THIN, 0.2),
            lambda: teleport(spectral(), FULL, 0.5),
            lambda: teleport(Program("halved", VP, OPEN, (Row(), Row({0: 0.5 * ONES}), Row({1: ONES}, {1: ONES}))), THIN, 0.5),
        ],
    ),
}
