"""Array files: numbers come back exactly by the stated rules; what is broken or pickled is refused and never run."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sfumato.data import arrays, from_array
from sfumato.errors import DataError


def write(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, data=array)
    else:
        save_file({"data": torch.from_numpy(array)}, path)
    return path


def rows(data):
    """All samples of both parts, as a sorted list of tuples."""
    return sorted(tuple(x.flatten().tolist()) for x in (*data.train, *data.test))


def sorted_rows(array):
    return sorted(tuple(x.flatten().tolist()) for x in array)


RNG = np.random.default_rng(0)
KINDS = pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])


@KINDS
def test_every_format_gives_back_every_sample_exactly(tmp_path, suffix):
    array = RNG.normal(size=(40, 3, 5)).astype(np.float32)
    data = from_array(write(tmp_path / f"a{suffix}", array))
    assert (data.name, data.event_shape, len(data.test)) == ("a", (3, 5), 6)
    assert rows(data) == sorted_rows(array)


@KINDS
@pytest.mark.parametrize("dtype", ["float64", "float16", "int16", "int64", "bool", "uint16"])
def test_other_numbers_are_cast_unscaled(tmp_path, suffix, dtype):
    array = RNG.integers(0, 2 if dtype == "bool" else 300, size=(12, 4)).astype(dtype)
    assert rows(from_array(write(tmp_path / f"a{suffix}", array))) == sorted_rows(array.astype(np.float32))


@pytest.mark.parametrize("dtype", [">f4", ">i4", "longdouble"])
def test_foreign_byte_orders_and_long_doubles_are_read(tmp_path, dtype):
    array = RNG.integers(-99, 99, size=(12, 4)).astype(dtype)
    assert rows(from_array(write(tmp_path / "a.npy", array))) == sorted_rows(array.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((9, 4, 5, 3), (0, 3, 1, 2)),
        ((9, 4, 5, 1), (0, 3, 1, 2)),
        ((9, 3, 5, 3), (0, 1, 2, 3)),  # may be channel first, so it is left alone
        ((9, 4, 5, 4), (0, 1, 2, 3)),
        ((9, 3, 4, 5), (0, 1, 2, 3)),
    ],
)
def test_byte_images_become_channel_first_in_the_exact_range(tmp_path, shape, axes):
    array = RNG.integers(0, 256, size=shape).astype(np.uint8)
    array[0].flat[:2] = 0, 255
    data = from_array(write(tmp_path / "a.npy", array))
    expected = (array.astype(np.float32) / np.float32(127.5) - 1).transpose(axes)
    assert data.event_shape == expected.shape[1:]
    assert rows(data) == sorted_rows(expected)
    assert min(data.train.min(), data.test.min()) == -1
    assert max(data.train.max(), data.test.max()) == 1


def test_byte_images_without_channels_get_one(tmp_path):
    array = RNG.integers(0, 256, size=(9, 4, 5)).astype(np.uint8)
    assert from_array(write(tmp_path / "a.npy", array)).event_shape == (1, 4, 5)
    assert from_array(write(tmp_path / "b.npy", array.astype(np.float32))).event_shape == (4, 5)


def test_large_float_arrays_stay_on_disk_in_the_order_of_the_file(tmp_path, monkeypatch):
    array = RNG.normal(size=(60, 4)).astype(np.float32)
    path = write(tmp_path / "a.npy", array)
    monkeypatch.setattr(arrays, "MAPPED", 100)
    data = from_array(path)
    assert np.array_equal(data.train.numpy(), array[:50])
    assert np.array_equal(data.test.numpy(), array[50:])
    np.load(path, mmap_mode="r+")[3, 2] = 7.0  # the tensor is the file: it sees what is written to it
    assert float(data.train[3, 2]) == 7.0
    assert rows(from_array(write(tmp_path / "b.npy", array.astype(np.float64)))) == sorted_rows(array)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_of_several_arrays_one_must_be_named(tmp_path, suffix):
    path, x = tmp_path / f"a{suffix}", RNG.normal(size=(9, 2)).astype(np.float32)
    if suffix == ".npz":
        np.savez(path, x=x, y=-x)
    else:
        save_file({"x": torch.from_numpy(x), "y": -torch.from_numpy(x)}, path)
    assert rows(from_array(path, "y")) == sorted_rows(-x)
    for key in (None, "z"):
        with pytest.raises(DataError, match="one of x, y"):
            from_array(path, key)


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["object.npy", "object.npz", "raw.npy", "raw.npz", "raw.safetensors"])
def test_pickles_are_refused_and_their_payload_does_not_run(tmp_path, name):
    mark, path = tmp_path / "mark", tmp_path / name
    bomb = np.array([Payload(mark)] * 4, dtype=object)
    if name.startswith("raw"):
        path.write_bytes(pickle.dumps(bomb))
    else:
        np.save(path, bomb) if path.suffix == ".npy" else np.savez(path, bomb)
    with pytest.raises(DataError):
        from_array(path)
    assert not mark.exists()
    # negative control: the payload is live
    if path.suffix == ".npy":
        np.load(path, allow_pickle=True)
        assert mark.exists()


@KINDS
@pytest.mark.parametrize("keep", [0, 1, 11, 100, -5])
def test_truncated_files_are_refused_by_name(tmp_path, suffix, keep):
    path = write(tmp_path / f"a{suffix}", RNG.normal(size=(20, 5)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"a{suffix}"):
        from_array(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_files_give_a_dataset_or_a_data_error_and_nothing_else(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", RNG.normal(size=(20, 5)).astype(np.float32))
    good, rng = path.read_bytes(), np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        damaged = bytearray(good)
        for place in rng.integers(0, 140, size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            from_array(path)
        except DataError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(5.0), r"shape \(5,\)"),
        (np.float32(3), r"shape \(\)"),
        (np.ones((5, 2), dtype=complex), "complex128"),
        (np.array([["a", "b"]] * 5), "the dtype <U1"),
        (np.zeros((5, 2), dtype=[("a", "f4")]), "real numbers"),
        (np.zeros((2, 3)), "at least 3"),
        (np.zeros((9, 0, 3)), "a readable array|at least one number"),
        (np.zeros((9, 3)), "all the same"),
        (np.full((9, 3), np.nan), "NaN or infinite values, the first at index"),
        (np.full((9, 3), 1e300), "NaN or infinite values"),
    ],
)
def test_arrays_that_are_no_data_are_refused(tmp_path, array, message):
    with pytest.raises(DataError, match=message):
        from_array(write(tmp_path / "a.npy", array))


def test_missing_and_unknown_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3")
    for name in ("a.txt", "none.npy"):
        with pytest.raises(DataError, match=r"a file ending in \.npy"):
            from_array(tmp_path / name)
    np.save(tmp_path / "b.npy", np.ones((5, 2)))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"name it \.npy"):
        from_array(tmp_path / "b.npz")
    save_file({"c": torch.ones(5, 2, dtype=torch.complex64)}, tmp_path / "c.safetensors")
    with pytest.raises(DataError, match="complex64"):
        from_array(tmp_path / "c.safetensors")
