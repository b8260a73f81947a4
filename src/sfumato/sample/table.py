"""What every table of a sampler can say of itself, whatever its coefficients are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

from sfumato.errors import RecipeError


@runtime_checkable
class TableRow(Protocol):
    """A row names, by node, the answers it reads, and by number, the noise draws."""

    @property
    def data(self) -> Mapping[int, Any]: ...

    @property
    def noise(self) -> Mapping[int, Any]: ...


class Table:
    """Nodes at falling times, a row for each."""

    times: tuple[float, ...]

    @property
    def _rows(self) -> Sequence[TableRow]:
        rows: Sequence[TableRow] = self.rows  # type: ignore[attr-defined]
        return rows

    def check_times(self) -> None:
        """Refuse times that rise, leave [0, 1] or are not one per row.

        Raises:
            RecipeError: which of them it is.
        """
        times, rows = self.times, self._rows
        if len(times) < 2 or len(times) != len(rows):
            raise RecipeError("times, rows", (len(times), len(rows)), "the same number of nodes and rows, at least 2")
        if not all(0 <= t <= 1 for t in times) or any(s > t for t, s in pairwise(times)):
            raise RecipeError("times", list(times), "times in [0, 1] that never rise")

    @cached_property
    def evaluated(self) -> tuple[int, ...]:
        """The nodes at which the denoiser is asked."""
        return tuple(sorted({j for row in self._rows for j in row.data}))

    @property
    def evaluations(self) -> int:
        """How often the denoiser is asked."""
        return len(self.evaluated)

    @cached_property
    def draws(self) -> tuple[int, ...]:
        """The noise draws in use; none for a deterministic program. Draw 0 belongs to the start."""
        return tuple(sorted({j for row in self._rows for j in row.noise}))
