"""Degradations: identities at level 0, closed forms at the end, invariances, and what they refuse."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.general.degradation import Blend, Blur, Degradation, Downsample, GaussianMask, PatchReplacement, Snow, snowflakes
from sfumato.seeds import noise

X = noise(0, 5, (2, 8, 4), dtype=torch.float64).draw(0)
OTHER = noise(1, 1, (2, 8, 4), dtype=torch.float64).draw(0)[0]
ALL = [
    Blur((0, 0.3, 2.0)),
    GaussianMask((0, 1, math.inf)),
    GaussianMask((0, 0.5, 3), "border"),
    Downsample((1, 2, 4)),
    PatchReplacement(OTHER, 2),
    Blend(OTHER, (1, 0.6, 0), (0, 0.8, 1)),
    Snow(snowflakes(8, 4, 3, density=0.3), (0, 0.5, 1)),
]


@pytest.mark.parametrize("degrade", ALL, ids=lambda d: type(d).__name__)
def test_level_zero_is_the_identity_and_levels_forget_more_and_more(degrade):
    """`D(x, 0) = x`; two data sets never move apart from level to level; a level beyond the last is refused."""
    assert isinstance(degrade, Degradation)
    assert torch.equal(degrade(X, 0), X)
    y = X.flip(0)
    apart = [float((degrade(X, s) - degrade(y, s)).norm()) for s in range(degrade.levels + 1)]
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(apart))
    assert apart[-1] < 0.9 * apart[0]
    with pytest.raises(ArgumentError, match="level"):
        degrade(X, degrade.levels + 1)


def test_blur_is_the_heat_equation():
    """Its generator's action on a cosine is exact, runs add up, and the mean and nothing else survives for ever."""
    blur = Blur((0, 0.4, 1.0, 1.4, 1e4))
    torch.testing.assert_close(blur(blur(X, 1), 2), blur(X, 3), atol=1e-12, rtol=0)
    torch.testing.assert_close(blur(X, 4), X.mean((2, 3), keepdim=True).expand_as(X), atol=1e-12, rtol=0)
    wave = torch.cos(math.pi * 3 * (torch.arange(8, dtype=torch.float64) + 0.5) / 8)[:, None].expand(1, 1, 8, 4)
    torch.testing.assert_close(blur(wave, 2), math.exp(-((math.pi * 3 / 8) ** 2)) * wave, atol=1e-12, rtol=0)


def test_blur_agrees_with_scipys_gaussian_filter_on_a_smooth_image():
    from scipy.ndimage import gaussian_filter

    image = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    image[0, 0, 14:18, 15:20] = 1.0
    out = Blur((0, 4.5))(image, 1)  # standard deviation sqrt(2 * 4.5) = 3
    expected = gaussian_filter(image[0, 0].numpy(), 3.0, mode="reflect", truncate=8)
    torch.testing.assert_close(out[0, 0], torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_masks_forget_the_centre_or_the_border_first():
    centre, border = GaussianMask((0, 1.5), fill=7)(X, 1), GaussianMask((0, 0.5), "border", 7)(X, 1)
    moved = [((y - X) / (7 - X))[0, 0] for y in (centre, border)]
    assert moved[0].argmax() in (13, 14, 17, 18)
    assert moved[1].argmax() in (0, 3, 28, 31)
    r2 = 0.5**2 + 0.5**2
    torch.testing.assert_close(moved[0][3, 1], torch.tensor(math.exp(-r2 / (2 * 1.5**2)), dtype=torch.float64))
    torch.testing.assert_close(moved[1][3, 1], torch.tensor(1 - math.exp(-r2 * 0.5**2 / 2), dtype=torch.float64))


def test_a_mask_without_width_leaves_the_image_at_any_level():
    """Of odd size, so that a pixel is at the centre, 0 widths away."""
    assert torch.equal(GaussianMask((0, 0, 2))(X[..., :3, :3], 1), X[..., :3, :3])


def test_block_means_are_a_projection_that_keeps_the_mean():
    coarse = Downsample((1, 2))
    once = coarse(X, 1)
    torch.testing.assert_close(coarse(once, 1), once)
    torch.testing.assert_close(once[0, 0, :2, :2], X[0, 0, :2, :2].mean().expand(2, 2))


def test_patches_come_one_a_level_until_the_other_image_is_all():
    patches = PatchReplacement(OTHER, 2, seed=4)
    counts = [int((patches(X, s)[0, 0] == OTHER[0]).sum()) for s in range(patches.levels + 1)]
    assert counts == [4 * s for s in range(9)]
    assert not torch.equal(patches(X, 3), PatchReplacement(OTHER, 2, seed=5)(X, 3))


def test_a_blend_finds_the_image_that_was_blended_in():
    blend = ALL[5]
    torch.testing.assert_close(blend.seen(blend(X, 1), X, 1).other, OTHER.expand_as(X))
    with pytest.raises(ArgumentError, match="other image is seen"):
        blend.seen(X, X, 0)


def test_snow_only_brightens_and_covers_the_share_it_was_asked_for():
    flakes = snowflakes(64, 64, 0, density=0.2, streak=1)
    # 4096 pixels: five standard deviations are 0.031
    assert abs(float((flakes > 0).double().mean()) - 0.2) < 0.031
    assert bool((ALL[6](X, 2) >= X).all())


def test_a_level_is_the_formula_of_the_table():
    """Each degradation on a small image, number by number, at a level that is not the last."""
    x = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]], dtype=torch.float64)
    flakes = torch.tensor([[1.0, 1.0], [1.0, 10.0]], dtype=torch.float64)
    torch.testing.assert_close(Snow(flakes, (0, 0.25, 1))(x, 1), torch.tensor([[[[0.25, 1.0], [2.0, 5.5]]]], dtype=torch.float64))
    torch.testing.assert_close(Blend(flakes[None], (1, 0.6, 0), (0, 0.8, 1))(x, 1), 0.6 * x + 0.8 * flakes)
    torch.testing.assert_close(Downsample((1, 2))(x, 1), torch.full_like(x, 1.75))
    hole = 1 - math.exp(-0.5 / (2 * 9))  # every pixel is sqrt(1/2) from the centre
    torch.testing.assert_close(GaussianMask((0, 3.0), fill=2)(x, 1), 2 + hole * (x - 2))
    torch.testing.assert_close(GaussianMask((0, 3.0), "border", 2)(x, 1), 2 + math.exp(-0.5 * 9 / 2) * (x - 2))
    assert torch.equal(GaussianMask((0, 0, 3.0), fill=2)(x, 1), x)
    assert torch.equal(GaussianMask((0, math.inf), fill=2)(x, 1), torch.full_like(x, 2))
    assert torch.equal(GaussianMask((0, math.inf))(x, 1), torch.zeros_like(x))


