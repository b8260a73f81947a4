"""A Gaussian law as a file: its mean, its eigenvectors and eigenvalues, and the variance of the rest."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from sfumato.errors import ArgumentError, CheckpointError, RecipeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn.training.files import read_tensors, write_tensors

_FORMAT = 1
_TENSORS = {"mean", "vectors", "eigenvalues", "rest"}


def write_law(path: Path, law: Gaussian) -> str:
    """Write a law as safetensors, atomically; returns the file's checksum.

    Raises:
        OutputError: the folder cannot be written. What was there before stays.
    """
    covariance = law.covariance
    tensors = {
        "mean": law.mean,
        "vectors": covariance.basis.columns(),
        "eigenvalues": covariance.spectrum[: covariance.rank],
        "rest": covariance.spectrum[covariance.rank :],
    }
    return write_tensors(path, tensors, {"format": _FORMAT})


def law_mark(path: Path) -> str | None:
    """The checksum that a law's file carries, unverified; None if there is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError):
        return None


def read_law(path: Path) -> Gaussian | None:
    """The law that `write_law` wrote; None where there is no file.

    Raises:
        RecipeError: a file that is truncated or altered, or holds something else.
    """
    if not path.exists():
        return None
    try:
        tensors, _ = read_tensors(path)
    except CheckpointError as e:
        raise RecipeError("statistics", str(path), e.expected, e.hint) from e
    if set(tensors) != _TENSORS:
        raise RecipeError("statistics", sorted(tensors), f"the tensors {sorted(_TENSORS)}")
    if odd := [name for name, value in tensors.items() if not value.is_floating_point()]:
        raise RecipeError(f"statistics.{odd[0]}", tensors[odd[0]].dtype, "real numbers")
    vectors, rest = tensors["vectors"], tensors["rest"]
    if vectors.ndim != 2 or rest.ndim != 1 or len(rest) > 1:
        raise RecipeError("statistics", (tuple(vectors.shape), tuple(rest.shape)), "vectors (dim, rank) and at most one rest")
    try:
        covariance = SpectralCovariance.low_rank(vectors, tensors["eigenvalues"], float(rest[0]) if len(rest) else 0.0)
        return Gaussian(tensors["mean"], covariance)
    except ArgumentError as e:
        raise RecipeError("statistics", str(path), "a Gaussian law", str(e)) from e
