"""Samples written to a file: a picture of them, or their numbers."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.data.dataset import check_finite
from sfumato.errors import ArgumentError, MissingExtraError, ShapeError
from sfumato.files import write_bytes

SUFFIXES = (".png", ".npy", ".safetensors")


def check_suffix(path: Path) -> str:
    """The path's ending, if samples can be written under it.

    Raises:
        ArgumentError: another ending.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ArgumentError("out", str(path), f"a file ending in {', '.join(SUFFIXES)}")
    return suffix


def write_samples(samples: Float[Tensor, "n *event"], path: str | Path) -> None:
    """Write samples as a grid of images (`.png`) or as numbers (`.npy`, `.safetensors` under the key `samples`), whole or not at all.

    Raises:
        ArgumentError: another ending.
        ShapeError: a picture of events that are no images.
        DataError: samples that are not finite.
        OutputError: the file cannot be written; one that was there stays.
    """
    path = Path(path)
    suffix = check_suffix(path)
    check_finite(samples, "samples")
    if suffix == ".png":
        content = _png(grid_of(samples))
    elif suffix == ".npy":
        out = io.BytesIO()
        np.save(out, samples.detach().cpu().numpy())
        content = out.getvalue()
    else:
        from safetensors.torch import save

        content = save({"samples": samples.detach().cpu().contiguous()})
    write_bytes(path, content)


def grid_of(images: Float[Tensor, "n *event"], *, gap: int = 1) -> Float[Tensor, "channels height width"]:
    """Images in [-1, 1], `(n, channels, height, width)`, as one nearly square picture with a gap between them.

    Raises:
        ShapeError: events that are no images of 1 or 3 channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ShapeError("samples", tuple(images.shape), "images (n, 1 or 3, height, width) for a picture", "Write .npy or .safetensors.")
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    out = torch.full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 1.0)
    for i, image in enumerate(images.detach().float().cpu()):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        out[:, top : top + height, left : left + width] = image
    return out


def _png(picture: Tensor) -> bytes:
    try:
        from PIL import Image
    except ImportError as e:
        raise MissingExtraError("pillow", "data") from e
    pixels = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    # small pictures are shown at a size one can see
    scale = max(1, 512 // max(image.size))
    out = io.BytesIO()
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()
