"""Every process of the registry against its defining formulas, evaluated with 50 digits.

A new process adds its formulas to `FORMULAS` and an instance to `INSTANCES`, and inherits every test.
"""

from __future__ import annotations

import json
import math

import mpmath as mp
import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import (
    EDM,
    PROCESSES,
    BetaTable,
    Cosine,
    FlowMatching,
    MomentumDecay,
    SubVariancePreserving,
    Trigonometric,
    VarianceExploding,
    VariancePreserving,
    as_time,
    over_events,
    process_from_dict,
)

mp.mp.dps = 50


def _integrated_beta(p, t):
    return p.beta_min * t + (mp.mpf(p.beta_max) - p.beta_min) * t**2 / 2


def _vp(p, t):
    return mp.exp(-_integrated_beta(p, t) / 2), mp.sqrt(-mp.expm1(-_integrated_beta(p, t)))


def _sub_vp(p, t):
    return mp.exp(-_integrated_beta(p, t) / 2), -mp.expm1(-_integrated_beta(p, t))


def _cosine(p, t):
    s = mp.mpf(p.s)
    alpha = mp.cos(mp.pi / 2 * (t + s) / (1 + s)) / mp.cos(mp.pi / 2 * s / (1 + s))
    return alpha, mp.sqrt(1 - alpha**2)


def _ve(p, t):
    low, high = mp.mpf(p.sigma_min), mp.mpf(p.sigma_max)
    return mp.mpf(1), low * mp.sqrt((high / low) ** (2 * t) - 1)


def _edm(p, t):
    return mp.mpf(1), p.sigma_max * t


def _flow(p, t):
    u = p.shift * t / (1 + (mp.mpf(p.shift) - 1) * t)
    return 1 - u, u


def _trigonometric(p, t):
    return mp.cos(mp.pi * t / 2), mp.sin(mp.pi * t / 2)


def _beta_table(p, t):
    cell = min(int(mp.floor(t * p.steps)), p.steps - 1)
    product = mp.mpf(1)
    for beta in p.betas[:cell]:
        product *= 1 - mp.mpf(beta)
    product *= (1 - mp.mpf(p.betas[cell])) ** (t * p.steps - cell)
    return mp.sqrt(product), mp.sqrt(1 - product)


def _momentum(p, t):
    clock = p.multiplier * _integrated_beta(p, t)
    if p.damping == 1:
        scale = mp.exp(-clock) * (1 + clock)
    else:
        fast, slow = (-p.damping + sign * mp.sqrt(mp.mpf(p.damping) ** 2 - 1) for sign in (-1, 1))
        scale = (slow * mp.exp(fast * clock) - fast * mp.exp(slow * clock)) / (slow - fast)
    return scale, scale * p.sigma_max * t


FORMULAS = {
    "momentum-decay": _momentum,
    "variance-preserving": _vp,
    "sub-variance-preserving": _sub_vp,
    "cosine": _cosine,
    "variance-exploding": _ve,
    "edm": _edm,
    "flow-matching": _flow,
    "trigonometric": _trigonometric,
    "beta-table": _beta_table,
}
"""Kind to `(alpha, sigma)` with 50 digits, from the definition and not from the code."""

INSTANCES = [
    VariancePreserving(),
    VariancePreserving(0.3, 0.3),
    SubVariancePreserving(),
    Cosine(),
    Cosine(0.2),
    VarianceExploding(),
    EDM(),
    FlowMatching(),
    FlowMatching(3.0),
    Trigonometric(),
    MomentumDecay(),
    MomentumDecay(50.0, 1.0, 1.5),
    BetaTable.linear(50, 1e-3, 0.3),
    BetaTable((0.2,)),
]

ENDS = (1e-9, 1e-6, 1e-3, 1 - 1e-3, 1 - 1e-6, 1 - 1e-9)
# no node of a table among them: there the rates jump
TIMES = sorted([*ENDS, *torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()])


