"""What "Which sampler should I use" says was measured: its parts are those of the saved result, and they rank as the numbers do."""

from __future__ import annotations

import json

import pytest
from benchmarks.choosing_page import HAVE, PAGE, RESULT, decision, markers, order, page, standings

FACTS = json.loads(RESULT.read_text())["facts"]


def told(error: float, spacing: str) -> dict[str, object]:
    return {"error": error, "choice": f"name · {spacing}"}


@pytest.fixture
def worlds():
    """Two worlds: `a` is best in the geometric mean though not in the second world, `slow` failed in one of them."""
    one = {"a": told(0.01, "time"), "b": told(0.04, "time"), "slow": told(1e-9, "time")}
    two = {"a": told(0.04, "edm to 0.03"), "b": told(0.03, "time"), "slow": told(float("inf"), "time")}
    kinds = {"ours": {"g": told(0.001, "log-snr")}, "fitted": {"fitted · x": told(1e-4, "none")}, "diffusers": {"d": told(0.5, "time")}}
    return {name: {"8": {"published": published} | kinds} for name, published in (("first", one), ("second", two))}


def test_the_page_holds_what_the_saved_result_says():
    text = PAGE.read_text()
    assert page(text, FACTS) == text


@pytest.mark.parametrize("part", ["decision", "order", "tables"])
def test_a_number_altered_by_hand_is_seen(part):
    begin, end = markers(part)
    before, rest = PAGE.read_text().split(begin)
    altered = before + begin + rest.split(end)[0].replace("0.0", "0.1", 1) + end + rest.split(end)[1]
    assert page(altered, FACTS) != altered


def test_solvers_rank_by_the_geometric_mean_of_the_worlds_that_all_have(worlds):
    ranked = standings(worlds, "8", ("published",))
    assert [s.solver for s in ranked] == ["a", "b"]
    assert ranked[0].error == pytest.approx(0.02)


def test_whoever_has_more_may_take_whatever_somebody_with_less_takes(worlds):
    tables = decision(worlds, ["8"]).split("**You have ")[1:]
    assert len(tables) == len(HAVE)
    assert [table.splitlines()[-1 if i == 2 else -2].split("**")[1] for i, table in enumerate(tables)] == ["a", "g", "fitted · x"]
    for budget in map(str, FACTS["budgets"]):
        errors = [standings(FACTS["worlds"], budget, kinds)[0].error for kinds in HAVE.values()]
        assert errors == sorted(errors, reverse=True)


def test_the_order_is_ahead_only_where_it_stays_ahead():
    def world(seconds: list[float], thirds: list[float]) -> dict[str, object]:
        pairs = {
            str(n): {"dpm-solver++-2m": told(a, "time"), "dpm-solver++-3m": told(b, "time")}
            for n, (a, b) in enumerate(zip(seconds, thirds, strict=True))
        }
        return {n: {"published": pair} for n, pair in pairs.items()}

    budgets = ["0", "1", "2"]
    assert order({"w": world([3, 2, 1], [1, 3, 0.5])}, budgets).endswith("From 2 evaluations on the third order is ahead.")
    assert order({"w": world([3, 2, 1], [1, 1, 2])}, budgets).endswith("At no budget does the third order stay ahead.")
