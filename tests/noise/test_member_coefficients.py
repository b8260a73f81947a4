"""The coefficients of every named process against the formula that its source gives, at parameters that are not its defaults.

The generic tests only hold that coefficients and transitions belong together; here it is settled which process it is.
"""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.errors import ArgumentError
from sfumato.noise import (
    EDM,
    Backwards,
    BetaTable,
    Clock,
    ClockSDE,
    Cosine,
    FlowMatching,
    MomentumDecay,
    Pinned,
    Steered,
    SubVariancePreserving,
    TableSDE,
    VarianceExploding,
    VariancePreserving,
    agm,
    alda,
    blurred_cld,
    blurring,
    brownian_bridge,
    cld,
    cosine_table,
    flexible,
    flexible_spectrum,
    function_space,
    heat,
    ir_sde,
    linear,
    malda,
    mdm,
    mdm_two_clocks,
    ouve,
    pixel_times,
    psld,
    vp_bridge,
)

T = 0.3
LINEAR_RATE = 0.5 + (3.0 - 0.5) * T  # of a clock from 0.5 to 3


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def same(ours, theirs):
    torch.testing.assert_close(ours, f64(theirs) if not isinstance(theirs, torch.Tensor) else theirs, rtol=1e-12, atol=1e-13)


def blocks(process, t=T):
    """`(F, C, Q)` without the axes of modes where there is one mode."""
    law = process.coefs(t)
    return [
        None if op is None else op.coef.squeeze(-3) if op.coef.shape[-3] == 1 else op.coef for op in (law.phi, law.shift, law.covariance)
    ]


@pytest.mark.parametrize(
    ("process", "drift", "noise"),
    [
        (cld(0.5, 0.7, 3.0, 0.1), [[0, 6.0], [-3.0, -4.2]], [[0, 0], [0, 4.2]]),
        # M = 4 / (0.5 - 2.5)^2 = 1
        (psld(0.5, 2.5, 6.0), [[-1.5, 3.0], [-3.0, -7.5]], [[3.0, 0], [0, 15.0]]),
        (
            mdm(f64([[0.3, 0.1], [0.1, 1.2]]), f64([[0.0, -1.5], [1.5, 0.0]]), f64([1.0, 0.5]), 0.5, 3.0),
            [[-0.3 * LINEAR_RATE, 2.8 * LINEAR_RATE], [-1.6 * LINEAR_RATE, -2.4 * LINEAR_RATE]],
            [[0.6 * LINEAR_RATE, 0.2 * LINEAR_RATE], [0.2 * LINEAR_RATE, 2.4 * LINEAR_RATE]],
        ),
        (
            mdm_two_clocks(f64([[0.3, 0.1], [0.1, 1.2]]), f64([[0.0, -1.5], [1.5, 0.0]]), (0.5, 3.0), (2.0, 1.0)),
            [[-0.3 * LINEAR_RATE, -0.1 * LINEAR_RATE + 2.55], [-0.1 * LINEAR_RATE - 2.55, -1.2 * LINEAR_RATE]],
            [[0.6 * LINEAR_RATE, 0.2 * LINEAR_RATE], [0.2 * LINEAR_RATE, 2.4 * LINEAR_RATE]],
        ),
        # L = 2, g = 3, xi = 5: W S^{-1} has -1/L * L = -1 at (1, 2), 1/L at (2, 1), -g L and g L, and D S^{-1} = xi/L * L
        (
            alda(2.0, 3.0, 5.0, 0.5, 3.0),
            [[0, LINEAR_RATE, 0], [-LINEAR_RATE / 2, 0, 6 * LINEAR_RATE], [0, -6 * LINEAR_RATE, -5 * LINEAR_RATE]],
            [[0, 0, 0], [0, 0, 0], [0, 0, 5 * LINEAR_RATE]],
        ),
        (
            malda(3, 4.0, 0.5, 3.0),
            [
                [0, LINEAR_RATE / 4, 0],
                [-LINEAR_RATE, -LINEAR_RATE, LINEAR_RATE / 4],
                [0, -LINEAR_RATE / 4, -LINEAR_RATE],
            ],
            [[0, 0, 0], [0, 8 * LINEAR_RATE, 0], [0, 0, 8 * LINEAR_RATE]],
        ),
        (
            flexible(f64([[0.6, 0.2], [0.2, 1.4]]), f64([[0.0, 2.0], [-2.0, 0.0]]), None, 0.5, 3.0),
            [[-0.3 * LINEAR_RATE, -1.1 * LINEAR_RATE], [0.9 * LINEAR_RATE, -0.7 * LINEAR_RATE]],
            [[0.6 * LINEAR_RATE, 0.2 * LINEAR_RATE], [0.2 * LINEAR_RATE, 1.4 * LINEAR_RATE]],
        ),
    ],
    ids=["cld", "psld", "mdm", "mdm_two_clocks", "alda", "malda", "flexible"],
)
def test_several_channels(process, drift, noise):
    ours = blocks(process)
    same(ours[0], drift)
    same(ours[2], noise)


