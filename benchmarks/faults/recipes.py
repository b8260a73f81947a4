"""Recipes that were truncated, flipped or altered: each is refused in one line, or is a whole recipe that samples."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.faults.mutate import spoil_bytes, spoil_values
from benchmarks.faults.subject import chance
from benchmarks.faults.tally import Tally
from benchmarks.faults.watch import Trials, watched
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn.training.files import read_tensors, write_tensors
from sfumato.noise import VariancePreserving
from sfumato.sample import Exponential, Linearisation, uniform_log_snr
from sfumato.tune import Recipe

_EVENT = (2, 3)
_LAW = "statistics.safetensors"
_ODD = (math.nan, math.inf, -1.0, 0.0, 1e300)


def run(quick: bool, home: Path) -> list[Tally]:
    """Spoilt recipes, and spoilt statistics beside whole ones."""
    counts = (300, 60) if quick else (9000, 1000)
    trials = (Trials("recipe.json spoilt", _recipes, counts[0], home / "a"), Trials("its statistics spoilt", _laws, counts[1], home / "b"))
    return [watched(each) for each in trials]


def a_recipe(rank: int | None) -> Recipe:
    """A recipe of a spectral and a scalar program over a law of the given rank; None for a scalar one without a law."""
    process = VariancePreserving()
    plain = Exponential().compile(process, uniform_log_snr(process, 4))
    if rank is None:
        return Recipe(_EVENT, {3: plain}, 3)
    g = torch.Generator().manual_seed(rank)
    a = torch.randn(6, 6, generator=g, dtype=torch.float64)
    law = Gaussian(torch.randn(6, generator=g), SpectralCovariance.from_dense((a @ a.T).float(), rank))
    spectral = Exponential(Linearisation.gaussian(law), 2, corrector=True, teleport=True).compile(process, uniform_log_snr(process, 4))
    return Recipe(_EVENT, {3: spectral, 4: plain}, 3, law, "model", None, {3: {"error": 0.1, "standard_error": 0.01}})


def _originals(home: Path) -> list[Path]:
    for rank in (None, 4, 6):
        a_recipe(rank).save(home / f"whole-{rank}")
    return [home / f"whole-{rank}" for rank in (None, 4, 6)]


def _recipes(home: Path, count: int) -> Callable[[int], Callable[[], str | None]]:
    rng, wholes, folder = chance("recipes"), _originals(home), home / "work"

    def trial(i: int) -> Callable[[], str | None]:
        whole = rng.choice(wholes)
        content = (whole / "recipe.json").read_bytes()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        spoilt = spoil_bytes(content, rng) if rng.random() < 0.4 else json.dumps(spoil_values(json.loads(content), rng)).encode()
        (folder / "recipe.json").write_bytes(spoilt)
        return lambda: _use(folder)

    return trial


def _laws(home: Path, count: int) -> Callable[[int], Callable[[], str | None]]:
    rng, wholes, folder = chance("laws"), _originals(home)[1:], home / "work"

    def trial(i: int) -> Callable[[], str | None]:
        whole = rng.choice(wholes)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        law = folder / _LAW
        if rng.random() < 0.5:
            law.write_bytes(spoil_bytes(law.read_bytes(), rng))
            return lambda: _use(folder)
        # by somebody who knows the format: checksum and mark are right
        tensors, record = read_tensors(law)
        name = rng.choice(sorted(tensors))
        value = tensors[name].clone()
        match rng.randrange(5):
            case 0 if value.numel():
                value.view(-1)[rng.randrange(value.numel())] = torch.tensor(rng.choice(_ODD), dtype=torch.float64).to(value.dtype)
            case 1:
                value = torch.zeros(rng.choice([(), (0,), (1,), (7,), (6, 0), (6, 5), (1, 1, 1)]))
            case 2:
                value = value.to(rng.choice([torch.int64, torch.bool, torch.float16, torch.complex64]))
            case 3:
                value = value * rng.choice([-1.0, 0.0, 1e30])
            case _:
                tensors["surprise"] = value.clone()
        recipe = json.loads((folder / "recipe.json").read_bytes())
        mark = write_tensors(law, {**tensors, name: value}, record)
        (folder / "recipe.json").write_bytes(json.dumps({**recipe, "statistics": mark}).encode())
        return lambda: _use(folder)

    return trial


def _use(folder: Path) -> str | None:
    """What is wrong with a recipe that loads."""
    recipe = Recipe.load(folder)
    for program in recipe.programs.values():
        if not all(bool(torch.isfinite(c).all()) for row in program.rows for _, part in row.parts() for c in part.values()):
            return "a table that is not finite"
    json.dumps(recipe.to_dict())
    if math.prod(recipe.event_shape) > 10_000:
        return None
    process, size = recipe.program().process, math.prod(recipe.event_shape)
    denoiser = Gaussian(torch.zeros(size), SpectralCovariance.isotropic(size, 1.0), recipe.event_shape).denoiser(process)
    samples = recipe.sampler(denoiser).sample(2, seed=0)
    return None if samples.shape == (2, *recipe.event_shape) else f"samples of the shape {tuple(samples.shape)}"
