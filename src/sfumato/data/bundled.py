"""Real data that comes with scikit-learn: handwritten digits and patches of two photographs. Nothing is downloaded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sfumato.data.dataset import Dataset, permutation
from sfumato.data.pixels import from_bytes
from sfumato.errors import ArgumentError, MissingExtraError

_LARGEST_PATCH = 64
_TRAIN_DIGITS = 1500


def digits() -> Dataset:
    """1,797 handwritten digits `(1, 8, 8)` with labels, 1,500 to learn from and 297 to test on.

    Pixels count the 0 to 16 inked points of a 4x4 cell and are scaled to [-1, 1] by `x/8 - 1`. The split is a fixed permutation.
    Source: Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI (its test part).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "data") from error
    source = load_digits()
    images = torch.from_numpy(source.images).to(torch.float32).div_(8).sub_(1).unsqueeze(1)
    labels = torch.from_numpy(source.target).to(torch.int64)
    train, test = permutation(len(images)).tensor_split([_TRAIN_DIGITS])
    return Dataset("digits", images[train], images[test], labels[train], labels[test], classes=10)


def patches(size: int = 8, n: int = 20_000, seed: int = 0) -> Dataset:
    """`n` colour patches `(3, size, size)` in [-1, 1] to learn from and `n // 5` to test on, without labels.

    They are cut from the photographs `china.jpg` and `flower.jpg` (427 x 640 pixels each), all at different places drawn by `seed`; patches
    of one part may overlap. Train and test share no pixel: the photographs are tiled by squares of `4 size`, a fifth of the tiles, evenly
    spread, is seen by test patches only, and the rest by training patches only.

    Raises:
        ArgumentError: a size outside 1, ..., 64, or more patches than there are places.
        MissingExtraError: scikit-learn is not installed.
    """
    if not 1 <= size <= _LARGEST_PATCH:
        raise ArgumentError("size", size, f"a side of 1 to {_LARGEST_PATCH} pixels")
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "data") from error
    photographs = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2)
    row, column = (torch.arange(side) // (4 * size) for side in photographs.shape[2:])
    reserved = (row[:, None] + 2 * column) % 5 == 2
    tested = reserved.unfold(0, size, 1).sum(2).unfold(1, size, 1).sum(2)  # reserved pixels of the patch at every corner
    windows = photographs.unfold(2, size, 1).unfold(3, size, 1)  # (photograph, c, top, left, h, w), a view
    train = _cut(windows, (tested == 0).nonzero(), n, seed)
    test = _cut(windows, (tested == size**2).nonzero(), n // 5, seed)
    return Dataset(f"patches{size}", train, test)


def _cut(windows: Tensor, corners: Tensor, n: int, seed: int) -> Tensor:
    """`n` of the windows at the given `(top, left)` corners of all photographs."""
    places = windows.shape[0] * len(corners)
    if not 1 <= n <= places:
        raise ArgumentError("n", n, f"1 to {places} patches in this part (the test part has a fifth of the patches of the training part)")
    chosen = permutation(places, seed)[:n]
    top, left = corners[chosen % len(corners)].T
    return from_bytes(windows[chosen // len(corners), :, top, left])