def test_the_weight_of_the_bound_is_half_the_noise():
    same(cld(0.5, 0.7, 3.0).elbo_weight(T).coef.squeeze(), [[0, 0], [0, 2.1]])


def test_the_flow_factor_begins_without_a_turn():
    """Up to `t = 1e-4` the factor is Cholesky's, exactly; there is no cell before."""
    process = cld()
    for t in (5e-5, 1e-4):
        root = process.marginal(t).covariance.cholesky().coef
        torch.testing.assert_close(process.flow_factor(t).coef, root, rtol=1e-13, atol=0)


def test_spread_of_the_auxiliary_channels_at_the_start():
    same(cld(0.5, spread=0.1).start, [[[0, 0], [0, 0.05]]])
    same(psld(0.5, 2.5, spread=0.3).start, [[[0, 0], [0, 0.3]]])
    same(blurred_cld((2, 2), mass=0.5).start, [[[0, 0], [0, 0.02]]])
    same(mdm(torch.eye(2).double(), torch.zeros(2, 2).double(), spread=0.2).start, [[[0, 0], [0, 0.2]]])
    same(malda(3).start, [[[0, 0, 0], [0, 0.01, 0], [0, 0, 0.01]]])


def test_towards_a_condition():
    """`ir_sde`: theta = 2 total t, so that its integral is `total`. `ouve`: `Q = 2 l a^2 (b/a)^{2t}`."""
    drift, gain, noise = blocks(ir_sde(0.7, 3.0))
    same(drift, [[-6 * T]])
    same(gain, [[6 * T]])
    same(noise, [[2 * 0.49 * 6 * T]])
    same(ir_sde(0.7).prior().covariance.coef.flatten(), [0.49])
    drift, gain, noise = blocks(ouve(2.0, 0.1, 0.8))
    log = math.log(8)
    torch.testing.assert_close(drift, f64([[-2.0]]), rtol=1e-9, atol=0)
    torch.testing.assert_close(gain, f64([[2.0]]), rtol=1e-9, atol=0)
    torch.testing.assert_close(noise, f64([[2 * log * 0.01 * math.exp(2 * log * T)]]), rtol=1e-9, atol=0)


def test_by_frequency():
    """On (1, 2) pixels the frequencies are 0 and 1 of 2, `lam = (pi / 2)^2`."""
    lam = f64([0.0, math.pi**2 / 4])
    drift, _, noise = blocks(blurred_cld((1, 2), 0.5, 2.0, 3.0, 4.0))
    same(drift, torch.stack([f64([[-4 * rate / 4, 2.0], [-4.0, -6.0]]) for rate in lam.tolist()]))
    same(noise, torch.stack([f64([[8 * rate / 4, 0.0], [0.0, 24.0]]) for rate in lam.tolist()]))
    drift, _, noise = blocks(heat((1, 2), 3.0, 0.1))
    same(drift.flatten(), -9 * T * lam)
    same(noise.flatten(), 2 * 0.01 * 9 * T * lam)
    same(heat((1, 2), 3.0, 0.1).start, [[[0.01]]])
    drift, _, noise = blocks(function_space((1, 2), 1.5, 0.5, 3.0))
    spectrum = (1 + 4 * lam) ** -1.5  # on a box of unit length the frequency is pi, not pi / 2
    same(drift, [[-LINEAR_RATE / 2]])
    same(noise.flatten(), LINEAR_RATE * spectrum)
    same(function_space((1, 2), 1.5).prior().covariance.coef.flatten(), spectrum)
    drift, _, noise = blocks(flexible_spectrum(f64([[1.5, 0.5]]), 0.5, 3.0))
    same(drift.flatten(), LINEAR_RATE * f64([-0.75, -0.25]))
    same(noise.flatten(), LINEAR_RATE * f64([1.5, 0.5]))
    law = blurring((1, 2), 3.0, 0.1).marginal(T)
    first = math.pi / 2 * 0.1 / 1.1
    alpha = math.cos(first + (math.pi / 2 * 0.999 - first) * T) / math.cos(first)
    same(law.phi.coef.flatten(), alpha * torch.exp(-lam * 9 / 2 * math.sin(math.pi / 2 * T) ** 4))
    same(law.covariance.coef.flatten(), f64([1 - alpha**2]).expand(2))


