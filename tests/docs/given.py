"""What the pages take as given, in small: a model and its data under the names that the pages use, and folders a reader would have."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from PIL import Image

STEPS = 20
LITTLE = {"fit": 32, "judge": 16, "measure": 16, "steps": 24, "quality": 0, "world_trials": 4, "network_trials": 1, "closed_forms": 0}


@functools.cache
def little_result() -> Any:
    """What a real search finds for `model` on a few of its data, with a hundredth of the work and two rivals."""
    from sfumato.data import Dataset
    from sfumato.integrations import PEERS
    from sfumato.tune.tuning import TuneSettings, tune

    few = Dataset("digits", data().train[:200], data().test[:50])
    with mock.patch("sfumato.tune.tuning.PEERS", PEERS[:2]):
        return tune(model(), few, TuneSettings(evaluations=(8,), fits=(), **LITTLE))[1]


def tune_in_small(denoiser: Any, data: Any, settings: Any = None, **_: Any) -> Any:
    """In the place of `tune`, whose search has tests of its own: a published solver a budget, with the findings of `little_result`."""
    from sfumato.sample import PRESETS, uniform_log_snr
    from sfumato.tune.recipe import Recipe
    from sfumato.tune.tuning import TuneSettings

    process, budgets = denoiser.process, (settings or TuneSettings()).evaluations
    programs = {n: PRESETS["unipc-2-bh2"].compile(process, uniform_log_snr(process, n, t_min=0.01)) for n in budgets}
    return Recipe(tuple(data.event_shape), programs, default=8 if 8 in budgets else budgets[0]), little_result()


def in_small(command: list[str]) -> list[str]:
    """A command of a page with as little work as it can do: few training steps, and one question of those that it asks."""
    from sfumato.explain.report import QUESTIONS

    name, *rest = command
    if name in ("tune", "explain", "train"):
        rest = _with(rest, "--steps", str(STEPS))
    if name == "explain":
        asked = rest[rest.index("--only") + 1].split(",") if "--only" in rest else list(QUESTIONS)
        assert set(asked) <= set(QUESTIONS), asked
        rest = _with(rest, "--only", "gaussian")
    return [name, *rest]


def _with(words: list[str], option: str, value: str) -> list[str]:
    at = words.index(option) if option in words else len(words)
    return [*words[:at], option, value, *words[at + 2 :]]


@functools.cache
def model() -> Any:
    """The default denoiser of the digits, hardly trained."""
    from sfumato.learn import default_denoiser, default_loss, default_settings, fit

    denoiser = default_denoiser(data())
    fit(denoiser, data(), default_settings(data(), steps=STEPS), default_loss(data()))
    return denoiser


@functools.cache
def data() -> Any:
    """The digits."""
    from sfumato.data import digits

    return digits()


@functools.cache
def law() -> Any:
    """The Gaussian of the digits."""
    from sfumato.exact import fit_gaussian

    return fit_gaussian(data().batches(512))


@functools.cache
def pipe() -> Any:
    """An untrained pipeline of `diffusers` for grey images of 8x8."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    names = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    return DDPMPipeline(UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **sizes, **names), DDPMScheduler())


def any_model(target: str, number: int) -> Any:
    """Stands for training on the `target`: the denoiser of three points on a line, moved a little by the number."""
    from sfumato.exact import Empirical
    from sfumato.noise import VariancePreserving

    moved = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64) + 0.01 * (number + (target == "clean"))
    return Empirical(moved).denoiser(VariancePreserving())


def noise_of(scale: float = 1.0) -> torch.Tensor:
    """Standard noise of eight digits."""
    return scale * torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def photos(folder: Path) -> None:
    """Forty grey images of 8x8 in two classes."""
    images = ((data().train[:40, 0] + 1) * 127.5).round().to(torch.uint8).numpy()
    for i, image in enumerate(images):
        place = folder / ("even" if i % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i:03}.png")


def saved_model(folder: Path) -> None:
    """`model`, saved; it says that its data are the digits."""
    from sfumato.learn import save_model

    save_model(model(), folder, about={"data": "digits"})


def tuned(folder: Path) -> None:
    """A recipe, and the model beside it."""
    from dataclasses import replace

    saved_model(folder / "model")
    replace(tune_in_small(model(), data())[0], model="model").save(folder)


FOLDERS: dict[str, Callable[[Path], None]] = {
    "photos/": photos,
    "model/": saved_model,
    "tuned/": tuned,
    "path/to/pipeline/": lambda folder: pipe().save_pretrained(folder),
}


def names() -> dict[str, Callable[[], object]]:
    """What a page may take as given, by its name; every page gets its own."""
    from sfumato.exact import Empirical
    from sfumato.learn import FitSettings
    from sfumato.noise import VariancePreserving
    from sfumato.sample import PRESETS

    return {
        "data": data,
        "model": lambda: copy.deepcopy(model()),
        "denoiser": lambda: copy.deepcopy(model()),
        "law": law,
        "pipe": lambda: copy.deepcopy(pipe()),
        "process": VariancePreserving,
        "ratios": lambda: [0.2, 1.0],
        "any_solver": lambda: PRESETS["dpm-solver++-2m"],
        "noise": noise_of,
        "start": noise_of,
        "x": lambda: data().test[:4],
        "samples": lambda: data().test[:32],
        "images": lambda: data().train[:200],
        "settings": lambda: FitSettings(STEPS, 64, 4e-3),
        "network": lambda: copy.deepcopy(model().network),
        "tune": lambda: tune_in_small,
        "Empirical": lambda: Empirical,
        "drift": lambda: lambda x, t: -x,
        "left": lambda: torch.tensor([-1.0, 0.0], dtype=torch.float64),
        "right": lambda: torch.tensor([1.0, 0.5], dtype=torch.float64),
        "rising": lambda: torch.linspace(0, 1, 21, dtype=torch.float64),
        "falling": lambda: [0.9, 0.5, 0.1],
        "points": lambda: torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64),
        "factory": lambda: any_model,
    }


def give(name: str, home: Path) -> object:
    """What a page calls `name`; a folder is made in `home`, and is no name of Python."""
    if not name.endswith("/"):
        return names()[name]()
    shutil.rmtree(home / name, ignore_errors=True)
    (home / name).mkdir(parents=True)
    FOLDERS[name](home / name)
    return None
