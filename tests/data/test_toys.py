"""Toys: every law lies where its formula says. Statistical bands are 4 standard errors (false-alarm rate 6e-5 each), seeds fixed."""

import math

import pytest
import torch

from sfumato.data import checkerboard, grid, moons, pinwheel, rings, spiral
from sfumato.errors import ArgumentError

TOYS = [moons, rings, spiral, checkerboard, pinwheel, grid]


def points(toy, n=20_000):
    data = toy(n, seed=5)
    return data.train.double(), data.train_labels


@pytest.mark.parametrize("toy", TOYS)
def test_toys_are_functions_of_the_seed_with_equally_likely_labels_and_independent_parts(toy):
    data, again, other = toy(5000, seed=1), toy(5000, seed=1), toy(5000, seed=2)
    assert torch.equal(data.train, again.train)
    assert torch.equal(data.test_labels, again.test_labels)
    assert not torch.equal(data.train, other.train)
    assert not torch.equal(data.train[:1000], data.test)
    p = 1 / data.classes
    share = torch.bincount(data.train_labels, minlength=data.classes) / 5000
    assert float((share - p).abs().max()) < 4 * math.sqrt(p * (1 - p) / 5000)
    with pytest.raises(ArgumentError, match="n"):
        toy(4)


def test_rings_have_the_stated_radii_and_noise():
    x, label = points(rings)
    for ring in range(3):
        off = x[label == ring].norm(dim=1) - (ring + 1) / 2
        n = len(off)
        # a radius gains noise^2 / 2 radius from the noise across it
        assert abs(float(off.mean()) - 0.04**2 / (ring + 1)) < 4 * 0.04 / math.sqrt(n)
        assert abs(float(off.std()) / 0.04 - 1) < 4 / math.sqrt(2 * n)


def test_grid_has_its_means_and_standard_deviation():
    x, label = points(grid)
    off = x - torch.stack([label % 5, label // 5], dim=1) + 2
    assert float(off.mean(0).abs().max()) < 4 * 0.1 / math.sqrt(len(x))
    assert abs(float(off.std()) / 0.1 - 1) < 4 / math.sqrt(4 * len(x))


def test_checkerboard_fills_the_dark_squares_and_no_other():
    x, label = points(checkerboard)
    column, row = (x.floor().long() + 2).T
    assert torch.equal((column + row) % 2, torch.zeros_like(row))
    assert len((4 * row + column).unique()) == 8
    assert len((100 * label + 4 * row + column).unique()) == 8  # one square a label
    inside = x - x.floor()
    assert float((inside.mean(0) - 0.5).abs().max()) < 4 / math.sqrt(12 * len(x))


def test_moons_lie_at_radius_one_around_their_own_centres():
    x, label = points(moons)
    side = 1 - 2 * label.double()
    local = (x - torch.stack([-side / 2, -side / 4], dim=1)) * side[:, None]
    assert abs(float(local.norm(dim=1).mean()) - 1 - 0.05**2 / 2) < 4 * 0.05 / math.sqrt(len(x))
    assert float(local[:, 1].min()) > -6 * 0.05


def test_spiral_radius_follows_its_angle():
    x, label = points(spiral)
    radius = x.norm(dim=1)
    turn = torch.atan2(x[:, 1], x[:, 0]) - math.pi * label - 1.5 * math.pi * radius
    off = torch.remainder(turn + math.pi, 2 * math.pi) - math.pi
    # a noise of 0.05 moves the angle by 0.05/radius and, through the radius, by 1.5 pi 0.05
    far = radius > 0.5
    expected = (0.05 * torch.sqrt(1 / radius[far] ** 2 + (1.5 * math.pi) ** 2)).square().mean().sqrt()
    assert abs(float(off[far].square().mean().sqrt() / expected) - 1) < 0.05


def test_pinwheel_arms_are_straight_gaussians_before_the_turn():
    x, label = points(pinwheel)
    # within an arm the squared radius is along^2 + across^2 whatever the turn
    square = x.square().sum(1)
    mean, variance = 1 + 0.3**2 + 0.1**2, 4 * 0.3**2 + 2 * 0.3**4 + 2 * 0.1**4
    for arm in range(5):
        part = square[label == arm]
        assert abs(float(part.mean()) - mean) < 4 * math.sqrt(variance / len(part))
    # a fifth of a turn carries every arm's mean to the next one's
    means = torch.stack([x[label == arm].mean(0) for arm in range(5)])
    a = 2 * math.pi / 5
    turned = means @ torch.tensor([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]], dtype=torch.float64)
    assert float((turned - means.roll(-1, 0)).abs().max()) < 4 * math.sqrt(2 * 0.25 / (len(x) / 5))