def test_by_pixel():
    """Before its window a pixel is clean, behind it as noisy as it gets."""
    process = pixel_times(f64([0.0, 0.2]), f64([0.5, 1.2]), 0.5, 3.0)
    for t, tau in ((T, [0.6, 0.1]), (0.1, [0.2, 0.0]), (0.8, [1.0, 0.6])):
        integral = 0.5 * f64(tau) + 2.5 * f64(tau) ** 2 / 2
        law = process.marginal(t)
        same(law.phi.coef.flatten(), torch.exp(-integral / 2))
        same(law.covariance.coef.flatten(), 1 - torch.exp(-integral))


def test_between_two_ends():
    """The bridge's marginal is `(1 - t) x + t y` with variance `level^2 t (1 - t)`, as the table of the file says."""
    law = brownian_bridge(2.0).marginal(T)
    same(torch.cat([law.phi.coef.flatten(), law.shift.coef.flatten()]), [0.7, 0.3])
    same(law.covariance.coef.flatten(), [4 * 0.3 * 0.7])
    law, kept = vp_bridge(0.5, 3.0).marginal(T), lambda s, t: math.exp(-((t - s) * 0.5 + 2.5 * (t * t - s * s) / 2) / 2)
    a, b = kept(0, T), kept(T, 1)
    total = 1 - (a * b) ** 2
    same(law.phi.coef.flatten(), [a * (1 - b**2) / total])
    same(law.shift.coef.flatten(), [b * (1 - a**2) / total])
    same(law.covariance.coef.flatten(), [(1 - a**2) * (1 - b**2) / total])
    drift, gain, noise = blocks(Steered(3.0, 0.2))
    same(drift, [[0, 1], [-4 / 0.49, -4 / 0.7]])
    same(gain, [[0], [4 / 0.49]])
    same(noise, [[0, 0], [0, (3 * 0.7) ** 2]])
    same(agm(3.0, 0.4).prior().covariance.coef.squeeze(), [[1, -0.4], [-0.4, 1]])


