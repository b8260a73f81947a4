"""Bundled data: the digits are scikit-learn's, the patches are cut where they say, and no test pixel is ever trained on."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sfumato.data import digits, patches
from sfumato.errors import ArgumentError, MissingExtraError


def test_digits_are_the_1797_of_scikit_learn_each_once_with_its_label():
    from sklearn.datasets import load_digits

    source = load_digits()
    known = {image.tobytes(): int(label) for image, label in zip(source.images, source.target, strict=True)}
    data = digits()
    assert (len(data.train), len(data.test), data.event_shape, data.classes, data.is_image) == (1500, 297, (1, 8, 8), 10, True)
    images = torch.cat([data.train, data.test]).double()
    assert (float(images.min()), float(images.max())) == (-1.0, 1.0)
    counts = [(image[0] * 8 + 8).numpy().tobytes() for image in images]
    assert len(set(counts)) == 1797  # hence train and test are disjoint
    assert [known[c] for c in counts] == torch.cat([data.train_labels, data.test_labels]).tolist()


def test_digits_come_in_the_same_order_every_time():
    assert torch.equal(digits().train, digits().train)
    assert torch.equal(digits().test_labels, digits().test_labels)


@pytest.fixture
def numbered(monkeypatch):
    """Photographs whose pixels spell their own number in base 256, so that a patch tells where it was cut."""
    number = np.arange(2 * 427 * 640).reshape(2, 427, 640)
    images = np.stack([number >> 16, number >> 8 & 255, number & 255], axis=-1).astype(np.uint8)
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: SimpleNamespace(images=list(images)))


def pixel_numbers(patch):
    digits = torch.round((patch + 1) * 127.5).long()
    return digits[:, 0] * 65536 + digits[:, 1] * 256 + digits[:, 2]


@pytest.mark.parametrize("size", [1, 8, 30])
def test_patches_are_squares_at_different_places_and_the_parts_share_no_pixel(numbered, size):
    data = patches(size, n=2000, seed=1)
    assert (len(data.train), len(data.test), data.event_shape) == (2000, 400, (3, size, size))
    train, test = pixel_numbers(data.train), pixel_numbers(data.test)
    step = torch.arange(size)
    for part in (train, test):
        assert torch.equal(part, part[:, :1, :1] + 640 * step[:, None] + step)
        assert len(part[:, 0, 0].unique()) == len(part)
    assert not bool(torch.isin(test.unique(), train.unique()).any())


def test_patches_of_both_parts_look_alike():
    """The reserved tiles are spread over the photographs: means agree to 0.03 and variances to 10 percent of the training part's."""
    data = patches()
    train, test = data.train.double(), data.test.double()
    assert abs(float(train.mean() - test.mean())) < 0.03
    assert abs(float(test.var() / train.var()) - 1) < 0.1
    assert (float(train.min()), float(train.max())) == (-1.0, 1.0)


def test_patches_are_a_function_of_the_seed():
    assert torch.equal(patches(4, 50, seed=3).train, patches(4, 50, seed=3).train)
    assert not torch.equal(patches(4, 50, seed=3).train, patches(4, 50, seed=4).train)


@pytest.mark.parametrize("arguments", [{"size": 0}, {"size": 65}, {"n": 4}, {"n": 10**6}])
def test_patches_that_cannot_be_cut_are_refused(arguments):
    with pytest.raises(ArgumentError):
        patches(**arguments)


@pytest.mark.parametrize("make", [digits, patches])
def test_without_scikit_learn_the_extra_is_named(monkeypatch, make):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn.*sfumato\[data\]"):
        make()
