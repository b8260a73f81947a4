"""What a linear SDE refuses, and that the message names it."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise import (
    LINEAR_SDES,
    Backwards,
    Clock,
    ClockSDE,
    FlowMatching,
    GridSDE,
    Pinned,
    Steered,
    TableSDE,
    agm,
    blurring,
    brownian_bridge,
    cld,
    flexible,
    heat,
    ir_sde,
    linear,
    linear_sde_from_dict,
    malda,
    mdm,
    ouve,
    pixel_times,
    psld,
)
from sfumato.noise.linear_family.linear_views import convert
from sfumato.noise.linear_family.path_bound import path_bound
from sfumato.noise.scalars.exponential_step import exponential_step
from sfumato.seeds import noise

ONE = torch.ones(1, 1, 1, dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
SKEW = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
X0 = torch.zeros(3, 4)
STATE = torch.zeros(3, 2, 4, dtype=torch.float64)


def huge(t):
    rate = 1 / (0.5 - t)[..., None, None, None]
    return -rate, rate[..., :0], rate**2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        # singular times
        (lambda: convert(cld(), STATE, "score", "data", STATE, 0.0), "singular"),
        (lambda: convert(cld(), X0.double(), "data", "score", STATE, 0.0), "singular"),
        (lambda: cld(spread=0.0).posterior(0.0, 0.0), "singular"),
        (lambda: cld().flow_factor(0.5).apply(STATE) * cld(spread=0.0).flow_factor(0.0).inverse().apply(STATE), "singular"),
        (lambda: linear(FlowMatching()).coefs(1.0), "singular end"),
        (lambda: brownian_bridge().coefs(1.0), "singular end"),
        (lambda: GridSDE(huge, cells=1, order=2).transition(0.0, 1.0), "finite"),
        (lambda: GridSDE(huge, singular=0.5).transition(0.0, 0.6), "before 0.5"),
        # times out of order or range
        (lambda: cld().transition(0.7, 0.3), "s <= t"),
        (lambda: agm().posterior(0.7, 0.3), "s <= t"),
        (lambda: cld().bridge(0.9, 0.2, 0.7), "s <= t"),
        (lambda: cld().marginal(1.2), r"\[0, 1\]"),
        (lambda: exponential_step(cld(), [0.5], 0.6), "nodes"),
        (lambda: exponential_step(cld(), [0.5, 0.5], 0.1), "nodes"),
        (lambda: exponential_step(cld(), [0.5], 0.1)(STATE, []), "one per node"),
        # conditions
        (lambda: ir_sde().sample(X0, 0.5, X0), "drifts towards it"),
        (lambda: cld().sample(X0, 0.5, STATE, X0), "condition: expected none"),
        (lambda: Pinned(ir_sde()), "condition of its own"),
        (lambda: Backwards(cld()), "steered"),
        # no stationary law
        (lambda: heat((4,)).stationary(), "Hurwitz"),
        (lambda: ClockSDE(ONE, ONE, Clock()).stationary(), "Hurwitz"),
        # coefficients and schedules
        (lambda: ClockSDE(-ONE * float("nan"), ONE, Clock()), "finite"),
        (lambda: ClockSDE(-ONE, -ONE, Clock()), "semi-definite"),
        (lambda: ClockSDE(-EYE[None], SKEW[None], Clock()), "semi-definite"),
        (lambda: Clock(float("inf"), 1.0), "finite speeds"),
        (lambda: Clock(-1.0, 1.0), "finite speeds"),
        (lambda: GridSDE(huge, order=3), "order"),
        (lambda: mdm(EYE, EYE), "antisymmetric"),
        (lambda: flexible(EYE, EYE), "antisymmetric"),
        (lambda: malda(1), "at least 2"),
        (lambda: cld(mass=-1.0), "mass"),
        (lambda: psld(1.0, 1.0), "gap_of_frictions"),
        (lambda: ouve(sigma_min=1.0), "sigma_min"),
        (lambda: ir_sde(level=0.0), "level"),
        (lambda: blurring((4,), -1.0), "blur"),
        (lambda: pixel_times(torch.ones(2), torch.ones(2)), "windows"),
        (lambda: Steered(power=0.0), "power"),
        # views, bounds, plain data
        (lambda: convert(cld(), STATE, "velocity", "score", STATE, 0.5), "singular"),
        (lambda: path_bound(cld(spread=0.0), lambda x, t: x, X0.double(), noise(0, 3, (2, 4), dtype=torch.float64)), "spread"),
        (lambda: path_bound(cld(), lambda x, t: x, X0.double(), noise(0, 3, (2, 4)), nodes=1), "nodes"),
        (lambda: linear_sde_from_dict({"kind": "nothing"}), "one of"),
        (lambda: linear_sde_from_dict({"kind": "cld", "colour": 3}), "colour"),
        (lambda: ClockSDE(-ONE, ONE, Clock()).to_dict(), "preset"),
    ],
)
def test_arguments_that_mean_nothing_are_named(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: cld().sample(X0, 0.5, X0), r"noise.*\(3, 2, 4\)"),
        (lambda: ir_sde().sample(X0, 0.5, X0, X0[:, :3]), "condition"),
        (lambda: ir_sde().sample(X0, 0.5, X0, X0[:2]), "condition"),
        (lambda: cld().sample(X0, torch.rand(4), STATE.float()), "t: expected"),
        (lambda: cld().transition(torch.rand(2) / 2, 0.5 + torch.rand(3) / 2), "times of one shape"),
        (lambda: blurring((2, 2)).marginal(torch.rand(3, 2, 2)), "cosines"),
        (lambda: blurring((2, 2)).sample(X0, 0.5, X0), r"\(batch, 2, 2\)"),
        (lambda: ClockSDE(-EYE, EYE, Clock()), "blocks"),
        (lambda: ClockSDE(-EYE[None], EYE[None], Clock(), start=ONE), "start"),
        (lambda: flexible(EYE, torch.zeros(3, 3)), "metric"),
        (lambda: pixel_times(torch.zeros(2), torch.ones(3)), "starts"),
    ],
)
def test_shapes_that_do_not_fit_are_named(wrong, message):
    with pytest.raises(ShapeError, match=message):
        wrong()


@pytest.mark.parametrize("change", [{"ends": None}, {"ends": "soon"}, {"starts": [[0.1], [0.2, 0.3]]}, {"first": []}, {"later": 1.0}])
def test_a_written_member_with_a_value_of_another_type_is_refused(change, unchecked):
    with pytest.raises(ArgumentError) as told:
        linear_sde_from_dict(LINEAR_SDES["pixel_times"]().to_dict() | change)
    assert "pixel_times" in str(told.value) or isinstance(told.value, ShapeError)


def test_a_name_is_no_written_member():
    with pytest.raises(ArgumentError, match=r"process\.kind"):
        linear_sde_from_dict("cld")


@pytest.mark.parametrize("signal", [0.9, 1.1])
def test_a_table_that_begins_with_less_or_more_than_the_data_is_refused(signal):
    def table(t):
        one = torch.ones(1, 1, 1, dtype=torch.float64)
        return signal * one, one[..., :0], t * one

    with pytest.raises(ArgumentError, match="Clean data"):
        TableSDE(table)
