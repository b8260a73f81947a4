"""The oldest versions that are tested are the lower bounds that are promised, and coverage is counted as it says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from scripts import coverage_rooms

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
USED = ("data", "diffusers", "ot")
"""The extras that sfumato itself imports; the others bring tools."""
BOUNDS = [*PROJECT["dependencies"], *(bound for extra in USED for bound in PROJECT["optional-dependencies"][extra])]


def pinned(file):
    lines = [line for line in (ROOT / file).read_text().splitlines() if "==" in line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_oldest_that_is_promised_is_the_oldest_that_is_tested(bound):
    name, least = re.fullmatch(r"([\w-]+)>=([\d.]+)", bound).groups()
    tested = pinned("constraints-oldest.txt")[name]
    assert tested == least or re.fullmatch(rf"{re.escape(least)}(\.0)+", tested)


def test_ci_is_not_older_than_what_is_promised():
    newer, oldest = pinned("constraints.txt"), pinned("constraints-oldest.txt")
    for name in newer.keys() & oldest.keys():
        assert [int(part) for part in newer[name].split(".")] >= [int(part) for part in oldest[name].split(".")], name


def file(lines, of, branches, of_branches):
    return {"summary": {"covered_lines": lines, "num_statements": of, "covered_branches": branches, "num_branches": of_branches}}


def test_coverage_adds_up_by_room():
    files = {
        "src/sfumato/noise/a.py": file(8, 10, 1, 2),
        "/x/sfumato/noise/deep/b.py": file(3, 5, 0, 3),
        "src/sfumato/seeds.py": file(0, 0, 0, 0),
    }
    rooms = coverage_rooms.summary({"files": files})
    assert list(rooms) == ["noise", "seeds.py", "total"]
    assert [rooms["noise"][key] for key in coverage_rooms.COUNTED] == [11, 15, 1, 5]
    assert rooms["noise"]["percent"] == rooms["total"]["percent"] == 60.0
    assert rooms["seeds.py"]["percent"] == 100.0
    assert "11 of 15" in coverage_rooms.table(rooms)
