"""Pickles read without running anything that they say: what comes out is plain data and inert records of what was asked for.

A pickle is a program for a small machine. Its instructions are looked at first: only those that build plain data, name something, and ask
for a call or a state are let through, none of them beyond the file's own size. Then the machine runs with every name bound to a class that
does nothing but remember (`Inert`): a call becomes a record of its arguments, whatever was called. Nothing is imported or looked up.

Names are held to the packages that checkpoints of PyTorch have a use for. Any other one, though it would be as inert, is a sign of a file
that is meant to do something: it is refused.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import pickletools
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from sfumato.errors import CheckpointError

_HINT = "Nothing that the file holds was run. Get it again from its authors; do not open it with pickle or torch.load."
_PACKAGES = ("collections", "dnnlib", "numpy", "torch", "torch_utils", "training")
_BUILTINS = ("set", "frozenset")
_OPCODES = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINSTRING SHORT_BINSTRING
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE
    TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE
    GLOBAL STACK_GLOBAL REDUCE NEWOBJ NEWOBJ_EX BUILD BINPERSID
"""
_ALLOWED = frozenset(_OPCODES.split())
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    OSError,
    OverflowError,
    MemoryError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    RecursionError,
)
_MAGIC = 0x1950A86A20F9469CFC6C
"""What the storages' own format begins with."""
_AXES = 8
_DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
}


class Inert(dict):
    """What stands for an object that a file asks for: the `name` that was called, its `args`, its `state`, and its items, if it has any.

    Every name of a file has a throwaway subclass of this one, so that a file can spoil nothing but its own.
    """

    name: ClassVar[str] = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **_: Any) -> Inert:
        out = super().__new__(cls)
        out.args, out.state = args, None
        return out

    def __init__(self, *_: Any, **__: Any) -> None:
        """The arguments of a call are no items."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


_MACHINE: Any = pickle._Unpickler


class _Reader(_MACHINE):  # type: ignore[misc]
    """The machine, with nothing to call.

    It is the one in Python, which can be told what may be a key: to hash a tuple is to walk it, and a few bytes make one that doubles in
    size with each of them.
    """

    def load_setitem(self) -> None:
        self._hash(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        self._hash(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        self._hash(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        self._hash(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        self._hash(self.stack)
        super().load_frozenset()

    dispatch: ClassVar[dict[int, Any]] = {
        **_MACHINE.dispatch,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
    }

    def _hash(self, keys: list[Any]) -> None:
        if any(isinstance(key, tuple | frozenset) for key in keys):
            raise CheckpointError("file", "a pickle with a tuple or a set as a key", "texts and numbers as keys", _HINT)

    def find_class(self, module: str, name: str) -> Any:
        ours = module.partition(".")[0] in _PACKAGES or (module == "builtins" and name in _BUILTINS)
        if not ours:
            raise CheckpointError("file", f"a pickle that asks for {module}.{name}"[:200], "tensors and plain containers", _HINT)
        return type("Inert", (Inert,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_inert(stream: io.BytesIO | mmap.mmap) -> Any:
    """The next pickle of a stream, inert.

    Raises:
        CheckpointError: it is truncated, broken, asks for what no checkpoint needs, or has instructions that none has.
    """
    start = stream.tell()
    stream.seek(0, io.SEEK_END)
    size = stream.tell()
    stream.seek(start)
    try:
        for count, (code, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
            if code.name not in _ALLOWED:
                raise CheckpointError("file", f"a pickle with the instruction {code.name}", "tensors and plain containers", _HINT)
            if code.name.endswith("BINPUT") and int(argument or 0) > count:
                raise CheckpointError("file", f"a pickle that counts to {argument} in {count} steps", "a sound one", _HINT)
            if code.name == "FRAME" and int(argument or 0) > size - stream.tell():
                raise CheckpointError("file", f"a pickle with a frame of {argument} bytes", "frames that the file holds", _HINT)
        end = stream.tell()
        stream.seek(start)
        out = _Reader(stream).load()
    except CheckpointError:
        raise
    except _BROKEN as error:
        raise CheckpointError("file", f"a truncated or broken pickle ({str(error)[:100]})", "a whole one", _HINT) from error
    stream.seek(end)
    return out


def read_inert_file(path: Path) -> Any:
    """The one pickle that a file is.

    Raises:
        CheckpointError: as `read_inert`; there is no such file, it is of another kind, or goes on after the pickle.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[:1] != b"\x80":
                kind = "an archive, e.g. of torch.save" if content[:2] == b"PK" else "a file of another kind"
                raise CheckpointError("file", f"{kind} ({path})", "a pickle, as EDM's network-snapshot-*.pkl are")
            # a map never reads past its end, however much it is asked for
            out = read_inert(content)
            if content.tell() != len(content):
                raise CheckpointError("file", f"a pickle with {len(content) - content.tell()} bytes after its end", "a pickle", _HINT)
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError("file", str(path), "a readable file that is not empty", str(error)) from error
    return out


