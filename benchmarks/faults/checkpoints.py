"""Checkpoints and states of runs that were truncated, flipped or altered: each is refused in one line, or is a model that answers."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.faults.mutate import spoil_bytes, spoil_values
from benchmarks.faults.subject import chance
from benchmarks.faults.tally import Tally
from benchmarks.faults.watch import Trials, watched
from sfumato.denoise import ConvNet, GaussianScalings, Preconditioned, ResidualMLP
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn import FitSettings, about_model, fit, load_model, save_model
from sfumato.learn.training.files import read_tensors, write_tensors
from sfumato.noise import EDM, VariancePreserving

_FILES = ("config.json", "model.safetensors")
_STATE = "training.safetensors"
_SETTINGS = FitSettings(2, 8, warmup=0)


def run(quick: bool, home: Path) -> list[Tally]:
    """Models, by chance and by somebody who knows the format, and states."""
    counts = (30, 60, 6) if quick else (700, 1100, 200)
    kinds = (("model spoilt", _by_chance), ("model altered, its checksum right", _by_design), ("state of a run spoilt", _states))
    return [watched(Trials(name, make, n, home / str(i))) for i, ((name, make), n) in enumerate(zip(kinds, counts, strict=True))]


def models() -> list[Preconditioned]:
    """A perceptron with classes, one over Gaussian scalings, and convolutions."""
    law = Gaussian(torch.zeros(4), SpectralCovariance.low_rank(torch.eye(4)[:, :2], torch.tensor([2.0, 1.0]), 0.1), (1, 2, 2))
    return [
        Preconditioned(ResidualMLP((1, 2, 2), 4, 1, 3), VariancePreserving(), 0.7),
        Preconditioned(ResidualMLP((1, 2, 2), 4, 1), EDM(), GaussianScalings(law, 0.01)),
        Preconditioned(ConvNet((1, 4, 4), 8, 1), VariancePreserving(), 1.0),
    ]


def _originals(home: Path) -> list[Path]:
    for i, model in enumerate(models()):
        save_model(model, home / f"whole-{i}", {"data": "digits"})
    return [home / f"whole-{i}" for i in range(3)]


def _fresh(folder: Path, whole: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)


def _by_chance(home: Path, count: int) -> Callable[[int], Callable[[], str | None]]:
    rng, wholes, folder = chance("checkpoints"), _originals(home), home / "work"

    def trial(i: int) -> Callable[[], str | None]:
        _fresh(folder, rng.choice(wholes))
        path = folder / rng.choice(_FILES)
        path.write_bytes(spoil_bytes(path.read_bytes(), rng))
        return lambda: _use(folder)

    return trial


def _by_design(home: Path, count: int) -> Callable[[int], Callable[[], str | None]]:
    rng, wholes, folder = chance("designs"), _originals(home), home / "work"

    def trial(i: int) -> Callable[[], str | None]:
        _fresh(folder, rng.choice(wholes))
        tensors, record = read_tensors(folder / _FILES[1])
        config: Any = record
        if rng.random() < 0.7:
            part = rng.choice(["network", "network", "scalings", "process", None])
            config = spoil_values(record, rng) if part is None else {**record, part: spoil_values(record[part], rng)}
        else:
            tensors = spoil_tensors(tensors, rng)
        write_tensors(folder / _FILES[1], tensors, config)
        (folder / _FILES[0]).write_text(json.dumps(config))
        return lambda: _use(folder)

    return trial


def spoil_tensors(tensors: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    """One of the tensors absent, of another shape, dtype or size, or not finite."""
    out, name = dict(tensors), rng.choice(sorted(tensors))
    value = out[name].clone()
    match rng.randrange(5):
        case 0:
            del out[name]
        case 1 if value.numel():
            value.view(-1)[rng.randrange(value.numel())] = rng.choice([float("nan"), float("inf"), 1e38])
            out[name] = value
        case 2:
            out[name] = value.to(rng.choice([torch.int64, torch.bool, torch.float16, torch.complex64]))
        case 3:
            out[name] = torch.zeros(rng.choice([(), (0,), (1,), (7,), (3, 5), (1, 1, 1)]))
        case _:
            out[f"{name}.surprise"] = value
    return out


def _states(home: Path, count: int) -> Callable[[int], Callable[[], str | None]]:
    rng, wholes, folder = chance("states"), _originals(home), home / "work"
    data = torch.randn(16, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    fit(models()[1], data, FitSettings(2, 8, warmup=0), folder=wholes[1], save_every=1)
    accelerator = Accelerator()  # not in a trial: it writes every variable of the environment anew

    def trial(i: int) -> Callable[[], str | None]:
        _fresh(folder, wholes[1])
        path = folder / _STATE
        if rng.random() < 0.5:
            path.write_bytes(spoil_bytes(path.read_bytes(), rng))
        else:
            tensors, record = read_tensors(path)
            altered = rng.random() < 0.5
            write_tensors(path, spoil_tensors(tensors, rng) if altered else tensors, record if altered else spoil_values(record, rng))
        return lambda: _resume(data, folder, accelerator)

    return trial


def _resume(data: torch.Tensor, folder: Path, accelerator: Accelerator) -> str | None:
    model = models()[1]
    fit(model, data, _SETTINGS, folder=folder, save_every=1, accelerator=accelerator)
    return _answers(model)


def _use(folder: Path) -> str | None:
    """What is wrong with a model that loads."""
    about_model(folder)
    return _answers(load_model(folder))


def _answers(model: Preconditioned) -> str | None:
    shape = model.event_shape or (4,)
    answer = model.denoise(torch.ones(2, *shape), 0.5)
    if answer.shape != (2, *shape):
        return f"an answer of the shape {tuple(answer.shape)}"
    return None if all(bool(torch.isfinite(p).all()) for p in model.state_dict().values()) else "weights that are not finite"
