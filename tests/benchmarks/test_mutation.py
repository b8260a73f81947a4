"""The mutation check on a package of one small file, where it is known by hand which faults a test can see."""

from __future__ import annotations

import importlib
import sys

import pytest
from benchmarks.mutation.campaign import _naming
from benchmarks.mutation.coverage import digest, marked
from benchmarks.mutation.mutants import PACKAGE, mutants
from benchmarks.mutation.overlay import Index
from benchmarks.mutation.server import isolated
from benchmarks.mutation.summary import reason, summary, wilson

SOURCE = '''"""A file to break."""

import math

SCALE = 2.0


def clipped(x: float, low: float = 0.0) -> float:
    """`SCALE x`, not below `low`."""
    if x <= low:
        return low
    return (SCALE *
            x)


class Line:
    """A line with a slope."""

    def __init__(self, slope):
        self.slope = slope

    def at(self, x):
        def inner():
            return self.slope * x + math.sin(x)

        return -inner()

    def refuse(self, x):
        raise ValueError(f"{x + 1} is not {2 * x}")

    def __repr__(self):
        return "-" * 3
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The package, imported, with all functions that it has."""
    package = tmp_path / "toy_to_mutate"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "room.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("toy_to_mutate.room")
    yield package, module
    for name in [name for name in sys.modules if name.startswith("toy_to_mutate")]:
        del sys.modules[name]


def _check(module):
    """What a good test of the file says. At `x = low` both branches of `clipped` may differ; at 0 they do not."""
    assert [module.clipped(x) for x in (-1.0, 0.0, 3.0)] == [0.0, 0.0, 6.0]
    assert module.Line(3.0).at(0.0) == 0.0
    assert module.Line(3.0).at(2.0) == pytest.approx(-6.909297426825682, abs=1e-12)


def _verdict(module, tell):
    try:
        _check(module)
    except (AssertionError, ZeroDivisionError) as error:
        tell(f"failed\t_check\t{error}")


def test_every_fault_is_one_valid_change_that_keeps_the_lines(toy):
    package, _ = toy
    found = {m.identity.split("::", 1)[1]: m for m in mutants("room.py", package)}
    assert set(found) == {
        "<module>::sign of float::1", "<module>::scale of float::1", "clipped::constant of float::1", "clipped::<= to <::1",
        "clipped::* to /::1",
        "Line.at.inner::+ to -::1", "Line.at.inner::* to /::1", "Line.at.inner::sin to cos::1", "Line.at::drop minus::1",
    }  # fmt: skip
    for mutant in found.values():
        text = mutant.source(package).decode()
        compile(text, "room.py", "exec")
        assert text != SOURCE
        assert text.count("\n") == SOURCE.count("\n")
    assert found["clipped::<= to <::1"].difference(package) == "x <= low  ->  (x < low)"


def test_what_must_die_dies_and_what_is_the_same_lives(toy):
    package, module = toy
    index, status = Index(package), {}
    for mutant in mutants("room.py", package):

        def work(tell, mutant=mutant):
            tell("not in place") if not index.put(mutant) else _verdict(module, tell)

        status[mutant.identity.split("::", 1)[1]] = isolated(work, 60)["status"]
    # at x = low = 0 the line through the origin is at its bound: `<=` or `<` is the same function
    assert [name for name, verdict in status.items() if verdict != "killed"] == ["clipped::<= to <::1"]
    _check(module)  # no fault reached this process


def test_no_fault_no_death_and_a_death_has_a_cause(toy):
    _, module = toy
    assert isolated(lambda tell: _check(module), 60)["status"] == "survived"

    def failing(tell):
        tell("start\ttest_a")
        tell("failed\ttest_a\tassert 1 == 2")

    assert isolated(failing, 60).items() >= {"status": "killed", "by": "test_a", "why": "assert 1 == 2"}.items()
    assert isolated(lambda tell: 1 / 0, 60)["status"] == "broken"  # the check itself went wrong: that kills nothing

    def endless(tell):
        tell("start\ttest_b")
        while True:
            pass

    assert isolated(endless, 0.5).items() >= {"status": "killed", "by": "test_b", "why": "timeout"}.items()


def test_marks_name_the_statement_of_a_fault_and_change_nothing_else(toy):
    package, module = toy
    seen = set()
    names = {"__reached__": seen.add, "__name__": "room"}
    exec(compile(marked("room.py", SOURCE.encode()), "room.py", "exec"), names)
    seen.clear()
    assert names["clipped"](-1.0) == module.clipped(-1.0)
    places = {m.identity.split("::", 1)[1]: f"room.py:{m.place}" for m in mutants("room.py", package)}
    assert places["clipped::<= to <::1"] in seen
    assert places["clipped::* to /::1"] not in seen
    names["clipped"](3.0)
    assert places["clipped::* to /::1"] in seen


def test_a_file_is_the_same_while_its_code_is(toy):
    package, _ = toy
    before = digest(package / "room.py")
    (package / "room.py").write_text(SOURCE.replace("A line with", "A straight line with") + "# a comment\n")
    assert digest(package / "room.py") == before
    (package / "room.py").write_text(SOURCE.replace("2.0", "3.0"))
    assert digest(package / "room.py") != before


def test_the_interval_is_where_the_normal_test_does_not_refuse():
    low, high = wilson(45, 50)
    for end in (low, high):
        assert (45 - 50 * end) ** 2 == pytest.approx(1.96**2 * 50 * end * (1 - end), rel=1e-9)
    assert 0 < low < 0.9 < high < 1
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_survivor_counts_against_the_tests_unless_it_has_a_reason():
    verdicts = {
        "noise/a.py::f::+ to -::1": {"status": "killed"},
        "noise/a.py::f::+ to -::2": {"status": "survived"},
        "noise/a.py::g[x]::* to /::1": {"status": "not covered"},
        "exact/b.py::f::+ to -::1": {"status": "killed"},
    }
    known = {"noise/a.py::g[x]::*": "never called in earnest"}
    assert reason("noise/a.py::g[x]::* to /::1", known) == "never called in earnest"
    assert reason("noise/a.py::f::+ to -::2", known) is None
    found = summary(verdicts, known)
    assert found["rooms"]["noise"].items() >= {"tried": 3, "killed": 1, "explained": 1, "of_distinct": 0.5}.items()
    assert found["files"]["exact/b.py"]["of_distinct"] == 1.0
    assert [(s["identity"].split("::")[1], s["reason"]) for s in found["survivors"]] == [("f", None), ("g[x]", "never called in earnest")]


def test_constants_are_tried_on_the_tests_that_name_them():
    tests = {"tests/sample/test_momentum.py", "tests/exact/test_bridge.py"}
    assert _naming(PACKAGE / "sample" / "presets.py", tests) == {"tests/sample/test_momentum.py"}
