"""Arrays and images that were truncated or flipped, or mean harm: each is refused in one line, or is a data set of finite numbers."""

from __future__ import annotations

import functools
import io
import random
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from benchmarks.faults.mutate import spoil_bytes
from benchmarks.faults.subject import chance
from benchmarks.faults.tally import Tally
from benchmarks.faults.watch import CANARY, Trials, watched
from sfumato.data import load

_BOMB = 2**29
_HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<c8', 'fortran_order': False, 'shape': (6, 4), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (6, 4), }",
    "{'descr': '<f4', 'fortran_order': 3, 'shape': 'x', }",
    "__import__('os').system('true')",
    "(" * 3000,
    "[" * 9000 + "]" * 9000,
    "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 4), 'x': " + "9" * 6000 + "}",
    "\x00",
    "{'descr': '<f16', 'fortran_order': False, 'shape': (6, 4), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4, 0), }",
)


class _Order:
    """Pickled as an order to a shell."""

    def __init__(self, order: str) -> None:
        self.order = order

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (self.order,)


def run(quick: bool, home: Path) -> list[Tally]:
    """Arrays, then folders of images."""
    counts = (60, 20) if quick else (350, 150)
    return [
        watched(Trials("arrays", _arrays, counts[0], home / "a")),
        watched(Trials("folders of images", _images, counts[1], home / "b")),
    ]


def _arrays(home: Path, count: int) -> Callable[[int], Callable[[], str | None]]:
    rng, work = chance("arrays"), home / "work"
    work.mkdir()
    order = f"echo dead > {home / CANARY}"

    def trial(i: int) -> Callable[[], str | None]:
        shutil.rmtree(work)
        work.mkdir()
        suffix = (".npy", ".npz", ".safetensors")[i % 3]
        path = work / f"data{suffix}"
        path.write_bytes({".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}[suffix](rng, order))
        return lambda: _use(path)

    return trial


def _whole() -> bytes:
    out = io.BytesIO()
    np.save(out, np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32))
    return out.getvalue()


def _npy(rng: random.Random, order: str) -> bytes:
    match rng.randrange(4):
        case 0:
            return spoil_bytes(_whole(), rng)
        case 1:
            out = io.BytesIO()
            np.save(out, np.array([_Order(order)] * 3, dtype=object), allow_pickle=True)
            return out.getvalue()
        case 2:
            out = io.BytesIO()
            kinds = [
                np.full((9, 2), np.nan),
                np.full((9, 2), 1e300),
                np.zeros((9, 2)),
                np.arange(9.0),
                np.array(3.0),
                np.ones((2, 2), "U3"),
            ]
            np.save(out, rng.choice(kinds))
            return out.getvalue()
        case _:
            text = rng.choice(_HEADERS).encode("latin-1") + b"\n"
            return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + bytes(96)


def _npz(rng: random.Random, order: str) -> bytes:
    out = io.BytesIO()
    what = rng.randrange(5)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        match what:
            case 0:
                archive.writestr("../../../canary.npy", _npy(rng, order))
            case 1:
                archive.writestr("a.npy", _npy(rng, order))
            case 2:
                archive.writestr("a", b"plain text")
            case 3:
                archive.writestr("a.npy", _whole())
                archive.writestr("b.npy", _whole())
            case _:
                archive.writestr("a.npy", _whole())
    if what == 4 and rng.random() < 0.2:
        return _zip_bomb()
    return spoil_bytes(out.getvalue(), rng) if rng.random() < 0.5 else out.getvalue()


@functools.cache
def _zip_bomb() -> bytes:
    """Half a gigabyte of zeros, in half a megabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": "<f4", "fortran_order": False, "shape": (_BOMB // 16, 4)})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("a.npy", "w", force_zip64=True) as file:
        file.write(header.getvalue())
        for _ in range(_BOMB // 2**20):
            file.write(bytes(2**20))
    return out.getvalue()


def _safetensors(rng: random.Random, order: str) -> bytes:
    whole = save({"a": torch.randn(12, 4, generator=torch.Generator().manual_seed(0))})
    if rng.random() < 0.6:
        return spoil_bytes(whole, rng)
    kinds = [torch.zeros(9, 2, dtype=torch.complex64), torch.full((9, 2), torch.nan), torch.zeros(0, 3), torch.tensor(1.0)]
    return rng.choice([save({"a": rng.choice(kinds)}), struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 9000) + b"[" * 9000, b""])


def _images(home: Path, count: int) -> Callable[[int], Callable[[], str | None]]:
    rng, work = chance("images"), home / "work"
    work.mkdir()

    def trial(i: int) -> Callable[[], str | None]:
        shutil.rmtree(work)
        work.mkdir()
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 255, (6, 6 + number % 2, 3), dtype=np.uint8)
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, rng.choice(["PNG", "JPEG", "BMP", "GIF", "WEBP"]))
            # a wrong ending is no harm: what counts is the content
            (work / f"{number}.png").write_bytes(out.getvalue())
        path = work / "3.png"
        path.write_bytes(_png_bomb() if i % 15 == 0 else spoil_bytes(path.read_bytes(), rng))
        return lambda: _use(work)

    return trial


def _png_bomb() -> bytes:
    """A picture of 60,000 times 60,000 pixels, in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


def _use(path: Path) -> str | None:
    data = load(path)
    return None if bool(torch.isfinite(data.train).all()) and bool(torch.isfinite(data.test).all()) else "numbers that are not finite"
