"""Samples side by side: images as they are, points as a scatter, sequences as lines, anything else as a heat strip."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable

import torch
from torch import Tensor

_IMAGES, _CURVES = 16, 8
_LARGEST = 128
_SIDE = 100.0


def gallery(pictures: dict[str, Tensor]) -> list[tuple[str, str, list[str]]]:
    """`(name, note, cells)` for each row of pictures, where a cell is HTML of our own making.

    Arguments:
        pictures: `(n, *event)` by name, in the order to show. Images `(1 or 3, h, w)` hold values in [-1, 1]; the first two rows (data and
            reference) set the scale of everything else.
    """
    if not pictures:
        return []
    rows = {name: batch.detach().to("cpu", torch.float32) for name, batch in pictures.items()}
    known = torch.cat([batch.reshape(len(batch), -1) for batch in list(rows.values())[:2]])
    known = known[torch.isfinite(known).all(1)]
    draw = _painter(tuple(next(iter(rows.values())).shape[1:]), known)
    return [(name, *draw(batch)) for name, batch in rows.items()]


def _painter(event: tuple[int, ...], known: Tensor) -> Callable[[Tensor], tuple[str, list[str]]]:
    if event == (2,):
        return lambda batch: _scatter(batch, known)
    low, high = (float(known.min()), float(known.max())) if known.numel() else (-1.0, 1.0)
    if len(event) == 3 and event[0] in (1, 3):
        return lambda batch: _cells(batch, _IMAGES, _image)
    width = event[-1] if event else 1
    if len(event) == 1 or (len(event) == 2 and event[0] <= 4):
        return lambda batch: _cells(batch, _CURVES, lambda x: _lines(x.reshape(-1, width), low, high))
    return lambda batch: _cells(batch, _CURVES, lambda x: _png(_unit(x.reshape(-1, width), low, high)))


def _cells(batch: Tensor, limit: int, draw: Callable[[Tensor], str]) -> tuple[str, list[str]]:
    return f"the first {limit} of {len(batch)}" if len(batch) > limit else "", [draw(x) for x in batch[:limit]]


def _unit(x: Tensor, low: float, high: float) -> Tensor:
    """`x` on a grey scale from 0 to 1; what is not finite is black."""
    return ((x - low) / (high - low if high > low else 1.0)).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)


def _image(x: Tensor) -> str:
    pixels = _unit(x, -1.0, 1.0)
    return _png(pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0))


def _png(pixels: Tensor) -> str:
    """An `<img>` of pixels `(h, w)` or `(h, w, 3)` in [0, 1]; large ones are reduced."""
    from PIL import Image

    image = Image.fromarray((pixels * 255).round().to(torch.uint8).numpy())
    image.thumbnail((_LARGEST, _LARGEST))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}">'


def _lines(x: Tensor, low: float, high: float) -> str:
    """Channels `(c, length)` as curves over one common height."""
    height = (1 - _unit(x, low, high)) * _SIDE
    step = _SIDE / max(1, x.shape[-1] - 1)
    curves = "".join(
        f'<polyline class="channel{i % 4}" points="' + " ".join(f"{j * step:.1f},{y:.1f}" for j, y in enumerate(row)) + '"/>'
        for i, row in enumerate(height.tolist())
    )
    return f'<svg viewBox="-2 -2 {_SIDE + 4:g} {_SIDE + 4:g}" class="lines">{curves}</svg>'


def _scatter(points: Tensor, known: Tensor) -> tuple[str, list[str]]:
    """Points `(n, 2)` in the square that holds the data and the reference's samples; those outside it are counted."""
    middle = (known.amax(0) + known.amin(0)) / 2 if len(known) else torch.zeros(2)
    half = 1.08 * float((known - middle).abs().max()) if len(known) else 1.0
    at = (points - middle) / (half if half > 0 else 1.0)
    inside = (at.abs() <= 1).all(1)
    places = ((at[inside] * torch.tensor([1.0, -1.0]) + 1) * _SIDE / 2).tolist()
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
    lost = len(points) - int(inside.sum())
    note = f"{lost} of {len(points)} points lie outside" if lost else f"{len(points)} points"
    width = min(3.0, 24 / math.sqrt(max(1, len(points))))
    return note, [f'<svg viewBox="0 0 {_SIDE:g} {_SIDE:g}" class="dots"><path d="{dots}" stroke-width="{width:.2f}"/></svg>']