def inert_tensor(node: Any) -> Tensor:
    """The tensor that a record stands for: a parameter, or a view of a storage whose bytes the record holds.

    Raises:
        CheckpointError: it is none, or says more numbers than it holds.
    """
    if _called(node, "torch._utils._rebuild_parameter"):
        return inert_tensor(node.args[0] if node.args else None)
    if not _called(node, "torch._utils._rebuild_tensor_v2") or len(node.args) < 4:
        raise CheckpointError("tensor", getattr(node, "name", type(node).__name__), "a dense tensor", _HINT)
    numbers = _storage(node.args[0])
    offset, size, stride = node.args[1:4]
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride) or len(size) > _AXES:
        raise CheckpointError("tensor", "sizes and strides that do not fit together", f"as many of both, at most {_AXES}", _HINT)
    if not all(type(n) is int and 0 <= n < 2**62 for n in (offset, *size, *stride)):
        raise CheckpointError("tensor", "sizes, strides or an offset that are no numbers of things", "whole numbers, not negative", _HINT)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(numbers) or last >= len(numbers):
        raise CheckpointError("tensor", f"the size {size} of {len(numbers)} numbers", "at most as many as there are", _HINT)
    return numbers.as_strided(size, stride, offset)


def _called(node: Any, name: str) -> bool:
    return isinstance(node, Inert) and node.name == name


def _storage(node: Any) -> Tensor:
    """The numbers of a storage. They are held as PyTorch's older file format: five pickles, a count, and the bytes."""
    if not _called(node, "torch.storage._load_from_bytes") or len(node.args) != 1 or not isinstance(node.args[0], bytes):
        raise CheckpointError("storage", getattr(node, "name", type(node).__name__), "the bytes of a tensor", _HINT)
    stream = io.BytesIO(node.args[0])
    magic, _, system, record, keys = (read_inert(stream) for _ in range(5))
    named = isinstance(record, tuple) and len(record) >= 5 and isinstance(record[2], str) and record[5:] in ((), (None,))
    kind = getattr(record[1], "name", None) if named else None
    little = isinstance(system, dict) and system.get("little_endian") is True
    if magic != _MAGIC or kind not in _DTYPES or keys != [record[2]] or not little:
        raise CheckpointError("storage", f"a storage of type {kind}"[:120], f"one whole little-endian one of {', '.join(_DTYPES)}", _HINT)
    count, dtype = int.from_bytes(stream.read(8), "little"), _DTYPES[kind]
    content = bytearray(memoryview(node.args[0])[stream.tell() :])
    if count < 1 or len(content) != count * dtype.itemsize:
        raise CheckpointError("storage", f"{len(content)} bytes for {count} numbers of {dtype.itemsize}", "as many as it says", _HINT)
    return torch.frombuffer(content, dtype=dtype)
