"""A trained model as a folder of two files: `config.json`, which says what it is, and `model.safetensors`, its weights.

The weights file carries the configuration as well, under its checksum; `config.json` is the copy to read, and has to agree. Nothing is
ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from sfumato.denoise import GaussianScalings, Isotropic, Network, Preconditioned, Scalings, network_from_config
from sfumato.denoise.scaled.gaussian_scalings import gaussian_from_config
from sfumato.errors import ArgumentError, CheckpointError
from sfumato.files import write_bytes
from sfumato.learn.training.files import read_json, read_tensors, write_tensors
from sfumato.noise import process_from_dict

_BROKEN = (ArgumentError, ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError, RuntimeError)
VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def model_config(denoiser: Preconditioned, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Plain data that says what a denoiser is, all but its tensors.

    Raises:
        ArgumentError: a network that cannot be written down (not a `Network`), or `about` that is no plain data.
    """
    if not isinstance(denoiser.network, Network):
        raise ArgumentError("denoiser.network", type(denoiser.network).__name__, "a sfumato.denoise.Network, which can be written down")
    config = {
        "format": "sfumato-model",
        "version": VERSION,
        "process": denoiser.process.to_dict(),
        "network": denoiser.network.to_config(),
        "scalings": denoiser.scalings.to_config(),
        "about": dict(about or {}),
    }
    try:
        return json.loads(json.dumps(config, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ArgumentError("about", type(about).__name__, "plain data (text, numbers, lists)", str(error)) from error


def save_model(denoiser: Preconditioned, folder: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Write a denoiser to a folder, each file atomically.

    Arguments:
        denoiser: what is saved, with the weights it has.
        folder: made if need be; a model in it is replaced.
        about: plain data to keep with it, such as the name of its data.

    Raises:
        ArgumentError: see `model_config`.
        OutputError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from sfumato.data import moons
        >>> from sfumato.learn import default_denoiser, load_model, save_model
        >>> data = moons()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(default_denoiser(data), folder, about={"data": "moons"})
        ...     denoiser = load_model(folder)
        >>> denoiser.denoise(data.test[:3], 0.5).shape
        torch.Size([3, 2])
    """
    config = model_config(denoiser, about)
    tensors = {f"network.{name}": value for name, value in denoiser.network.state_dict().items()}
    tensors |= {f"scalings.{name}": value for name, value in denoiser.scalings.tensors().items()}
    write_tensors(Path(folder) / WEIGHTS, tensors, config)
    write_bytes(Path(folder) / CONFIG, (json.dumps(config, indent=1, sort_keys=True) + "\n").encode())


def load_model(folder: str | Path, device: torch.device | str = "cpu") -> Preconditioned:
    """The denoiser that `save_model` wrote, bit for bit, in evaluation mode.

    Raises:
        CheckpointError: a file is missing, truncated, altered or of another format; the two files are not of one model.
    """
    if not Path(folder).is_dir():
        raise CheckpointError("folder", str(folder), "a folder of a model", "`sfumato train` and `save_model` write one.")
    config, tensors = _read(Path(folder))
    try:
        process, weights = process_from_dict(config["process"]), _under("network.", tensors)
        with _no_larger(weights):
            network = network_from_config(config["network"])
        scalings = _scalings(config["scalings"], _under("scalings.", tensors))
        network.load_state_dict(weights)
    except _BROKEN as error:
        raise CheckpointError("model", str(folder), "a model of this version of sfumato", str(error)) from error
    return Preconditioned(network, process, scalings).to(device).eval()


def about_model(folder: str | Path) -> dict[str, Any]:
    """What `save_model` was told `about` the model in the folder.

    Raises:
        CheckpointError: as `load_model`.
    """
    return _read(Path(folder))[0]["about"]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config = read_json(folder / CONFIG)
    if config.get("format") != "sfumato-model" or config.get("version") != VERSION:
        given = f"format {config.get('format')!r}, version {config.get('version')!r}"
        raise CheckpointError(CONFIG, given, f"format 'sfumato-model', version {VERSION}")
    tensors, record = read_tensors(folder / WEIGHTS)
    if record != config:
        hint = "They are of two models, or one was altered."
        raise CheckpointError("model", str(folder), f"a {CONFIG} and a {WEIGHTS} that agree", hint)
    if not isinstance(config.get("about"), dict):
        raise CheckpointError("about", type(config.get("about")).__name__, "an object")
    if bad := [name for name, value in tensors.items() if value.is_complex() or not bool(torch.isfinite(value).all())]:
        raise CheckpointError("model", f"numbers that are not real or not finite in {bad[0]}", "finite weights")
    return config, tensors


@contextmanager
def _no_larger(weights: dict[str, Tensor]) -> Iterator[None]:
    """Inside, a network is built only as far as it has no more numbers than its file: a few altered bytes shall not fill the memory."""
    left = sum(value.numel() for value in weights.values())

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal left
        left -= 0 if parameter is None else parameter.numel()
        if left < 0:
            raise CheckpointError("network", "more weights", "as many as the file holds")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _scalings(config: dict[str, Any], tensors: dict[str, Tensor]) -> Scalings:
    if config["kind"] == Isotropic.kind:
        return Isotropic(config["sigma_data"], config["mean"])
    if config["kind"] == GaussianScalings.kind:
        return gaussian_from_config(config, tensors)
    raise ArgumentError("scalings.kind", repr(config["kind"]), f"{Isotropic.kind} or {GaussianScalings.kind}")
