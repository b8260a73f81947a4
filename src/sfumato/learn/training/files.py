"""Files that are whole or absent: tensors with a record and a checksum, put in place atomically, and read with suspicion.

A file is safetensors, so reading it runs no code. Its metadata hold a JSON record and the SHA-256 of record and tensors together.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sfumato.errors import CheckpointError
from sfumato.files import write_bytes


def digest(tensors: dict[str, Tensor], record: str = "") -> str:
    """SHA-256 over the record and every tensor's name, dtype, shape and bytes, in the order of the names."""
    out = hashlib.sha256(record.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        out.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        out.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return out.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> str:
    """Write tensors and a JSON record as one file, atomically; returns its checksum."""
    text = json.dumps(record, sort_keys=True)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    mark = digest(whole, text)
    write_bytes(path, save(whole, metadata={"record": text, "sha256": mark}))
    return mark


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote, verified.

    Raises:
        CheckpointError: no such file, or one that is truncated, altered or of another kind (a pickle is refused unread).
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError("file", str(path), "a whole safetensors file", str(error)) from error
    text = metadata.get("record", "")
    if metadata.get("sha256") != digest(tensors, text):
        raise CheckpointError("file", str(path), "a file written by sfumato, unaltered", "Its checksum is missing or does not match.")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError("file", str(path), "a record in JSON", str(error)) from error
    if not isinstance(record, dict):
        raise CheckpointError("file", f"{type(record).__name__} in {path}", "a record that is a JSON object")
    return tensors, record


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: no such file, or no JSON object in it.
    """
    try:
        out = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError("file", str(path), "a readable JSON file", str(error)) from error
    if not isinstance(out, dict):
        raise CheckpointError("file", str(path), "a JSON object")
    return out
