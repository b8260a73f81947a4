"""A saved pipeline of `diffusers` as something to tune and explain: read from a folder or the hub, with data or with its own samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.data import Dataset, from_folder, load, split
from sfumato.errors import ArgumentError, DataError, MissingExtraError
from sfumato.integrations.pipeline import Given, PipelineDenoiser, pipeline_denoiser
from sfumato.noise import BetaTable
from sfumato.sample import Sampler, uniform_log_snr
from sfumato.sample.compilers.multistep import dpm_solver

HUB = "hub:"
"""How a recipe marks a model that lies on the hub."""

_CHUNK = 16
_STEPS = 30


def is_pipeline(where: str | Path) -> bool:
    """Whether this is a folder with a `model_index.json`, or no folder at all but a name as the hub has them, `owner/name`."""
    text, path = str(where), Path(where).expanduser()
    return (
        text.startswith(HUB)
        or (path / "model_index.json").is_file()
        or (not path.exists() and len(text.split("/")) == 2 and text[0] not in "./~")
    )


def open_pipeline(where: str | Path, prompt: str | None = None, guidance: int | float = 1.0) -> PipelineDenoiser | Given:
    """The denoiser of a pipeline in a folder or on the hub; under a prompt, if one is given.

    Raises:
        ArgumentError: nothing there that `diffusers` can read, a pipeline that we cannot (see `pipeline_denoiser`), a prompt for a network
            that reads none, or guidance without one.
        MissingExtraError: `diffusers` is not installed.
    """
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise MissingExtraError("diffusers", "diffusers") from error
    name = str(where).removeprefix(HUB)
    try:
        pipe = DiffusionPipeline.from_pretrained(name)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0][:200]
        hint = f"diffusers says: {first} Without a network, give a folder that save_pretrained wrote."
        raise ArgumentError("model", name, "a folder with a saved pipeline, or the id of one on the hub", hint) from error
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    if prompt is None and guidance != 1:
        raise ArgumentError("guidance", guidance, "1 without a prompt")
    denoiser = pipeline_denoiser(pipe, [] if prompt is None else [prompt], guidance=guidance)
    return denoiser if prompt is None else denoiser.given(0)


def pipeline_data(denoiser: PipelineDenoiser | Given, spec: str | Path) -> Dataset:
    """Data for a pipeline's network: images as events, or as latents if it works in latents.

    Arguments:
        spec: see `sfumato.data.load`; a folder's images are cut to the pipeline's size.

    Raises:
        DataError: data of another shape than the network's pixels.
    """
    whole = denoiser.inner if isinstance(denoiser, Given) else denoiser
    path = Path(spec).expanduser()
    data = from_folder(path, size=whole.pixel_shape[1]) if path.is_dir() else load(spec)
    if data.event_shape == (1, *whole.pixel_shape[1:]) and whole.pixel_shape[0] == 3:
        data = Dataset(
            data.name, data.train.repeat(1, 3, 1, 1), data.test.repeat(1, 3, 1, 1), data.train_labels, data.test_labels, data.classes
        )
    if data.event_shape != whole.pixel_shape:
        raise DataError("data", f"events of shape {data.event_shape}", f"images of shape {whole.pixel_shape}, as the pipeline's")
    if whole.vae is None:
        return data
    with torch.no_grad():
        train, test = (torch.cat([whole.encode(c) for c in torch.split(part, _CHUNK)]) for part in (data.train, data.test))
    return Dataset(f"{data.name}, as latents", train, test, data.train_labels, data.test_labels, data.classes)


def own_samples(denoiser: Any, n: int, seed: int = 0, progress: Callable[[int], None] | None = None) -> Dataset:
    """What the model itself draws, for models whose data are not at hand: statistics and held-out events are then its own.

    DPM-Solver++(3M) over 30 steps, accurate to well under a percent on trained networks; from seeds that tuning does not use.

    Arguments:
        denoiser: one with an `event_shape`.
    """
    process = denoiser.process
    top = 1.0 if math.isfinite(float(process.half_log_snr(1.0))) and isinstance(process, BetaTable) else 1 - 1e-3
    first = 1 / process.steps if isinstance(process, BetaTable) else 0.0  # below it no network was trained
    times = uniform_log_snr(process, _STEPS, start=top, t_min=max(first, float(process.time_of_ratio(0.01))))
    sampler = Sampler(denoiser, dpm_solver(3).compile(process, times), denoiser.event_shape)
    with torch.no_grad():
        drawn = sampler.sample(n, (1 << 31) + seed, chunk=_CHUNK, progress=progress)
    return split("the model's own samples", drawn)


def facts(denoiser: PipelineDenoiser | Given) -> dict[str, object]:
    """What a report says of the network."""
    whole = denoiser.inner if isinstance(denoiser, Given) else denoiser
    parameters: list[Tensor] = list(whole.network.parameters())
    return {"network": type(whole.network).__name__, "parameters": sum(p.numel() for p in parameters)}
