"""What the gallery shows is what was sampled."""

from __future__ import annotations

import base64
import io
import math
import re

import numpy as np
import torch
from PIL import Image

from sfumato.explain.gallery import gallery


def test_pictures_are_the_samples_pixel_by_pixel():
    image = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    _, _, cells = gallery({"data": image, "reference": image})[0]
    png = Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", cells[0])[1])))
    expected = ((image[0].permute(1, 2, 0) + 1) / 2 * 255).round()
    assert torch.equal(torch.from_numpy(np.array(png, dtype=np.float32)), expected)


def test_points_are_all_drawn_or_counted_as_lying_outside():
    data = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    rows = gallery({"data": data, "reference": data, "bad": torch.tensor([[0.0, 0.0], [9.0, 0.0], [math.nan, 0.0]])})
    assert [row[1] for row in rows] == ["4 points", "4 points", "2 of 3 points lie outside"]
    assert re.search(r'd="([^"]*)"', rows[2][2][0])[1] == "M50.0 50.0h0", "the middle of the data is the middle of the square"


def test_sequences_are_curves_and_other_events_strips():
    wave = torch.tensor([[[0.0, 1.0, -1.0]]])
    (_, _, (cell,)), *_ = gallery({"data": wave, "reference": wave})
    assert 'points="0.0,50.0 50.0,0.0 100.0,100.0"' in cell
    (_, _, (cell,)), *_ = gallery({"data": torch.zeros(1, 4, 6, 5), "reference": torch.ones(1, 4, 6, 5)})
    assert Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", cell)[1]))).size == (5, 24)
