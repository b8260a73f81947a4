"""Folders: lossless images come back pixel by pixel; crops, colours, classes and refusals follow the docstring."""

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from sfumato.data import from_folder
from sfumato.errors import ArgumentError, DataError

RNG = np.random.default_rng(0)


def colour(height=6, width=6):
    return RNG.integers(0, 256, size=(height, width, 3)).astype(np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def everything(data):
    """Bytes of all images of both parts, as a set."""
    images = torch.cat([data.train, data.test])
    return {((x + 1) * 127.5).round().to(torch.uint8).numpy().tobytes() for x in images}


def folder_of(path, *images):
    for i, pixels in enumerate(images):
        save(path / f"{i:03}.png", pixels)
    return path


def test_png_round_trip_is_exact_and_the_parts_are_disjoint(tmp_path):
    images = [colour(5, 7) for _ in range(12)]
    data = from_folder(folder_of(tmp_path / "pictures", *images))
    assert (data.name, data.event_shape, len(data.train), len(data.test), data.classes) == ("pictures", (3, 5, 7), 10, 2, None)
    assert everything(data) == {i.transpose(2, 0, 1).tobytes() for i in images}
    exact = {(torch.from_numpy(i).permute(2, 0, 1) / 127.5 - 1).numpy().tobytes() for i in images}
    assert {x.numpy().tobytes() for x in (*data.train, *data.test)} == exact


def test_the_order_is_that_of_the_names_and_not_of_the_disk(tmp_path):
    images = [colour() for _ in range(8)]
    data = from_folder(folder_of(tmp_path / "a", *images))
    for i in reversed(range(8)):
        save(tmp_path / "b" / f"{i:03}.png", images[i])
    assert torch.equal(from_folder(tmp_path / "b").train, data.train)


@pytest.mark.parametrize(("suffix", "tolerance"), [("bmp", 0.0), ("webp", 0.0), ("gif", 0.0), ("jpg", 0.1), ("jpeg", 0.1), ("PNG", 0.0)])
def test_every_format_is_read(tmp_path, suffix, tolerance):
    shades = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    for i, shade in enumerate(shades):
        save(tmp_path / f"{i}.{suffix}", Image.new("RGB", (8, 8), shade), **({"lossless": True} if suffix == "webp" else {}))
    data = from_folder(tmp_path)
    found = torch.cat([data.train, data.test]).mean((2, 3))
    wanted = torch.tensor(shades) / 127.5 - 1
    assert float(torch.cdist(wanted, found, p=torch.inf).min(1).values.max()) <= tolerance


def test_grey_folders_keep_one_channel_and_one_coloured_image_makes_three(tmp_path):
    grey = [colour()[..., 0] for _ in range(5)]
    data = from_folder(folder_of(tmp_path, *grey))
    assert data.event_shape == (1, 6, 6)
    assert everything(data) == {g.tobytes() for g in grey}
    save(tmp_path / "x.png", colour())
    assert from_folder(tmp_path).event_shape == (3, 6, 6)


def test_sixteen_bits_of_grey_become_eight(tmp_path):
    images = [(colour()[..., 0].astype(np.uint16) * 257) for _ in range(4)]
    assert everything(from_folder(folder_of(tmp_path, *images))) == {(i // 257).astype(np.uint8).tobytes() for i in images}


def test_the_middle_square_is_cut_out_before_resampling(tmp_path):
    """White middles in black surroundings stay exactly white, so nothing of the surroundings bleeds in."""
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    tall = np.zeros((40, 20, 3), np.uint8)
    tall[10:30] = 255
    data = from_folder(folder_of(tmp_path, wide, tall, *[np.zeros((12, 12, 3), np.uint8)] * 2))
    assert data.event_shape == (3, 10, 10)  # the shortest side found
    assert sorted(float(x.unique()) for x in (*data.train, *data.test)) == [-1, -1, 1, 1]
    assert from_folder(tmp_path, size=4).event_shape == (3, 4, 4)


def test_a_size_is_met_by_enlarging_too_and_equal_images_are_squared(tmp_path):
    folder_of(tmp_path, *[colour(6, 9) for _ in range(4)])
    assert from_folder(tmp_path).event_shape == (3, 6, 9)
    assert from_folder(tmp_path, size=12).event_shape == (3, 12, 12)


def test_transparent_pixels_lie_on_white(tmp_path):
    layer = np.zeros((4, 4, 4), np.uint8)
    layer[:2, :, 3] = 255
    folder_of(tmp_path, layer, colour(4, 4), colour(4, 4))
    data = from_folder(tmp_path)
    expected = torch.full((3, 4, 4), -1.0)
    expected[:, 2:] = 1
    assert any(torch.equal(x, expected) for x in (*data.train, *data.test))


def test_the_camera_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by a quarter, clockwise
    images = [colour(4, 7) for _ in range(3)]
    for i, pixels in enumerate(images):
        save(tmp_path / f"{i}.png", pixels, exif=exif)
    data = from_folder(tmp_path)
    assert data.event_shape == (3, 7, 4)
    assert everything(data) == {np.ascontiguousarray(np.rot90(i, -1).transpose(2, 0, 1)).tobytes() for i in images}


def test_of_a_film_the_first_picture_is_taken(tmp_path):
    for i in range(3):
        first, second = Image.new("RGB", (4, 4), (85 * i, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
        save(tmp_path / f"{i}.gif", first, save_all=True, append_images=[second])
    data = from_folder(tmp_path)
    assert float(torch.cat([data.train, data.test])[:, 2].max()) == -1


def test_sub_folders_are_classes_if_every_image_is_in_one(tmp_path):
    for name, shade in (("b", 0), ("a", 80), ("c", 160)):
        for i in range(6):
            save(tmp_path / name / "deeper" / f"{i}.png", np.full((4, 4, 3), shade + 10 * i, np.uint8))
    data = from_folder(tmp_path)
    assert data.classes == 3
    for images, labels in ((data.train, data.train_labels), (data.test, data.test_labels)):
        level = ((images[:, 0, 0, 0] + 1) * 127.5).round()
        assert torch.equal(labels, torch.where(level < 80, 1, torch.where(level < 160, 0, 2)))
    save(tmp_path / "loose.png", colour(4, 4))
    assert from_folder(tmp_path).classes is None


def test_hidden_and_foreign_files_are_passed_over(tmp_path):
    folder_of(tmp_path, *[colour() for _ in range(4)])
    (tmp_path / ".hidden.png").write_bytes(b"junk")
    (tmp_path / "notes.txt").write_text("junk")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.png").write_bytes(b"junk")
    data = from_folder(tmp_path)
    assert len(data.train) + len(data.test) == 4


def test_a_limit_takes_a_fixed_choice_from_everywhere(tmp_path):
    for name in "abcd":
        folder_of(tmp_path / name, *[colour() for _ in range(25)])
    data = from_folder(tmp_path, limit=30)
    assert len(data.train) + len(data.test) == 30
    assert data.classes == 4
    assert torch.equal(data.train, from_folder(tmp_path, limit=30).train)
    assert everything(data) < everything(from_folder(tmp_path, limit=1000))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.7])
def test_a_truncated_image_is_named(tmp_path, suffix, keep):
    for i in range(4):
        save(tmp_path / f"{i}.{suffix}", colour(40, 40))
    good = (tmp_path / f"2.{suffix}").read_bytes()
    (tmp_path / f"2.{suffix}").write_bytes(good[: int(keep * len(good))])
    with pytest.raises(DataError, match=rf"2\.{suffix}.*decoded"):
        from_folder(tmp_path)


def test_what_is_no_folder_of_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="a folder of images"):
        from_folder(tmp_path / "none")
    with pytest.raises(DataError, match="0 images"):
        from_folder(tmp_path)
    folder_of(tmp_path, *[np.zeros((4, 4), np.uint8)] * 4)
    with pytest.raises(DataError, match="all the same"):
        from_folder(tmp_path)
    for arguments in ({"size": 0}, {"limit": 2}):
        with pytest.raises(ArgumentError, match="at least"):
            from_folder(tmp_path, **arguments)
