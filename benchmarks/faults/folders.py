"""What lies in a folder: whether every file under its own name is whole, what is left over, and what it came to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from sfumato.errors import SfumatoError
from sfumato.learn import load_model
from sfumato.learn.training.files import digest, read_tensors
from sfumato.tune import Recipe

_RESULTS = ("model.safetensors", "config.json", "training.safetensors", "recipe.json", "statistics.safetensors")
"""Files that are functions of the command; the report and its figures also hold seconds."""
_LEFT = 3
"""Hidden files that a killed command may leave in a folder: what it was writing, what it kept aside, and the mark that it was at work."""


def broken(folder: Path) -> str | None:
    """What is wrong in a folder and below it, at whatever moment."""
    if not folder.is_dir():
        return None
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        try:
            _read(path)
        except (SfumatoError, ValueError, OSError) as error:
            return f"{path.relative_to(folder)} is not whole: {str(error)[:200]}"
    for each in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        hidden = [p.name for p in each.iterdir() if p.name.startswith(".")]
        if len(hidden) > _LEFT:
            return f"left over: {sorted(hidden)}"
    return None


def leftovers(folder: Path) -> str | None:
    """What a command that came to its end has left beside its results."""
    hidden = sorted(p.name for p in folder.rglob(".*"))
    return f"left over: {hidden}" if hidden else None


def result(folder: Path) -> dict[str, str]:
    """Digests of what a command has made, by the name of the file: of every bit of its tensors, or of its text."""
    files = sorted(p for p in folder.rglob("*") if p.name in _RESULTS)
    return {str(p.relative_to(folder)): _digest(p) for p in files}


def other(folder: Path, wanted: dict[str, str]) -> str | None:
    """In what the results in a folder differ from those of an undisturbed run."""
    found = result(folder)
    different = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    return f"other results than undisturbed: {different}" if different else None


def _digest(path: Path) -> str:
    if path.suffix != ".safetensors":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    tensors, record = read_tensors(path)
    # the order of the metadata in the file is the library's, and by chance
    return digest(tensors, json.dumps(record, sort_keys=True))


def _read(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_bytes())
    if path.name == "recipe.json":
        Recipe.load(path)
    elif path.name == "config.json":
        load_model(path.parent)
    elif path.name == "samples.safetensors":
        from safetensors.torch import load_file

        load_file(path)
    elif path.suffix == ".safetensors":
        read_tensors(path)
    elif path.suffix == ".npy":
        np.load(path, allow_pickle=False)
    elif path.suffix == ".html" and not path.read_text("utf-8").rstrip().endswith("</html>"):
        raise ValueError("a page without its end")
    elif path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as picture:
            picture.load()
