"""What every explanation is: numbers, a picture, plain data and a sentence."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor


class Explanation(ABC):
    """The answer to one question about a model; its members are frozen dataclasses."""

    @property
    @abstractmethod
    def numbers(self) -> dict[str, float]:
        """The headline figures by name."""

    @property
    @abstractmethod
    def meaning(self) -> str:
        """What the figures say, in plain words, to somebody who owns the model."""

    @abstractmethod
    def plot(self, ax: Any) -> None:
        """Draw on matplotlib axes: what was measured, what the closed form predicts, and where there is one the mechanism-off twin."""

    def to_dict(self) -> dict[str, Any]:
        """All fields and the headline figures as plain data: lists and numbers, `None` where a number is not finite."""
        fields = {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {**fields, "numbers": plain(self.numbers), "meaning": self.meaning}


def plain(value: Any) -> Any:
    """Plain data that JSON can hold.

    Raises:
        TypeError: a value that has no plain form.
    """
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [plain(v) for v in value]
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no plain form")
