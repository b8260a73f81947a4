"""Folders of images of the user's."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sfumato.data.dataset import Dataset, permutation, split
from sfumato.data.pixels import from_bytes
from sfumato.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
_GREY = ("1", "L", "LA", "I;16", "I;16B")
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, struct.error, zlib.error)


def from_folder(path: str | Path, size: int | None = None, limit: int | None = None) -> Dataset:
    """The images in a folder and below it, `(c, h, w)` in [-1, 1], held in memory.

    They are taken in the order of their sorted names, shuffled by a fixed seed, and the last sixth is the test part. They are grey
    (`c = 1`) if every file is stored as grey and coloured (`c = 3`) otherwise. Transparent pixels lie on white, an orientation noted by a
    camera is applied, of a film the first picture is taken, hidden files are passed over. If every image lies in a sub-folder, the
    sub-folders of `path`, sorted by name, are the classes.

    Arguments:
        path: the folder.
        size: the side of the squares to make: the largest square in the middle is cut out and resampled (Lanczos). Without it, images
            that all have one size stay as they are, and others become squares of the shortest side found among them.
        limit: how many images to take at most, chosen by the fixed seed.

    Raises:
        ArgumentError: a size under 1 or a limit under 3.
        DataError: no folder, fewer than three images in it, a file that is no readable image (named), or what `Dataset` refuses.
    """
    folder = Path(path).expanduser()
    if size is not None and size < 1:
        raise ArgumentError("size", size, "a side of at least 1 pixel")
    if limit is not None and limit < 3:
        raise ArgumentError("limit", limit, "at least 3 images")
    files = _images_below(folder)
    if limit is not None:
        files = [files[i] for i in permutation(len(files))[:limit].tolist()]
    heads = [_head(file) for file in files]
    shapes = {shape for shape, _ in heads}
    if size is None and len(shapes) > 1:
        size = min(min(shape) for shape in shapes)
    height, width = next(iter(shapes)) if size is None else (size, size)
    mode = "L" if all(grey for _, grey in heads) else "RGB"
    try:
        pixels = np.empty((len(files), len(mode), height, width), dtype=np.uint8)
        for file, row in zip(files, pixels, strict=True):
            row[...] = _pixels(file, mode, None if size is None else (width, height))
        samples = from_bytes(torch.from_numpy(pixels))
    except MemoryError as error:
        given = f"{len(files)} images of {width} x {height} pixels"
        raise DataError("path", given, "images that fit into memory", "Give a smaller size or a limit.") from error
    return split(folder.resolve().name, samples, *_labels(folder, files))


def _images_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError("path", str(folder), "a folder of images")
    files = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    files = [p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if len(files) < 3:
        raise DataError("path", f"{len(files)} images in {folder}", f"at least 3 files ending in {', '.join(SUFFIXES)}")
    return sorted(files, key=lambda p: p.relative_to(folder).as_posix())


def _labels(folder: Path, files: list[Path]) -> tuple[torch.Tensor, int] | tuple[None, None]:
    parts = [p.relative_to(folder).parts for p in files]
    if any(len(names) == 1 for names in parts):
        return None, None
    classes = sorted({names[0] for names in parts})
    return torch.tensor([classes.index(names[0]) for names in parts]), len(classes)


def _head(file: Path) -> tuple[tuple[int, int], bool]:
    """`(height, width)` as the image will stand, and whether it is stored as grey; pixels are not decoded."""
    from PIL import ExifTags, Image

    try:
        with Image.open(file) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            width, height = image.size
            return ((width, height) if turned else (height, width)), image.mode in _GREY
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error


def _pixels(file: Path, mode: str, square: tuple[int, int] | None) -> np.ndarray:
    """The bytes `(c, h, w)` of an image; if `square` is given, its middle in that size."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as source:
            image = _opaque(ImageOps.exif_transpose(source)).convert(mode)
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error
    if square is not None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize(square, Image.Resampling.LANCZOS)
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def _opaque(image: Image) -> Image:
    from PIL import Image as images

    if image.mode.startswith("I;16"):
        # 0, ..., 65535 to 0, ..., 255; convert() alone would clip
        return images.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return images.alpha_composite(images.new("RGBA", layer.size, "white"), layer)


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError("path", str(file), "a readable image", f"It could not be decoded: {error}")
