"""The tableaus of Runge-Kutta's methods, by the algebraic conditions of their orders."""

from __future__ import annotations

import pytest
import torch

from sfumato.sample.compilers.runge_kutta import TABLEAUS, RungeKutta


def orders_met(method):
    """The order up to which Butcher's conditions hold, of the eight up to order 4: one a rooted tree, whose density stands beside."""
    n = len(method.nodes)
    a = torch.tensor([[*row, *[0] * (n - len(row))] for row in method.stages], dtype=torch.float64)
    b, c = (torch.tensor(v, dtype=torch.float64) for v in (method.weights, method.nodes))
    conditions = {
        1: [(b.sum(), 1)],
        2: [(b @ c, 2)],
        3: [(b @ c**2, 3), (b @ a @ c, 6)],
        4: [(b @ c**3, 4), ((b * c) @ a @ c, 8), (b @ a @ c**2, 12), (b @ a @ a @ c, 24)],
    }
    met = [all(abs(float(value) - 1 / density) < 1e-14 for value, density in those) for those in conditions.values()]
    return [*met, False].index(False)


@pytest.mark.parametrize("name", TABLEAUS)
def test_a_tableau_has_the_order_it_states(name):
    """Not more than that: explicit methods of up to four stages have at most as much order as stages."""
    method = TABLEAUS[name]
    assert orders_met(method) == method.order == RungeKutta(name).order
    # nodes are times inside the step, and never go back
    assert list(method.nodes) == sorted(method.nodes)
    assert method.nodes[0] == 0
    assert method.nodes[-1] <= 1
