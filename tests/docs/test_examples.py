"""Examples in docstrings print what they say, and what a newcomer meets first has one."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import sfumato

SOURCE = Path(sfumato.__file__).parent
FILES = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text()]
FIRST = {
    "data": ("split",),
    "denoise": ("Denoiser", "Wrapped"),
    "exact": ("Empirical", "GaussianMixture", "fit_gaussian", "fit_mixture"),
    "explain": ("score_probe", "teleport_forecast"),
    "learn": ("fit", "save_model"),
    "metrics": ("energy_distance",),
    "noise": ("LinearSDE", "VariancePreserving"),
    "sample": ("Program", "Sampler", "flow", "log_likelihood", "presets", "response"),
    "seeds": ("noise",),
    "tune": ("", "Recipe"),
}


def module_of(path: Path) -> str:
    """The name that a file is imported by."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_examples_print_what_they_say(path, tmp_path, monkeypatch):
    """As many as the file has: one that is not found, behind a decorator for instance, would say nothing."""
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(importlib.import_module(module_of(path)))
    assert failed == 0
    assert tried == sum(line.strip().startswith(">>> ") for line in path.read_text().splitlines())


def test_an_example_that_is_wrong_is_seen(capsys):
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner().run(wrong).failed == 1


@pytest.mark.parametrize(("room", "name"), [(room, name) for room, names in FIRST.items() for name in names])
def test_what_a_newcomer_meets_first_has_an_example(room, name):
    """By its public name; of a room without a name, in the room's own words."""
    place = importlib.import_module(f"sfumato.{room}")
    assert ">>> " in (getattr(place, name) if name else place).__doc__
