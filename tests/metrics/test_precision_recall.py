"""Shares of sets whose overlap is known, against an independent neighbour search."""

from __future__ import annotations

import pytest
import torch

from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.metrics import precision_recall


def normal(n, seed, shift=0.0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def test_against_an_independent_neighbour_search():
    from scipy.spatial import KDTree

    real, fake = normal(150, 0), normal(130, 1, 0.7)
    found = precision_recall(real, fake, k=4, block=37)
    for share, points, centres in ((found.precision, fake, real), (found.recall, real, fake)):
        radii = KDTree(centres.numpy()).query(centres.numpy(), 5)[0][:, 4]
        inside = (torch.cdist(points, centres) <= torch.from_numpy(radii)).any(1).double()
        assert share.value == pytest.approx(float(inside.mean()), abs=1e-12)
        assert share.standard_error == pytest.approx(float(inside.std(correction=0)) / len(points) ** 0.5, abs=1e-12)


def test_the_same_set_is_covered_and_a_far_one_is_not():
    real = normal(100, 0)
    same, far = precision_recall(real, real), precision_recall(real, normal(100, 1, 100.0))
    assert (same.precision.value, same.recall.value) == (1, 1)
    assert (far.precision.value, far.recall.value) == (0, 0)


def test_a_dropped_mode_costs_recall_and_not_precision():
    real, fake = torch.cat([normal(300, 0), normal(300, 1, 50.0)]), normal(600, 2)
    found = precision_recall(real, fake)
    assert found.recall.value == pytest.approx(0.5, abs=0.03)
    assert found.precision.value > 0.9
    swapped = precision_recall(fake, real)
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


def test_bad_input():
    with pytest.raises(ArgumentError, match="at least 1 each"):
        precision_recall(normal(9, 0), normal(9, 1), k=0)
    with pytest.raises(DataError, match="at least 4"):
        precision_recall(normal(3, 0), normal(9, 1))
    with pytest.raises(ShapeError, match="events shaped"):
        precision_recall(normal(9, 0), normal(9, 1)[:, :2])
