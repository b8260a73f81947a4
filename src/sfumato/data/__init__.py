"""Data: bundled sets, toy laws, folders of images and arrays of the user's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sfumato.data import arrays
from sfumato.data.arrays import from_array
from sfumato.data.bundled import digits, patches
from sfumato.data.dataset import Batches, Dataset, check_finite, split
from sfumato.data.dequantisation import (
    Dequantisation,
    Dequantised,
    GaussianDequantisation,
    TruncatedNormalDequantisation,
    UniformDequantisation,
    importance_bound,
)
from sfumato.data.folders import from_folder
from sfumato.data.toys import checkerboard, grid, moons, pinwheel, rings, spiral
from sfumato.data.voices import Voices, voices
from sfumato.errors import DataError

__all__ = [
    "BUNDLED",
    "Batches",
    "Dataset",
    "Dequantisation",
    "Dequantised",
    "GaussianDequantisation",
    "TruncatedNormalDequantisation",
    "UniformDequantisation",
    "Voices",
    "check_finite",
    "checkerboard",
    "digits",
    "from_array",
    "from_folder",
    "grid",
    "importance_bound",
    "load",
    "moons",
    "patches",
    "pinwheel",
    "rings",
    "spiral",
    "split",
    "voices",
]

BUNDLED: dict[str, Callable[[], Dataset]] = {f.__name__: f for f in (digits, patches, moons, rings, spiral, checkerboard, pinwheel, grid)}
"""Every data set that needs no file, by its name."""


def load(spec: str | Path) -> Dataset:
    """The data set that `spec` names.

    Arguments:
        spec: a name in `BUNDLED` (`./digits` or a `Path` is a folder of that name), a folder of images, or an array file.

    Raises:
        DataError: none of the three, or data that cannot be used.
        MissingExtraError: the set needs an optional package.
    """
    if isinstance(spec, str) and spec in BUNDLED:
        return BUNDLED[spec]()
    path = Path(spec).expanduser()
    if path.is_dir():
        return from_folder(path)
    if path.is_file() and path.suffix.lower() in arrays.SUFFIXES:
        return from_array(path)
    kinds = f"one of {', '.join(BUNDLED)}, a folder of images, or a file ending in {', '.join(arrays.SUFFIXES)}"
    raise DataError("data", repr(str(spec)), kinds, "" if path.exists() else "There is no file or folder of this name.")
