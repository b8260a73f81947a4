"""The atlas's rows mean what they say: a check must be able to fail, and a control must."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.atlas import Check, Row, at_least, at_most, close, control, find, holds, rows, run, within
from sfumato.cli import main
from sfumato.errors import ArgumentError


def row(*checks: Check) -> Row:
    return Row("X1", "an-example", "A title", "Somebody", 2024, "0000.00000", "It holds.", "yes", [lambda: iter(checks)])


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (at_most("a", 1.0, 1.0), True),
        (at_most("a", 1.1, 1.0), False),
        (at_least("a", 0.9, 1.0), False),
        (within("a", 2.0, 1.0, 2.0), True),
        (within("a", 2.1, 1.0, 2.0), False),
        (close("a", 10.4, 10.0, relative=0.05), True),
        (close("a", 10.6, 10.0, relative=0.05), False),
        (close("a", -0.3, 0.0, absolute=0.2), False),
    ],
)
def test_bounds_hold_where_they_say(check, passed):
    assert check.passed is passed


@pytest.mark.parametrize(
    "check",
    [
        at_most("a", math.nan, 1.0),
        at_least("a", math.nan, 1.0),
        within("a", math.nan, 0, 1),
        close("a", math.nan, 1.0, relative=9.0),
    ],
)
def test_nan_passes_nothing(check):
    assert not check.passed


def test_a_tolerance_that_cannot_be_met_or_missed_is_refused():
    with pytest.raises(ArgumentError, match="relative, absolute"):
        close("a", 0.0, 0.0, relative=0.1)
    with pytest.raises(ArgumentError, match="relative, absolute"):
        close("a", 0.0, 1.0, absolute=math.inf)


def test_a_control_is_good_only_if_it_fails():
    good, bad = at_most("a", 0.0, 1.0), at_most("a", 2.0, 1.0)
    assert run(row(good, control(bad))).good
    assert not run(row(good, control(good))).good
    assert not run(row(bad, control(bad))).good


def test_findings_are_the_plain_data_that_the_front_door_promises():
    told = run(row(at_most("a", 0.0, 1.0), control(at_most("b", 2.0, 1.0)))).to_dict()
    paper = {"id", "slug", "title", "authors", "year", "arxiv", "family", "claim", "reproduced"}
    assert set(told) == paper | {"rooms", "code", "checks", "controls", "seconds"}
    assert told["checks"] == [{"name": "a", "measured": 0.0, "expected": "<= 1", "low": None, "high": 1.0, "passed": True}]
    assert told["controls"] == [{"name": "b", "measured": 2.0, "expected": "<= 1", "low": None, "high": 1.0, "failed_as_it_should": True}]
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    ("check", "bounds"),
    [
        (at_most("a", 0.5, 1.0), (None, 1.0)),
        (at_least("a", 0.5, 1.0), (1.0, None)),
        (within("a", 0.5, 0.0, 1.0), (0.0, 1.0)),
        (close("a", 0.5, 2.0, relative=0.1, absolute=0.3), (1.5, 2.5)),
        (control(at_most("a", 2.0, 1.0)), (None, 1.0)),
        (holds("a", "up", "up", True), (None, None)),
    ],
)
def test_a_check_knows_its_bounds(check, bounds):
    assert (check.low, check.high) == pytest.approx(bounds)


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(0.01, 5))
def test_what_lies_between_the_bounds_passes_and_nothing_else(measured, limit, slack):
    # a picture is drawn from the bounds alone, so they have to say what the verdict says; rounding decides at the bound itself
    for check in (at_most("a", measured, limit), at_least("a", measured, limit), close("a", measured, limit, absolute=slack)):
        low, high = (-math.inf if check.low is None else check.low), (math.inf if check.high is None else check.high)
        if min(abs(measured - low), abs(measured - high)) > 1e-9:
            assert check.passed == (low <= measured <= high)


def test_rows_have_distinct_names_and_are_found_by_either():
    every = rows()
    assert len({r.id for r in every}) == len({r.slug for r in every}) == len(every) >= 1
    for r in every:
        assert find(r.id.lower()) is r
        assert find(r.slug) is r


def test_the_front_door_writes_json_and_its_exit_code_is_the_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sfumato.atlas.find", lambda name: row(at_most("a", 0.0, 1.0), control(at_most("b", 2.0 if name == "good" else 0.0, 1.0)))
    )
    assert call("atlas", "run", "good", "--json", tmp_path / "out.json") == 0
    assert json.loads((tmp_path / "out.json").read_text())[0]["slug"] == "an-example"
    assert call("atlas", "run", "bad") == 1
    assert "SHOULD NOT" in capsys.readouterr().out


def test_unknown_rows_and_no_rows_are_clear_errors(capsys):
    assert call("atlas", "run", "no-such-paper") == 2
    assert call("atlas", "run") == 2
    assert call("atlas", "run", "T3", "--all") == 2
    assert "atlas list" in capsys.readouterr().err