def _name(p):
    return repr(p) if not isinstance(p, BetaTable) else f"BetaTable[{p.steps}]"


every_process = pytest.mark.parametrize("process", INSTANCES, ids=_name)


def exact(process, t):
    return FORMULAS[process.kind](process, mp.mpf(t))


def relative(got, true):
    return abs(float((mp.mpf(float(got)) - true) / true))


def test_every_process_of_the_registry_is_tested():
    assert {p.kind for p in INSTANCES} == set(PROCESSES) == set(FORMULAS)


@every_process
def test_alpha_sigma_and_log_snr_keep_their_digits_up_to_both_ends(process):
    for t in TIMES:
        alpha, sigma = exact(process, t)
        assert relative(process.alpha(t), alpha) < 1e-14
        assert relative(process.sigma(t), sigma) < 1e-14
        assert relative(process.ratio(t), sigma / alpha) < 5e-14
        lam = mp.log(alpha / sigma)
        assert abs(float(mp.mpf(float(process.half_log_snr(t))) - lam)) < 1e-14 * (1 + abs(float(lam)))


@every_process
def test_rates_drift_and_diffusion_are_the_derivatives_of_alpha_and_sigma(process):
    """`F = alpha'/alpha` and `g^2 = (sigma^2)' - 2 F sigma^2`, by differences with 50 digits."""
    for t in TIMES:
        alpha, sigma = exact(process, t)
        d_alpha, d_sigma = (mp.diff(lambda u, k=k: FORMULAS[process.kind](process, u)[k], mp.mpf(t)) for k in (0, 1))
        drift = d_alpha / alpha
        diffusion = 2 * sigma * d_sigma - 2 * drift * sigma**2
        if d_alpha == 0:
            assert float(process.drift(t)) == float(process.alpha_rate(t)) == 0
        else:
            assert relative(process.drift(t), drift) < 1e-13
            assert relative(process.alpha_rate(t), d_alpha) < 1e-13
        assert relative(process.diffusion_squared(t), diffusion) < 1e-13
        # where sigma saturates its rate is a small difference of gain g^2 / (2 sigma) and decay F sigma, good to their rounding
        size = float(abs(d_sigma) + abs(drift * sigma))
        assert abs(float(process.sigma_rate(t)) - float(d_sigma)) < 1e-13 * size


@every_process
def test_time_inverts_half_log_snr(process):
    t = torch.tensor(TIMES, dtype=torch.float64)
    assert float(((process.time(process.half_log_snr(t)) - t) / t).abs().max()) < 1e-12


@every_process
def test_time_of_ratio_inverts_ratio_and_ends_where_the_process_does(process):
    t = torch.tensor(TIMES, dtype=torch.float64)
    assert float(((process.time_of_ratio(process.ratio(t)) - t) / t).abs().max()) < 1e-12
    assert float(process.time_of_ratio(0.0)) == 0
    assert float(process.time_of_ratio(process.ratio(1.0))) == pytest.approx(1, abs=1e-14)
    with pytest.raises(ArgumentError, match="ratio"):
        process.time_of_ratio(-1e-3)


@every_process
def test_ratios_beyond_the_process_are_refused(process):
    top = float(process.ratio(1.0))
    if math.isinf(top):
        assert float(process.time_of_ratio(1e300)) == 1
    else:
        with pytest.raises(ArgumentError, match="ratio"):
            process.time_of_ratio(top * 1.001)


@every_process
def test_the_clean_end_is_exact(process):
    assert float(process.alpha(0.0)) == 1
    assert float(process.sigma(0.0)) == 0
    assert float(process.half_log_snr(0.0)) == math.inf
    assert float(process.ratio(0.0)) == 0
    assert float(process.time(math.inf)) == 0


