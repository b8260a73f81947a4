"""Recipes of any valid content come back as they were; any other data are refused by name."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path

import torch
from generated import F64, events, everyday, examples, gaussians, grids, numbers, tensor
from hypothesis import example, given
from hypothesis import strategies as st

from sfumato.errors import RecipeError, SfumatoError
from sfumato.noise import VariancePreserving
from sfumato.sample import PRESETS, Exponential, Linearisation, run
from sfumato.seeds import noise
from sfumato.tune import Recipe

STARTS = [name for name in PRESETS if not name.startswith(("dpm-solver-", "deis", "ipndm")) and not name.endswith("renewed")]
"""Those that need no signal at the start, nor zero noise at the end."""


@st.composite
def recipes(draw):
    event = draw(events.filter(bool))
    process = draw(everyday)
    law = draw(gaussians(event)) if draw(st.booleans()) else None
    programs = {}
    for budget in draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=3, unique=True)):
        spectral = law is not None and draw(st.booleans())
        solver = Exponential(Linearisation.gaussian(law), 2) if spectral else PRESETS[draw(st.sampled_from(STARTS))]
        programs[budget] = solver.compile(process, draw(grids(4, start=0.9)))
    default = draw(st.sampled_from(sorted(programs)))
    evidence = {n: {"error": draw(numbers(0.0, 10.0)), "standard_error": draw(numbers(0.0, 1.0))} for n in programs}
    model, classes = draw(st.none() | st.text(max_size=8)), draw(st.none() | st.integers(1, 1000))
    return Recipe(event, programs, default, law, model, classes, evidence)


@examples(25)
@given(recipes())
def test_a_recipe_comes_back_as_it_was(recipe):
    """From its folder, and through JSON text; its programs give the same samples to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        recipe.save(folder)
        back = Recipe.load(folder)
    assert back.to_dict() == recipe.to_dict()
    assert (back.event_shape, back.default, back.model, back.classes) == (recipe.event_shape, recipe.default, recipe.model, recipe.classes)
    x, draws = tensor((2, *recipe.event_shape), 0), noise(0, 2, recipe.event_shape, dtype=F64)
    for n, program in recipe.programs.items():
        ours, theirs = (run(p, lambda x, t: torch.tanh(x), x, draws) for p in (program, back.program(n)))
        assert torch.equal(ours, theirs)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
BASE = Recipe((2,), {2: PRESETS["ddim"].compile(VariancePreserving(), (1.0, 0.5, 0.0))}, 2, None, None, None, {2: {"error": 0.1}}).to_dict()


def places(data, at=()):
    """The paths of all entries of nested data."""
    found = [at] if at else []
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return found + [place for key, value in items for place in places(value, (*at, key))]


def spoilt(path, value):
    """The recipe of `BASE` with one entry replaced."""
    data = copy.deepcopy(BASE)
    *way, last = path
    inner = data
    for key in way:
        inner = inner[key]
    inner[last] = value
    return data


@examples(120)
@given(st.sampled_from(places(BASE)), json_values)
@example(("programs",), {"9" * 5000: BASE["programs"]["2"]})
@example(("evidence",), {"9" * 5000: {}})
@example(("programs",), {"٢": BASE["programs"]["2"]})
@example(("event_shape",), [10**400])
@example(("programs", "2", "times"), [10**400, 0.5, 0.0])
@example(("programs", "2", "format"), [])
def test_a_recipe_with_one_entry_of_any_json_is_one_or_refused_by_name(path, value):
    try:
        Recipe.from_dict(spoilt(path, value), None)
    except SfumatoError:
        return


@examples(80)
@given(json_values)
def test_any_json_is_refused_by_name(value):
    try:
        Recipe.from_dict(value, None)
    except RecipeError:
        return
    raise AssertionError("accepted")


@examples(60)
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode), st.integers(0, 400))
@example(b"[" * 100_000, 0)
@example(b"9" * 5000, 0)
def test_any_bytes_are_refused_by_name(noise_bytes, cut):
    """Random bytes alone, and in the middle of a recipe's own."""
    text = json.dumps(BASE).encode()
    for content in (noise_bytes, text[:cut] + noise_bytes + text[cut + 1 :]):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "recipe.json").write_bytes(content)
            try:
                Recipe.load(folder)
            except SfumatoError:
                continue
