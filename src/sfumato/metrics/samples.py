"""What every distance does first: two batches of events become two float64 matrices of the same width."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.data.dataset import check_finite
from sfumato.errors import DataError, ShapeError


def as_matrix(x: Tensor, name: str, least: int) -> Tensor:
    """`x` `(n, *event)` as float64 `(n, d)`, detached, on its own device; real numbers of an event without axes have `d = 1`.

    Raises:
        DataError: fewer than `least` samples, NaN or infinite values.
        ShapeError: no batch axis, or events without numbers.
    """
    if x.ndim == 0 or 0 in x.shape[1:]:
        raise ShapeError(name, tuple(x.shape), "samples (n, *event) of at least one number each")
    if x.shape[0] < least:
        raise DataError(name, f"{x.shape[0]} samples", f"at least {least}")
    check_finite(x, name)
    return x.detach().to(torch.float64).flatten(1) if x.ndim > 1 else x.detach().to(torch.float64).unsqueeze(1)


def as_pair(x: Tensor, y: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Both batches as matrices `(n, d)` and `(m, d)`; `y` is moved to the device of `x`.

    Raises:
        DataError: see `as_matrix`.
        ShapeError: events of different shapes.
    """
    if x.shape[1:] != y.shape[1:]:
        raise ShapeError("y", tuple(y.shape[1:]), f"events shaped as those of x, {tuple(x.shape[1:])}")
    return as_matrix(x, "x", least), as_matrix(y.to(x.device), "y", least)