@pytest.mark.parametrize("process", [FlowMatching(), FlowMatching(3.0), Trigonometric(), Cosine(), BetaTable((0.1, 0.2, 1.0))], ids=_name)
def test_processes_that_end_in_pure_noise_do_so_exactly(process):
    assert float(process.alpha(1.0)) == 0
    assert float(process.sigma(1.0)) == 1
    assert float(process.half_log_snr(1.0)) == -math.inf
    assert float(process.time(-math.inf)) == 1
    assert process.prior_std == 1


@pytest.mark.parametrize(
    "process",
    [
        p
        for p in INSTANCES
        if isinstance(p, VariancePreserving | Cosine | Trigonometric | BetaTable) and not isinstance(p, SubVariancePreserving)
    ],
    ids=_name,
)
def test_variance_is_preserved(process):
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    assert float((process.alpha(t) ** 2 + process.sigma(t) ** 2 - 1).abs().max()) < 1e-15


def test_sub_vp_has_the_square_of_the_noise_of_vp():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    vp, sub = VariancePreserving(0.2, 9.0), SubVariancePreserving(0.2, 9.0)
    assert torch.equal(sub.alpha(t), vp.alpha(t))
    torch.testing.assert_close(sub.sigma(t), vp.sigma(t) ** 2, rtol=1e-15, atol=0)


@every_process
def test_log_snr_falls_strictly(process):
    lam = process.half_log_snr(torch.linspace(0, 1, 2001, dtype=torch.float64))
    assert bool((lam[1:] < lam[:-1]).all())


@every_process
def test_functions_of_time_act_on_every_time_alone(process):
    t = torch.tensor(TIMES, dtype=torch.float64)
    for f in (process.alpha, process.sigma, process.half_log_snr, process.drift, process.diffusion_squared, process.alpha_rate):
        together, alone = f(t), torch.stack([f(float(v)) for v in t])
        assert together.dtype == torch.float64
        torch.testing.assert_close(together, alone, rtol=1e-15, atol=0)


@every_process
def test_transitions_compose(process):
    """Chapman-Kolmogorov: s to t and t to u is s to u."""
    for s, t, u in ((0.0, 0.3, 0.7), (0.11, 0.4, 1.0), (0.2, 0.201, 0.9), (0.0, 1e-6, 1e-3), (0.5, 0.5, 0.8)):
        one, two, whole = process.transition(s, t), process.transition(t, u), process.transition(s, u)
        assert float(two.phi * one.phi) == pytest.approx(float(whole.phi), rel=1e-13, abs=0)
        assert float(two.phi**2 * one.covariance + two.covariance) == pytest.approx(float(whole.covariance), rel=1e-13)
        assert float(whole.shift) == 0


@every_process
def test_the_transition_from_clean_data_is_the_marginal(process):
    t = torch.tensor([0.0, *TIMES, 1.0], dtype=torch.float64)
    law = process.transition(torch.zeros_like(t), t)
    assert torch.equal(law.phi, process.alpha(t))
    torch.testing.assert_close(law.covariance, process.sigma(t) ** 2, rtol=1e-15, atol=0)


@every_process
def test_short_transitions_have_the_variance_of_the_definition(process):
    """`sigma_t^2 - phi^2 sigma_s^2` with 50 digits; a step of 1e-4 costs at most 4 digits."""
    for s in (0.01, 0.30303, 0.7):
        (alpha, sigma), (alpha_t, sigma_t) = exact(process, s), exact(process, s + 1e-4)
        law = process.transition(s, s + 1e-4)
        assert relative(law.covariance, sigma_t**2 - (alpha_t / alpha * sigma) ** 2) < 1e-10
        assert relative(law.phi, alpha_t / alpha) < 1e-14


@every_process
def test_a_transition_to_the_same_time_changes_nothing(process):
    for t in (0.0, 0.4, 1.0):
        law = process.transition(t, t)
        assert (float(law.phi), float(law.covariance)) == (1, 0)


def test_a_transition_backwards_is_refused():
    with pytest.raises(ArgumentError, match="s <= t"):
        Cosine().transition(0.5, 0.4)


