"""Bytes as numbers: pixels 0, ..., 255 stand in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def from_bytes(pixels: Tensor) -> Tensor:
    """`x / 127.5 - 1` in float32, so 0 is exactly -1 and 255 exactly 1; any shape."""
    return pixels.to(torch.float32).div_(127.5).sub_(1)