@pytest.mark.parametrize(
    ("process", "plain"),
    [
        (VariancePreserving(), {"beta_min": 0.1, "beta_max": 20.0}),  # Song et al. 2021, appendix C
        (SubVariancePreserving(), {"beta_min": 0.1, "beta_max": 20.0}),
        (VarianceExploding(), {"sigma_min": 0.01, "sigma_max": 50.0}),
        (Cosine(), {"s": 0.008}),  # Nichol & Dhariwal 2021, section 3.2
        (EDM(), {"sigma_max": 80.0}),  # Karras et al. 2022, table 1
        (FlowMatching(), {"shift": 1.0}),
        (MomentumDecay(), {"sigma_max": 80.0, "multiplier": 2.0, "damping": 1.0, "beta_min": 0.1, "beta_max": 20.0}),
        (cld(), {"mass": 0.25, "friction": 1.0, "beta": 4.0, "spread": 0.04}),  # Dockhorn et al. 2022: critical, Gamma^2 = 4 M
        (psld(), {"position_friction": 0.01, "friction": 4.01, "beta": 8.0, "spread": 0.04}),  # Pandey & Mandt 2023, table 2
        (malda(), {"channels": 3, "mass": 1.0, "first": 0.1, "last": 10.0}),
        (alda(), {"inverse_mass": 1.0, "coupling": 1.0, "friction": 1.0, "first": 0.1, "last": 10.0}),
        (ir_sde(), {"level": 0.5, "total": 5.0}),
        (ouve(), {"stiffness": 1.5, "sigma_min": 0.05, "sigma_max": 0.5}),  # Richter et al. 2023, section IV
        (brownian_bridge(), {"level": 1.0}),
        (vp_bridge(), {"first": 0.1, "last": 2.0}),
        (agm(), {"power": 3.0, "correlation": 0.2}),
        (blurring((2, 2)), {"shape": [2, 2], "blur": 4.0, "offset": 0.008, "channels": False}),
        (heat((2, 2)), {"shape": [2, 2], "blur": 8.0, "level": 0.01, "channels": False}),
        (function_space((4,)), {"shape": [4], "decay": 2.0, "first": 0.1, "last": 20.0}),
        (blurred_cld((2, 2)), {"shape": [2, 2], "blur": 1.0, "mass": 0.25, "friction": 1.0, "beta": 4.0}),
    ],
    ids=lambda p: p.to_dict()["kind"] if hasattr(p, "to_dict") else "",
)
def test_a_process_that_is_only_named_has_the_parameters_it_was_published_with(process, plain):
    """What is trained under a name must mean the same in every version: a change of a default is a change of the process."""
    written = dict(process.to_dict())
    del written["kind"]
    assert written == plain


def test_tables_that_are_only_named():
    linear, scaled = BetaTable.linear(), BetaTable.scaled_linear()  # Ho et al. 2020; Rombach et al. 2022
    assert (linear.steps, scaled.steps) == (1000, 1000)
    assert linear.betas[::999] == pytest.approx((1e-4, 0.02), rel=1e-12)
    assert scaled.betas[::999] == pytest.approx((0.00085, 0.012), rel=1e-12)
    assert linear.betas[333] == pytest.approx(1e-4 + (0.02 - 1e-4) / 3, rel=1e-12)
    assert scaled.betas[333] ** 0.5 == pytest.approx(0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) / 3, rel=1e-12)
    assert float(linear.index(1.0)) == 999
    cosine, f = cosine_table().betas, lambda t: math.cos(math.pi / 2 * (t + 0.008) / 1.008) ** 2
    assert (len(cosine), cosine[-1]) == (1000, 0.999)
    assert cosine[500] == pytest.approx(1 - f(0.501) / f(0.5), rel=1e-9)
    assert cosine_table(10, 0.2, 0.5).betas[-1] == 0.5


def test_a_time_per_number_of_a_line_is_each_numbers_own():
    """Times `(batch, d)` for events `(d,)`: `alpha(t_i) x_i + sigma(t_i) eps_i`."""
    process = VariancePreserving(0.5, 3.0)
    t = f64([[0.1, 0.9, 0.4], [0.0, 1.0, 0.6]])
    x, eps = f64([[1.0, -2.0, 0.5], [3.0, 0.2, -1.0]]), f64([[0.3, 1.0, -1.0], [2.0, -0.5, 0.7]])
    torch.testing.assert_close(linear(process).sample(x, t, eps), process.alpha(t) * x + process.sigma(t) * eps, rtol=1e-12, atol=1e-13)
    # one time per sample beside one per number
    law = linear(process).transition(f64([0.1, 0.0]), f64([[0.2, 0.9, 0.4], [0.0, 1.0, 0.6]]))
    torch.testing.assert_close(law.phi.apply(x)[0, 1], process.alpha(0.9) / process.alpha(0.1) * x[0, 1], rtol=1e-12, atol=0)


def test_a_clock_speeds_up_all_three_coefficients():
    """`beta` times `F_0`, `C_0` and `Q_0`; one condition moves the first channel by 0.4, the second by -3."""
    constant = f64([[-1.0, 0.5], [0.0, -2.0]]), f64([[0.4], [-3.0]]), f64([[2.0, 0.3], [0.3, 1.0]])
    process = ClockSDE(constant[0][None], constant[2][None], Clock(0.5, 3.0), gain=constant[1][None])
    assert (process.channels, process.conditions) == (2, 1)
    for ours, theirs in zip(blocks(process), constant, strict=True):
        same(ours, LINEAR_RATE * theirs)


