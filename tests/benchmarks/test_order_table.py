"""Every preset has the order it states; the table that `python -m benchmarks order_table` prints."""

from __future__ import annotations

import pytest
from benchmarks.order_table import order, strong_order, weak_order, within

from sfumato.sample import PRESETS
from sfumato.sample.compilers.multistep import dpm_solver

DETERMINISTIC = [solver for solver in PRESETS.values() if solver.deterministic]
STOCHASTIC = [solver for solver in PRESETS.values() if not solver.deterministic]
# 1.5 times the worst constant of `error = constant / steps^order` measured: what has the order but not the accuracy is seen
CEILING = {1: 4.0, 2: 20.0, 3: 260.0, 4: 400.0}


@pytest.mark.parametrize("solver", DETERMINISTIC, ids=lambda s: s.name)
def test_every_deterministic_preset_has_the_order_it_states(solver):
    rate = order(solver)
    assert abs(rate.slope - solver.order) < within(solver.order)
    assert rate.constant < CEILING[solver.order]


@pytest.mark.parametrize("solver", STOCHASTIC, ids=lambda s: s.name)
def test_every_stochastic_preset_has_its_weak_order_and_strong_order_one(solver):
    """Exact on a Gaussian: no sample is drawn. The weak order may be exceeded there, as errors of the variance cancel."""
    assert weak_order(solver).slope > solver.order - within(solver.order)
    assert abs(strong_order(solver).slope - 1) < within(1)


def test_the_table_sees_a_wrong_order():
    """Negative control: the published third-order multistep form states 2, and as an order of 3 it would be refused."""
    slope = order(dpm_solver(3, published=True)).slope
    assert abs(slope - 2) < within(2)
    assert abs(slope - 3) > within(3)
