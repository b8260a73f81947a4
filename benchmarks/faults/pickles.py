"""Pickles: programs for a small machine, of which not one instruction may do anything. Each is refused, or is plain data.

Random programs of all instructions, checkpoints with flipped bytes, calls to shells and files in every place, and structures made to take
for ever: tuples that double in size with every byte as keys, deep nesting, counts that are lies.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults.mutate import spoil_bytes
from benchmarks.faults.subject import chance
from benchmarks.faults.tally import Tally
from benchmarks.faults.watch import CANARY, Trials, watched
from sfumato.integrations.edm_checkpoint import read_edm
from sfumato.integrations.inert_pickle import read_inert_file

_DOUBLINGS = 60
_DEEP = 200_000
_CALLS = (
    ("os", "system"),
    ("posix", "system"),
    ("subprocess", "getoutput"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "open"),
    ("builtins", "__import__"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.serialization", "os.system"),
    ("numpy", "load"),
    ("numpy.f2py", "os.system"),
    ("collections", "_sys.exit"),
    ("training.x", "os.system"),
    ("pathlib", "Path.write_text"),
)


def run(quick: bool, home: Path) -> list[Tally]:
    """All kinds, in turn."""
    return [watched(Trials("pickles", _pickles, 60 if quick else 500, home / "a"))]


def _pickles(home: Path, count: int) -> Callable[[int], Callable[[], str | None]]:
    rng, work = chance("pickles"), home / "work"
    work.mkdir()
    path, order = work / "network.pkl", f"echo dead > {home / CANARY}"
    makers = (_random_program, _calling, _flipped, _bomb, _nested)

    def trial(i: int) -> Callable[[], str | None]:
        path.write_bytes(makers[i % len(makers)](rng, order))

        def use() -> str | None:
            read_inert_file(path)
            return "a network" if isinstance(read_edm(path), str) else None

        return use

    return trial


def _calling(rng: random.Random, order: str) -> bytes:
    """A call of something harmful, bare or inside a checkpoint's dict, by two ways of naming it."""
    module, name = rng.choice(_CALLS)
    if rng.random() < 0.5:
        named = f"c{module}\n{name}\n".encode()
    else:
        named = b"".join(b"X" + struct.pack("<I", len(t)) + t.encode() for t in (module, name)) + b"\x93"
    call = named + b"X" + struct.pack("<I", len(order)) + order.encode() + rng.choice([b"\x85R", b"\x85\x81", b"\x85Rb", b"\x85RN\x85b"])
    return b"\x80\x04" + rng.choice([call + b".", b"}X\x03\x00\x00\x00ema" + call + b"s.", b"](" + call + b"e."])


def _checkpoint() -> bytes:
    out = io.BytesIO()
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    pickle.dump({"ema": {"a": weight, "b": [weight.detach(), {1, 2}, frozenset([3]), b"x", 1.5]}}, out, protocol=4)
    return out.getvalue()


def _flipped(rng: random.Random, order: str) -> bytes:
    return spoil_bytes(_checkpoint(), rng)


def _random_program(rng: random.Random, order: str) -> bytes:
    """Instructions by chance, their arguments too."""
    out = bytearray(b"\x80\x04")
    for _ in range(rng.randrange(5, 200)):
        code: Any = rng.choice(pickletools.opcodes)
        out += code.code.encode("latin-1")
        if code.arg is not None:
            size = code.arg.n
            out += rng.randbytes(size) if size > 0 else rng.choice([b"os\nsystem\n", b"\x03abc", b"5\n", b"\x01\x00\x00\x00a"])
    return bytes(out) + b"."


def _bomb(rng: random.Random, order: str) -> bytes:
    """`t = (t, t)`, sixty times: small to hold, and for ever to hash, compare or print."""
    double = b"N\x85" + b"2\x86" * _DOUBLINGS
    ends = [b"}", double, b"Ns."], [b"\x8f(", double, b"\x90."], [b"(", double, b"\x91."], [b"", double, b"."]
    inside = b"}X\x03\x00\x00\x00ema" + double + b"s."
    return b"\x80\x04" + rng.choice([b"".join(rng.choice(ends)), inside])


def _nested(rng: random.Random, order: str) -> bytes:
    """Depth that overflows a stack, as a value or as a key."""
    deep = rng.choice([b"N" + b"\x85" * _DEEP, b"]" * _DEEP + b"a" * (_DEEP - 1), b"N" + b"\x85" * _DEEP + b"}\x94h\x000Ns"])
    return b"\x80\x04" + rng.choice([deep, b"}" + deep + b"Ns", b"}X\x03\x00\x00\x00ema" + deep + b"s"]) + b"."
