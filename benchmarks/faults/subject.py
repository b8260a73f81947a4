"""What is hurt: small data, a small model, and the commands on them."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np

from benchmarks.faults import SEED
from benchmarks.faults.child import Outcome, Surroundings, call

STEPS = 150
TRAIN = ("train", "data.npy", "--out", "out", "--steps", STEPS)
TUNE = ("tune", "--data", "data.npy", "--out", "out", "--steps", 60, "--quick", "--evaluations", "3")
SAMPLE = ("sample", "out", "-n", 8, "--out", "samples.npy")


def chance(part: str) -> random.Random:
    """The random choices of a part."""
    return random.Random(f"{SEED} {part}")


def folder_with_data(home: Path, name: str, seed: int = 0) -> Path:
    """A new folder with `data.npy`: 120 points in four dimensions, in two heaps."""
    folder = home / name
    folder.mkdir()
    write_data(folder / "data.npy", seed)
    return folder


def write_data(path: Path, seed: int = 0) -> None:
    """The points."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(120, 4)).astype(np.float32)
    points[::2] += 2
    np.save(path, points)


def undisturbed(home: Path, name: str, *commands: tuple[object, ...], seed: int = 0) -> Path:
    """A folder in which commands have been run to their end.

    Raises:
        RuntimeError: one fails without any fault.
    """
    folder = folder_with_data(home, name, seed)
    for command in commands:
        outcome: Outcome = call(command, Surroundings(folder))
        if outcome.code != 0:
            raise RuntimeError(f"{command} fails by itself: {outcome.err[-500:]}")
    return folder


def partial_file(folder: Path) -> bool:
    """Whether a file is being written at this moment."""
    with contextlib.suppress(OSError):
        return any(folder.rglob(".*.partial"))
    return False
