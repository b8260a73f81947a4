"""Recipes are plain data: they come back exactly, and whatever else is in the file is refused with its name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from sfumato.errors import ArgumentError, OutputError, RecipeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.noise import VariancePreserving
from sfumato.sample import Exponential, Linearisation, uniform_log_snr
from sfumato.tune import Recipe


def law(dim: int = 6, rank: int | None = 4) -> Gaussian:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(dim, dim, generator=g, dtype=torch.float64)
    return Gaussian(torch.randn(dim, generator=g).float(), SpectralCovariance.from_dense((a @ a.T).float(), rank))


def recipe(rank: int | None = 4) -> Recipe:
    process, gaussian = VariancePreserving(), law(rank=rank)
    spectral = Exponential(Linearisation.gaussian(gaussian), 2, corrector=True, teleport=True)
    programs = {
        4: spectral.compile(process, uniform_log_snr(process, 5)),
        6: Exponential().compile(process, uniform_log_snr(process, 6)),
    }
    return Recipe((2, 3), programs, 4, gaussian, "model", None, {4: {"error": 0.1, "standard_error": 0.01}})


@pytest.mark.parametrize("rank", [4, None])
def test_a_saved_recipe_samples_bit_for_bit_as_before(tmp_path, rank):
    ours = recipe(rank)
    ours.save(tmp_path)
    back = Recipe.load(tmp_path / "recipe.json")
    assert back.to_dict() == ours.to_dict()
    denoiser = ours.law.denoiser(VariancePreserving())
    flat = replace(ours, event_shape=(6,)), replace(back, event_shape=(6,))
    for budget in (4, 6):
        first, second = (r.sampler(denoiser, budget).sample(8, seed=3) for r in flat)
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"default": 5}, "default"),
        ({"event_shape": [7]}, "event_shape"),
        ({"event_shape": [0, 6]}, "event_shape"),
        ({"event_shape": "2x3"}, "event_shape"),
        ({"model": 3}, "model"),
        ({"programs": []}, "programs"),
        ({"programs": {"04": {}}}, "programs"),
        ({"evidence": {"4": {"error": "small"}}}, "evidence"),
    ],
)
def test_an_altered_recipe_is_refused_by_the_name_of_what_is_wrong(tmp_path, change, named):
    path = recipe().save(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RecipeError, match=named):
        Recipe.load(tmp_path)


def test_every_truncation_of_a_recipe_is_refused_and_none_is_half_read(tmp_path):
    path = recipe().save(tmp_path)
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 2, max(1, len(whole) // 60)):
        path.write_bytes(whole[:cut])
        with pytest.raises(RecipeError):
            Recipe.load(tmp_path)


def test_altered_or_missing_statistics_are_refused(tmp_path):
    recipe().save(tmp_path)
    statistics = tmp_path / "statistics.safetensors"
    whole = bytearray(statistics.read_bytes())
    whole[-3] ^= 1
    statistics.write_bytes(bytes(whole))
    with pytest.raises(RecipeError, match="statistics"):
        Recipe.load(tmp_path)
    statistics.unlink()
    with pytest.raises(RecipeError, match="statistics"):
        Recipe.load(tmp_path)


def test_a_budget_that_was_not_tuned_is_refused_with_those_that_were():
    with pytest.raises(ArgumentError, match="4, 6"):
        recipe().program(5)


def test_a_recipe_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = recipe().save(tmp_path)
    before = path.read_bytes()
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError):
        recipe().save(blocked / "below")
    assert path.read_bytes() == before
