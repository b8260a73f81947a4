"""The guide's own code is run: a solver of 15 lines has the order it states, and its test can fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs" / "solvers" / "adding.md"


@pytest.fixture(scope="module")
def code():
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    return blocks, names


def test_the_guide_keeps_its_promise_of_15_lines(code):
    """From the class's first line to its last, the docstring and blank lines not counted."""
    body = code[0][0].split("class Adams2")[1].splitlines()
    assert len([line for line in body if line.strip() and '"""' not in line]) <= 15


def test_the_guides_tests_pass(code):
    """Exact tables, order 2 on G4, and order 1 with the mechanism off."""
    tests = [test for name, test in code[1].items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()


def test_the_guides_test_of_the_order_fails_without_the_mechanism(code):
    names = dict(code[1])
    straight = names["Straight"]
    with pytest.raises(AssertionError):
        assert names["order"](straight()) == pytest.approx(names["Adams2"]().order, abs=0.15)
