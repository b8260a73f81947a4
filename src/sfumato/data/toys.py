"""Laws on the plane, to look at: `n` samples to learn from and `n // 5` to test on, each labelled by the component it was drawn from.

Samples are drawn with numpy's Philox, keyed by `(seed, 0)` for the training part and `(seed, 1)` for the test part.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sfumato.data.dataset import Dataset
from sfumato.errors import ArgumentError

Place = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Component labels `(n,)` and a generator to points `(n, 2)`."""


def moons(n: int = 10_000, seed: int = 0) -> Dataset:
    """Two interleaved half circles of radius 1, with Gaussian noise of 0.05."""

    def place(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        side = 1 - 2 * label
        centre = np.stack([-side / 2, -side / 4], axis=1)
        return centre + side[:, None] * _circle(np.pi * rng.random(len(label))) + 0.05 * _normal(rng, len(label))

    return _toy("moons", 2, place, n, seed)


def rings(n: int = 10_000, seed: int = 0) -> Dataset:
    """Three circles of radius 1/2, 1 and 3/2, equally likely, with Gaussian noise of 0.04."""

    def place(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (label + 1)[:, None] / 2 * _circle(2 * np.pi * rng.random(len(label))) + 0.04 * _normal(rng, len(label))

    return _toy("rings", 3, place, n, seed)


def spiral(n: int = 10_000, seed: int = 0) -> Dataset:
    """Two arms of an Archimedean spiral, radius `2 a / 3 pi` at the angle `a <= 3 pi`, with Gaussian noise of 0.05."""

    def place(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        part = np.sqrt(rng.random(len(label)))  # about equally dense along an arm
        return 2 * part[:, None] * _circle(3 * np.pi * part + np.pi * label) + 0.05 * _normal(rng, len(label))

    return _toy("spiral", 2, place, n, seed)


def checkerboard(n: int = 10_000, seed: int = 0) -> Dataset:
    """Uniform on the eight dark unit squares of a 4 x 4 board over [-2, 2]^2."""

    def place(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        row = label // 2
        corner = np.stack([2 * (label % 2) + row % 2, row], axis=1) - 2
        return corner + rng.random((len(label), 2))

    return _toy("checkerboard", 8, place, n, seed)


def pinwheel(n: int = 10_000, seed: int = 0) -> Dataset:
    """Five bent arms: Gaussian of 0.3 by 0.1 around radius 1, turned by `exp(radius)/4` (Johnson et al. 2016, arXiv 1603.06277)."""

    def place(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        along, across = (np.array([0.3, 0.1]) * _normal(rng, len(label)) + np.array([1.0, 0.0])).T
        turn = 2 * np.pi * label / 5 + np.exp(along) / 4
        return along[:, None] * _circle(turn) + across[:, None] * _circle(turn + np.pi / 2)

    return _toy("pinwheel", 5, place, n, seed)


def grid(n: int = 10_000, seed: int = 0) -> Dataset:
    """25 Gaussians of standard deviation 0.1 on the points of {-2, -1, 0, 1, 2}^2, equally likely."""

    def place(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.stack([label % 5, label // 5], axis=1) - 2 + 0.1 * _normal(rng, len(label))

    return _toy("grid", 25, place, n, seed)


def _circle(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal((n, 2))


def _toy(name: str, classes: int, place: Place, n: int, seed: int) -> Dataset:
    if n < 5:
        raise ArgumentError("n", n, "at least 5 samples")

    def part(which: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, which], dtype=np.uint64)))
        label = rng.integers(classes, size=count)
        return torch.from_numpy(place(label, rng)).to(torch.float32), torch.from_numpy(label)

    (train, train_labels), (test, test_labels) = part(0, n), part(1, n // 5)
    return Dataset(name, train, test, train_labels, test_labels, classes)