def test_a_steered_process_backwards_has_the_data_for_its_condition():
    """`A x_0` is the mean of the steered path at `1 - t`, and with its coefficients the marginal obeys `dA/du = F A + C`."""
    process, h = agm(3.0, 0.4), 1e-5
    assert (process.channels, process.conditions) == (2, 1)
    law, (before, after) = process.marginal(T), (process.marginal(T + d).phi.coef for d in (-h, h))
    drift, gain, _ = blocks(process)
    same(law.phi.coef, process.steered.transition(0.0, 1 - T).shift.coef)
    torch.testing.assert_close(((after - before) / (2 * h))[0], drift @ law.phi.coef[0] + gain, rtol=1e-7, atol=1e-8)
    for refused in (cld(), Pinned(cld())):  # no condition, and two
        with pytest.raises(ArgumentError, match="steered"):
            Backwards(refused)


def test_a_pinned_process_of_two_channels_is_the_bridge_of_the_free_one():
    """`x_t` given `x_s` and `x_1 = y`, at a pair of times per sample; from a time to itself nothing moves."""
    free = cld(0.5, 0.7, 3.0)
    process, s, t = Pinned(free), f64([0.0, 0.2, 0.5]), f64([0.3, 0.9, 0.5])
    ours, bridge = process.transition(s, t), free.bridge(t[:2], s[:2], 1.0)
    torch.testing.assert_close(ours.phi.coef[:2], bridge.start.coef, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ours.shift.coef[:2], bridge.end.coef, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ours.covariance.coef[:2], bridge.covariance.coef, rtol=1e-9, atol=1e-11)
    assert (process.channels, process.conditions) == (2, 2)
    same(ours.phi.coef[2, 0], torch.eye(2, dtype=torch.float64))
    assert float(ours.shift.coef[2].abs().max()) == 0 == float(ours.covariance.coef[2].abs().max())
    h, (drift, gain, noise) = 1e-6, blocks(process)
    law = process.transition(T, T + h)
    torch.testing.assert_close((law.phi.coef[0] - torch.eye(2)) / h, drift, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(law.shift.coef[0] / h, gain, rtol=1e-4, atol=1e-4)
    same(noise, [[0, 0], [0, 4.2]])


def test_a_table_of_two_channels_by_hand():
    """`A = [[1, t], [0, e^-t]]`, `b = (t^2, sin t)`, `S = diag(t, 2t)`: `F = A' A^-1`, `C = b' - F b`, `Q = S' - F S - S F^T`."""

    def table(t):
        zero, one = torch.zeros_like(t), torch.ones_like(t)
        rows = [[[one, t], [zero, torch.exp(-t)]], [[t**2], [torch.sin(t)]], [[t, zero], [zero, 2 * t]]]
        return tuple(torch.stack([torch.stack(row, -1) for row in block], -2)[..., None, :, :] for block in rows)

    process, up = TableSDE(table, 2, 1), math.exp(T)
    drift, gain, noise = blocks(process)
    same(drift, [[0, up], [0, -1]])
    same(gain, [[2 * T - up * math.sin(T)], [math.cos(T) + math.sin(T)]])
    same(noise, [[1, -2 * T * up], [-2 * T * up, 2 + 4 * T]])
    s, phi = 0.1, [[1, (T - 0.1) * math.exp(0.1)], [0, math.exp(0.1 - T)]]
    law = process.transition(s, T)
    same(law.phi.coef[0], phi)
    same(law.shift.coef[0], f64([[T**2], [math.sin(T)]]) - f64(phi) @ f64([[s**2], [math.sin(s)]]))
    same(law.covariance.coef[0], f64([[T, 0], [0, 2 * T]]) - f64(phi) @ f64([[s, 0], [0, 2 * s]]) @ f64(phi).T)
    assert float(process.transition(T, T).covariance.coef.abs().max()) == 0
