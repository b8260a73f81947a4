"""Where the bounds of arguments lie: the last value that has a meaning is taken, and the first that has none is refused."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import (
    EDM,
    BetaTable,
    Clock,
    ClockSDE,
    Cosine,
    FlowMatching,
    GridSDE,
    MomentumDecay,
    PolarTable,
    Steered,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
    blurred_cld,
    blurring,
    cld,
    cosine_table,
    damped_decay,
    flexible,
    function_space,
    heat,
    ir_sde,
    logistic,
    malda,
    mdm,
    ouve,
    pixel_times,
    process_from_dict,
    psld,
    towards,
)
from sfumato.noise.general.degradation import (
    Blend,
    Blur,
    Downsample,
    PatchReplacement,
    Snow,
    snowflakes,
)
from sfumato.noise.general.noisy_levels import NoisyLevels
from sfumato.noise.linear_family.path_bound import path_bound
from sfumato.noise.scalars.exponential_step import exponential_step
from sfumato.seeds import noise

HALF = math.pi / 2
INF = math.inf
IMAGE = torch.zeros(1, 4, 4)
CHAIN = NoisyLevels((1.0, 0.5), (0.1, 0.5))
SKEW = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
CLOCK = torch.zeros(3, dtype=torch.float64)


def still(t):
    zero = torch.zeros(*t.shape, 1, 1, 1, dtype=torch.float64)
    return zero - 1, zero[..., :0], zero + 2


def bound(nodes=4, first=0.1):
    data = torch.zeros(2, 4, dtype=torch.float64)
    return path_bound(cld(), lambda x, t: torch.zeros_like(x), data, noise(0, 2, (2, 4), dtype=torch.float64), nodes=nodes, first=first)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VariancePreserving(2.0, 2.0),
        lambda: BetaTable((1.0,)),
        lambda: BetaTable((0.5,)),
        lambda: cosine_table(1),
        lambda: PolarTable((1.0, 1.0), (HALF, 0.0)),
        lambda: PolarTable((1.0, 1.0), (HALF + 9e-13, 0.0)),
        lambda: MomentumDecay(multiplier=10.0, beta_max=20.0),
        lambda: MomentumDecay(beta_min=3.0, beta_max=3.0),
        lambda: MomentumDecay(damping=10.0),
        lambda: exponential_step(cld(), [1.0], 0.0),
        lambda: Clock(0.0, 1.0),
        lambda: Clock(1.0, 0.0),
        lambda: cld(spread=0.0),
        lambda: blurring((2, 2), 0.0),
        lambda: malda(2),
        lambda: Steered(0.5, -0.9),
        lambda: flexible(torch.eye(256).double(), torch.zeros(256, 256).double()),
        lambda: process_from_dict({"kind": "edm", "sigma_max": sys.float_info.max}),
        lambda: GridSDE(still, cells=1),
        lambda: pixel_times(torch.zeros(2), torch.ones(2)),
        lambda: mdm(EYE, SKEW + 4e-11),
        lambda: NoisyLevels((1.0, 1.0), (0.5, 0.5), (1, 1)),
        lambda: NoisyLevels((1.0, 1.0), (0.0, 0.0)),
        lambda: CHAIN.apply(IMAGE, 0, IMAGE) + CHAIN.apply(IMAGE, 1, IMAGE),
        lambda: CHAIN.step_misfit(IMAGE, IMAGE, 1),
        lambda: Blur((0, 0)),
        lambda: Downsample((1, 1)),
        lambda: PatchReplacement(IMAGE, 4),
        lambda: Blur((0, 1))(IMAGE[None], 0) + Blur((0, 1))(IMAGE[None], 1),
        lambda: Blend(IMAGE, (1, 1), (0, 1)),
        lambda: Snow(IMAGE[0], (0, 1)),
        lambda: snowflakes(4, 4, 0, streak=1),
        lambda: bound(nodes=2),
        # whatever is above 0 is positive
        lambda: (VariancePreserving(1e-3, 2e-3), SubVariancePreserving(1e-3, 2e-3), VarianceExploding(1e-3, 2e-3)),
        lambda: (EDM(1e-3), FlowMatching(1e-3), MomentumDecay(1e-3, 1e-3), damped_decay(CLOCK, 1e-3)),
        lambda: (ir_sde(1e-3, 1e-3), ouve(1e-3, 1e-3, 2e-3), Steered(1e-3), towards(torch.sin, 1e-3)),
        lambda: (heat((2, 2), 1e-3, 1e-3), blurring((2, 2), 1e-3), function_space((4,), 1e-3), blurred_cld((2, 2), blur=1e-3)),
        lambda: (cld(1e-3, 1e-3, 1e-3), psld(1e-4, 1e-3, 1e-3), mdm(EYE, SKEW, torch.tensor([1e-3, 1e-3]))),
        lambda: logistic().increment(torch.zeros(3, 2, dtype=torch.float64), CLOCK, CLOCK + 0.1, 0),
    ],
)
def test_the_last_value_that_has_a_meaning_is_taken(make):
    make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: VariancePreserving(0.0, 1.0),
        lambda: VariancePreserving(1.0, INF),
        lambda: SubVariancePreserving(INF, INF),
        lambda: Cosine(0.0),
        lambda: Cosine(1.0),
        lambda: VarianceExploding(0.0, 1.0),
        lambda: VarianceExploding(1.0, 1.0),
        lambda: VarianceExploding(1.0, INF),
        lambda: EDM(0.0),
        lambda: EDM(INF),
        lambda: FlowMatching(0.0),
        lambda: FlowMatching(INF),
        lambda: BetaTable((0.0,)),
        lambda: BetaTable((0.0, 0.5)),
        lambda: BetaTable((1.0, 0.5)),
        lambda: cosine_table(0),
        lambda: cosine_table(4, largest=0.0),
        lambda: cosine_table(4, largest=1.0),
        lambda: PolarTable((1.0,), (HALF,)),
        lambda: PolarTable((1.0, 1.0, 1.0), (HALF, 0.0)),
        lambda: PolarTable((1.0, 0.0, 1.0), (HALF, 1.0, 0.0)),
        lambda: PolarTable((1.0, INF, 1.0), (HALF, 1.0, 0.0)),
        lambda: PolarTable((1.0, 1.0, 1.0), (HALF, HALF, 0.0)),
        lambda: PolarTable((1.0, 1.0), (HALF + 2e-12, 0.0)),
        lambda: PolarTable((1.0, 1.0), (HALF, 0.1)),
        lambda: damped_decay(CLOCK, 0.0),
        lambda: damped_decay(CLOCK, INF),
        lambda: MomentumDecay(sigma_max=0.0),
        lambda: MomentumDecay(sigma_max=INF),
        lambda: MomentumDecay(beta_min=0.0),
        lambda: MomentumDecay(beta_min=2.0, beta_max=1.0),
        lambda: MomentumDecay(beta_max=INF),
        lambda: MomentumDecay(multiplier=0.0),
        lambda: MomentumDecay(multiplier=10.01),
        lambda: MomentumDecay(damping=0.99),
        lambda: MomentumDecay(damping=10.01),
        lambda: exponential_step(cld(), [], 0.0),
        lambda: exponential_step(cld(), [0.5], 0.5),
        lambda: Clock(0.0, 0.0),
        lambda: Clock(-1e-9, 1.0),
        lambda: Clock(1.0, -1e-9),
        lambda: Clock(1.0, INF),
        lambda: cld(mass=0.0),
        lambda: cld(mass=INF),
        lambda: cld(spread=-1e-9),
        lambda: cld(spread=INF),
        lambda: blurred_cld((2, 2), blur=0.0),
        lambda: psld(friction=0.0, position_friction=1.0),
        lambda: blurring((2, 2), INF),
        lambda: heat((2, 2), 0.0),
        lambda: heat((2, 2), INF),
        lambda: heat((2, 2), 1.0, 0.0),
        lambda: heat((2, 2), 1.0, INF),
        lambda: function_space((4,), 0.0),
        lambda: function_space((4,), INF),
        lambda: ir_sde(0.0, 1.0),
        lambda: ir_sde(INF, 1.0),
        lambda: ir_sde(1.0, 0.0),
        lambda: ir_sde(1.0, INF),
        lambda: ouve(0.0),
        lambda: ouve(INF),
        lambda: ouve(1.0, 0.0, 1.0),
        lambda: ouve(1.0, 1.0, 1.0),
        lambda: ouve(1.0, 0.1, INF),
        lambda: Steered(0.0),
        lambda: Steered(INF),
        lambda: Steered(1.0, 1.0),
        lambda: Steered(1.0, -1.0),
        lambda: mdm(EYE, SKEW + 6e-11),
        lambda: flexible(torch.eye(257).double(), torch.zeros(257, 257).double()),
        lambda: mdm(EYE, SKEW, torch.tensor([1.0, 0.0])),
        lambda: mdm(EYE, SKEW, torch.ones(3)),
        lambda: GridSDE(still, cells=0),
        lambda: GridSDE(still, singular=0.5).transition(0.0, 0.5),
        lambda: pixel_times(-torch.full((2,), 1e-9), torch.ones(2)),
        lambda: pixel_times(torch.zeros(2), torch.full((2,), INF)),
        lambda: NoisyLevels((1.0,), (0.5,)),
        lambda: NoisyLevels((1.0, 1.0), (0.1, 0.2, 0.3)),
        lambda: NoisyLevels((1.0, 1.0), (0.1, 0.2), (1,)),
        lambda: NoisyLevels((1.0, 0.0), (0.1, 0.2)),
        lambda: NoisyLevels((1.0, 1.0), (-0.1, 0.2)),
        lambda: NoisyLevels((1.0, 1.0), (0.2, 0.1)),
        lambda: NoisyLevels((1.0, 1.0), (0.1, 0.2), (0, 1)),
        lambda: CHAIN.apply(IMAGE, -1, IMAGE),
        lambda: CHAIN.apply(IMAGE, 2, IMAGE),
        lambda: CHAIN.step_misfit(IMAGE, IMAGE, 0),
        lambda: NoisyLevels((1.0, 1.0), (1e-6, 1.0)).misfit(IMAGE, IMAGE, 0),
        lambda: Blur((0,)),
        lambda: Blur((0, 1))(IMAGE[None], 2),
        lambda: Blur((0, 1))(IMAGE[None], -1),
        lambda: Downsample((2, 4)),
        lambda: PatchReplacement(IMAGE, 0),
        lambda: Blend(IMAGE, (1,), (0,)),
        lambda: Blend(IMAGE, (1, 0.5), (0,)),
        lambda: Blend(IMAGE, (0.9, 0.5), (0, 1)),
        lambda: Blend(IMAGE, (1, 0.5), (0, 1)).seen(IMAGE, IMAGE, 0),
        lambda: Snow(IMAGE[0], (0, 1.001)),
        lambda: snowflakes(4, 4, 0, density=0.0),
        lambda: snowflakes(4, 4, 0, density=1.0),
        lambda: snowflakes(4, 4, 0, streak=0),
        lambda: towards(torch.sin, 0.0),
        lambda: bound(nodes=1),
        lambda: bound(first=0.0),
        lambda: bound(first=1.0),
    ],
)
def test_the_first_value_that_has_none_is_refused(make):
    with pytest.raises((ArgumentError, ShapeError)):
        make()


def test_the_end_of_a_process_is_a_ratio_it_has_and_what_is_beyond_rounding_is_not():
    """`k <= k_1 (1 + 1e-9)`: a ratio computed elsewhere may be off by rounding, and 0 is clean data."""
    process = EDM(80.0)
    times = [float(process.time_of_ratio(k)) for k in (0.0, 80.0, 80.0 * (1 + 5e-10))]
    assert times == pytest.approx([0.0, 1.0, 1.0], abs=1e-14)
    assert max(times) <= 1
    for k in (-1e-12, 80.0 * (1 + 2e-9)):
        with pytest.raises(ArgumentError, match="ratio"):
            process.time_of_ratio(k)


def test_a_drift_may_grow_by_its_limit_and_no_more():
    h = torch.full((2,), 0.5, dtype=torch.float64)
    x = torch.ones(2, 1, dtype=torch.float64)
    for separable in (True, False):
        sde = towards(lambda y: 12 * y, 1.0, separable)  # f = 6 y: over 0.5 it grows by exp(3)
        assert torch.isfinite(sde.increment(x, 0 * h, h).mean).all()
        with pytest.raises(ArgumentError, match="shorter"):
            sde.increment(x, 0 * h, h * (1 + 1e-6))


def clock_noise(skew=0.0, least=0.0):
    """`Q` of size 4, with an entry of 0 and, up to `skew`, a least eigenvalue of `least`."""
    return torch.tensor([[[4.0, 0.0, 0.0], [0.0, 1.0, skew], [0.0, 0.0, least]]], dtype=torch.float64)


@pytest.mark.parametrize(("taken", "refused"), [({"skew": 3.9e-10}, {"skew": 4.1e-10}), ({"least": -3.9e-10}, {"least": -4.1e-10})])
def test_noise_is_a_covariance_to_a_1e_10_of_its_greatest_entry(taken, refused):
    eye = torch.eye(3, dtype=torch.float64)[None]
    ClockSDE(-eye, clock_noise(**taken), Clock())
    with pytest.raises(ArgumentError, match="semi-definite"):
        ClockSDE(-eye, clock_noise(**refused), Clock())