@every_process
def test_processes_survive_json(process):
    back = process_from_dict(json.loads(json.dumps(process.to_dict())))
    assert back == process
    assert hash(back) == hash(process)
    t = torch.tensor(TIMES, dtype=torch.float64)
    assert torch.equal(back.half_log_snr(t), process.half_log_snr(t))


@every_process
def test_samples_take_their_own_times(process):
    generator = torch.Generator().manual_seed(1)
    x, eps = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    got = process.sample(x, t, eps)
    for i, ti in enumerate(t.tolist()):
        alpha, sigma = (float(v) for v in exact(process, ti))
        torch.testing.assert_close(got[i], alpha * x[i] + sigma * eps[i], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(process.prior_sample(eps), float(exact(process, 1.0)[1]) * eps, rtol=1e-13, atol=0)


def test_half_precision_data_keep_their_dtype():
    x = torch.ones(2, 3, dtype=torch.float16)
    assert FlowMatching().sample(x, 0.25, x).dtype == torch.float16
    assert torch.equal(FlowMatching().sample(x, 0.25, x), x)


def test_samples_of_other_shapes_are_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(ShapeError, match="noise"):
        EDM().sample(x, 0.5, torch.zeros(3, 1))
    with pytest.raises(ShapeError, match="one time per sample"):
        EDM().sample(x, torch.tensor([0.1, 0.2]), x)
    with pytest.raises(ShapeError, match="one time per sample"):
        over_events(torch.zeros(3, 1), x)


@pytest.mark.parametrize("t", [-1e-9, 1 + 1e-9, math.nan, math.inf])
def test_times_outside_the_unit_interval_are_refused(t):
    with pytest.raises(ArgumentError, match="t: expected times in"):
        as_time(t)
    with pytest.raises(ArgumentError, match="t: expected times in"):
        Trigonometric().alpha(torch.tensor([0.5, t], dtype=torch.float64))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (VariancePreserving, (0.0, 20.0)),
        (VariancePreserving, (2.0, 1.0)),
        (VariancePreserving, (0.1, math.inf)),
        (SubVariancePreserving, (math.nan, 1.0)),
        (Cosine, (0.0,)),
        (Cosine, (1.0,)),
        (VarianceExploding, (0.0, 1.0)),
        (VarianceExploding, (2.0, 1.0)),
        (EDM, (0.0,)),
        (EDM, (math.inf,)),
        (FlowMatching, (0.0,)),
        (FlowMatching, (math.nan,)),
        (BetaTable, ((),)),
        (BetaTable, ((0.1, 0.0),)),
        (BetaTable, ((1.0, 0.1),)),
        (BetaTable, ((0.1, 1.1),)),
        (BetaTable, ((0.1, math.nan),)),
    ],
)
def test_parameters_without_meaning_are_refused(kind, arguments):
    with pytest.raises(ArgumentError):
        kind(*arguments)


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        None,
        {"kind": "no such process"},
        {"kind": ["edm"]},
        {"kind": "edm", "sigma": 1.0},
        {"kind": "edm", "sigma_max": "80"},
        {"kind": "edm", "sigma_max": True},
        {"kind": "edm", "sigma_max": [80.0]},
        {"kind": "edm", "sigma_max": -1.0},
        {"kind": "edm", "sigma_max": 10**400},
        {"kind": "variance-exploding", "sigma_min": 0.1, "sigma_max": 10**400},
        {"kind": "beta-table"},
        {"kind": "beta-table", "betas": 0.1},
        {"kind": "beta-table", "betas": [0.1, "0.2"]},
        {"kind": "beta-table", "betas": [10**400]},
        {"kind": "beta-table", "betas": [0.1], "_nodes": [0.0]},
    ],
    ids=lambda d: str(d)[:50],
)
def test_written_processes_that_make_no_sense_are_refused(data):
    with pytest.raises(ArgumentError):
        process_from_dict(data)
