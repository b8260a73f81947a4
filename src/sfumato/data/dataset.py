"""A data set: a training part and a test part of equally shaped float32 events, checked once, when it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ArgumentError, DataError

_BLOCK = 2**24  # numbers looked at in one go, so that a memory-mapped part is never copied whole


def blocks(x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """`x` `(n, *event)` in slices of at most about 2^24 numbers, each with the index of its first sample."""
    size = max(1, _BLOCK // max(1, x[:1].numel()))
    for first in range(0, x.shape[0], size):
        yield first, x[first : first + size]


def check_finite(x: Tensor, name: str) -> None:
    """Refuse NaN and infinities.

    Raises:
        DataError: with their number and the index of the first, sample first.
    """
    count, where = 0, None
    for first, block in blocks(x):
        bad = ~torch.isfinite(block)
        found = int(bad.sum())
        if found and where is None:
            row, *rest = (int(i) for i in bad.nonzero()[0])
            where = (first + row, *rest)
        count += found
    if count:
        given = f"{count} NaN or infinite {'value' if count == 1 else 'values'}, the first at index {where}"
        raise DataError(name, given, "finite numbers")


def permutation(n: int, seed: int = 0) -> Tensor:
    """The order of `n` random words of a Philox stream keyed by `seed`: bit-identical on every machine and version, shape `(n,)`."""
    words = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)).random_raw(n)
    return torch.from_numpy(np.argsort(words, kind="stable"))


@dataclass(frozen=True)
class Batches:
    """The samples `(n, *event)` in order, `size` at a time (the last batch may be smaller); can be iterated any number of times."""

    samples: Tensor
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ArgumentError("size", self.size, "a batch size of at least 1")

    def __len__(self) -> int:
        return -(-self.samples.shape[0] // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.split(self.samples, self.size))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data to learn from and data to be measured on.

    Arguments:
        name: what it is called in reports.
        train, test: float32 `(n, *event)`, at least two and one of them.
        train_labels, test_labels: int64 `(n,)` in `0, ..., classes - 1`, or None where there are none.
        classes: the number of classes, given if and only if there are labels.

    Raises:
        DataError: NaN or infinite values (how many, and where the first is), too few samples, samples that are all the same, parts that
            are shaped otherwise than said here.
    """

    name: str
    train: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    classes: int | None = None

    def __post_init__(self) -> None:
        for part, least in (("train", 2), ("test", 1)):
            x = getattr(self, part)
            if x.ndim < 2 or x.dtype != torch.float32:
                hint = "Convert with .float(); the first axis counts samples."
                raise DataError(part, f"{x.dtype} of shape {tuple(x.shape)}", "float32 samples (n, *event)", hint)
            if x.shape[0] < least or x[:1].numel() == 0:
                raise DataError(part, f"the shape {tuple(x.shape)}", f"at least {least} samples of at least one number each")
            check_finite(x, f"{self.name}: {part}")
            self._check_labels(getattr(self, f"{part}_labels"), x.shape[0], f"{part}_labels")
        if self.test.shape[1:] != self.train.shape[1:]:
            raise DataError("test", f"events {tuple(self.test.shape[1:])}", f"events shaped as in train, {self.event_shape}")
        if all(bool((block == self.train[0]).all()) for _, block in blocks(self.train)):
            raise DataError(f"{self.name}: train", f"{self.train.shape[0]} samples that are all the same", "samples that vary")

    def _check_labels(self, labels: Tensor | None, n: int, name: str) -> None:
        if (labels is None) != (self.classes is None):
            raise DataError(name, "labels without classes or classes without labels", "labels of both parts and classes, or neither")
        if labels is None or self.classes is None:
            return
        if labels.dtype != torch.int64 or labels.shape != (n,):
            raise DataError(name, f"{labels.dtype} of shape {tuple(labels.shape)}", f"int64 of shape ({n},), one label per sample")
        if not bool(((labels >= 0) & (labels < self.classes)).all()):
            raise DataError(name, f"labels from {int(labels.min())} to {int(labels.max())}", f"labels in 0, ..., {self.classes - 1}")

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.train.shape[1:])

    @property
    def is_image(self) -> bool:
        """Whether an event has the three axes `(c, h, w)` of an image."""
        return len(self.event_shape) == 3

    def batches(self, size: int) -> Batches:
        """The training part in order, as tensors `(<= size, *event)`; iterate as often as you like.

        Raises:
            ArgumentError: a size under 1.
        """
        return Batches(self.train, size)


def split(name: str, samples: Tensor, labels: Tensor | None = None, classes: int | None = None) -> Dataset:
    """A data set of `samples` `(n, *event)`: shuffled by a fixed seed, the last sixth (at least one) is the test part.

    Raises:
        DataError: fewer than three samples, or what `Dataset` refuses.

    Example:
        >>> import torch
        >>> from sfumato.data import split
        >>> data = split("ramps", torch.linspace(0, 1, 60).reshape(30, 2))
        >>> len(data.train), len(data.test), data.event_shape
        (25, 5, (2,))
    """
    n = samples.shape[0]
    if n < 3:
        raise DataError(name, f"{n} samples", "at least 3, two to learn from and one to test on")
    train, test = permutation(n).tensor_split([n - max(1, n // 6)])
    if labels is None:
        return Dataset(name, samples[train], samples[test])
    return Dataset(name, samples[train], samples[test], labels[train], labels[test], classes)
