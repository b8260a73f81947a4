"""load: a name, a folder or a file, and a helpful refusal of anything else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data import BUNDLED, digits, load
from sfumato.errors import DataError


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_name_loads_under_its_own_name(name):
    assert load(name).name.startswith(name)


def test_names_folders_and_files_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    for i in range(4):
        Image.new("L", (3, 3), 50 * i).save(f"digits/{i}.png")
    np.save("a.npy", np.arange(12.0).reshape(6, 2))
    assert torch.equal(load("digits").train, digits().train)
    assert load("./digits").event_shape == (1, 3, 3)
    assert load(Path("digits")).event_shape == (1, 3, 3)
    assert load("a.npy").event_shape == (2,)


def test_anything_else_is_refused_with_the_names(tmp_path):
    (tmp_path / "a.csv").write_text("1,2")
    for spec in ("digit", tmp_path / "a.csv", tmp_path / "none.npy"):
        with pytest.raises(DataError, match=r"digits, patches, moons, .*a folder of images, or a file ending in \.npy"):
            load(spec)