def test_patches_are_whole_squares_in_an_order_that_the_seed_fixes():
    other = torch.ones(1, 4, 6)
    patches = PatchReplacement(other, 2)
    assert patches.levels == 6
    covers = [patches(torch.zeros(1, 1, 4, 6), s)[0, 0] for s in range(7)]
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).tolist()
    for before, after, i in zip(covers, covers[1:], order, strict=False):
        new = torch.zeros(4, 6)
        new[i // 3 * 2 : i // 3 * 2 + 2, i % 3 * 2 : i % 3 * 2 + 2] = 1
        assert torch.equal(after - before, new)
    assert PatchReplacement(other).levels == 24


def test_streaks_of_snow_fall_down_and_right_and_fade():
    """A streak of three: 1, 2/3 and 1/3 of the way from `low` to `high`, each a pixel further down and right than the last."""
    sky = snowflakes(32, 32, 7, density=0.01, streak=3, low=-2, high=4)
    starts = torch.special.ndtr(noise(7, 1, (32, 32), dtype=torch.float64).draw(0)[0]) < 0.01
    assert 2 <= int(starts.sum()) <= 25
    expected = torch.full((32, 32), -2.0, dtype=torch.float64)
    for y, x in starts.nonzero().tolist():
        for i in range(3):
            at = (y + i) % 32, (x + i) % 32
            expected[at] = max(float(expected[at]), -2 + 6 * (3 - i) / 3)
    torch.testing.assert_close(sky, expected)
    default = snowflakes(32, 32, 7)
    assert torch.equal(default, snowflakes(32, 32, 7, density=0.1, streak=2, low=-1, high=1))
    assert (float(default.min()), float(default.max())) == (-1, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Blur((0.1, 1)),
        lambda: Blur((0, 1, 0.5)),
        lambda: GaussianMask((0,)),
        lambda: PatchReplacement(OTHER, 3),
        lambda: Blend(OTHER, (1, 0.5), (0.1, 0.5)),
        lambda: Snow(torch.zeros(8, 4), (0, 2)),
        lambda: snowflakes(4, 4, 0, density=0),
    ],
)
def test_meaningless_degradations_are_refused(make):
    with pytest.raises(ArgumentError):
        make()


def test_events_that_are_no_images_are_refused():
    with pytest.raises(ShapeError, match="images"):
        Blur((0, 1))(X[:, 0], 1)
    with pytest.raises(ShapeError, match="multiples"):
        Downsample((1, 3))(X, 1)
