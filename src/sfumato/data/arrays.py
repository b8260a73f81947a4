"""Arrays of the user's: `.npy`, `.npz` and `.safetensors`. Nothing in a file is ever executed: pickled arrays are refused.

What the numbers mean: unsigned bytes are pixels and become `x/127.5 - 1`; floats are taken as they are, in float32; booleans and other
integers are cast to float32 unscaled (so integers past 2^24 are rounded). The first axis counts samples. Byte images get their channel
axis first: `(n, h, w, 3)` and `(n, h, w, 1)` are moved, unless the second axis already has 1 or 3 entries, and `(n, h, w)` becomes
`(n, 1, h, w)`.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from sfumato.data.dataset import Dataset, split
from sfumato.data.pixels import from_bytes
from sfumato.errors import DataError

SUFFIXES = (".npy", ".npz", ".safetensors")
_PACKED, _RATIO = 2**28, 200
MAPPED = 2**30
"""A float32 `.npy` of more bytes than this stays on disk."""

_BROKEN = (ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError, TokenError, zipfile.BadZipFile, zlib.error)


def from_array(path: str | Path, key: str | None = None) -> Dataset:
    """The samples in an array file; see the module on what its numbers mean.

    They are shuffled by a fixed seed and the last sixth is the test part. A float32 `.npy` of more than 1 GiB is mapped into memory,
    read-only and in the file's order, so its test part is the last sixth of the file; every other array is held in memory.

    Arguments:
        path: a `.npy`, `.npz` or `.safetensors` file.
        key: which array of an `.npz` or `.safetensors` file, if it holds several.

    Raises:
        DataError: a file that is missing, broken, pickled or of another kind, an unknown key or none where there are several arrays,
            numbers that are not real, fewer than two axes, or what `Dataset` refuses.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or not path.is_file():
        raise DataError("path", str(path), f"a file ending in {', '.join(SUFFIXES)}")
    try:
        stored = _safetensors(path, key) if suffix == ".safetensors" else _numpy(path, key)
        samples = _numbers(stored)
    except _BROKEN as error:
        if isinstance(error, DataError):
            raise
        raise DataError("path", str(path), "a readable array of numbers", f"It could not be read: {error}") from error
    if samples.ndim < 2:
        raise DataError(str(path), f"an array of shape {tuple(samples.shape)}", "at least two axes, (n, *event)")
    if suffix == ".npy" and stored.dtype == torch.float32 and stored.nbytes > MAPPED:
        n = samples.shape[0]
        return Dataset(path.stem, samples[: n - n // 6], samples[n - n // 6 :])
    return split(path.stem, samples)


def _numpy(path: Path, key: str | None) -> Tensor:
    if path.suffix.lower() == ".npz":
        # numpy leaves a broken archive open if it is given the path
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError("path", str(path), "an .npz archive", "It is a single array: name it .npy.")
            name = _pick(archive.files, key, path)
            _check_size(archive, name, path)
            array = archive[name]
    else:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError("path", str(path), "an array of numbers", "The archive holds another file under this name.")
    if array.dtype.kind not in "buif":
        raise DataError(str(path), f"the dtype {array.dtype}", "real numbers")
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        # a mapped array is read-only, and torch cannot say so of a tensor
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _check_size(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> None:
    """Refuse an array that is large only since it is packed: to unpack it may take all memory."""
    for entry in archive.zip.infolist():  # type: ignore[union-attr]
        if entry.filename in (name, f"{name}.npy") and entry.file_size > max(_PACKED, _RATIO * entry.compress_size):
            given = f"{entry.file_size:,} bytes packed into {entry.compress_size:,} for {name} of {path}"
            raise DataError("path", given, f"data that unpack to at most {_RATIO} times their size", "Save it unpacked, as .npy.")


def _safetensors(path: Path, key: str | None) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as archive:
            array: Tensor = archive.get_tensor(_pick(list(archive.keys()), key, path))
    except SafetensorError as error:
        raise ValueError(error) from error
    if array.is_complex():
        raise DataError(str(path), f"the dtype {array.dtype}", "real numbers")
    return array


def _pick(keys: list[str], key: str | None, path: Path) -> str:
    if key is None and len(keys) == 1:
        return keys[0]
    if key not in keys:
        raise DataError("key", repr(key), f"one of {', '.join(sorted(keys)) or 'no arrays at all'}, the arrays in {path}")
    return key


def _numbers(samples: Tensor) -> Tensor:
    if samples.dtype != torch.uint8:
        return samples.to(torch.float32)
    if samples.ndim == 4 and samples.shape[3] in (1, 3) and samples.shape[1] not in (1, 3):
        samples = samples.movedim(3, 1)
    elif samples.ndim == 3:
        samples = samples.unsqueeze(1)
    return from_bytes(samples)
