r"""A sampler is a table.

Every explicit solver without step-size control is linear in what it has seen. Over nodes `t_0 >= t_1 >= ... >= t_N` it is a *program*

    X_i = sum_{j<i} A_ij X_j + sum_{j<i} B_ij D_j + sum_{1<=j<=i} C_ij eps_j,        D_j = denoiser(X_j, t_j),

kept row by row and only where it is not zero. `X_0` is the start, `X_N` the sample; a node that no later row asks about costs no
evaluation.

A coefficient is a float64 vector over the *modes* of a Gaussian law: one entry for a scalar program (the everyday case, no law), or
one entry per entry of the law's spectrum, i.e. per eigenvector and, if these do not span the space, a last one for the rest. A spectral
program acts on centred variables, `X_j - alpha_j m` and `D_j - m`; a scalar one that is consistent does so too, see `sample.consistency`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import RecipeError
from sfumato.exact.laws.gaussian import Gaussian
from sfumato.noise import ScalarProcess, process_from_dict
from sfumato.sample.table import Table

Coefficients = Mapping[int, Tensor]
"""Node (or draw) number to coefficient `(modes,)`, float64."""

FORMAT = 1
_LARGEST = torch.finfo(torch.float32).max
"""Of a number in a file: samples are float32."""


@dataclass(frozen=True)
class Row:
    """One row of the table: `states` holds `A_i.`, `data` holds `B_i.`, `noise` holds `C_i.`."""

    states: Coefficients = field(default_factory=dict)
    data: Coefficients = field(default_factory=dict)
    noise: Coefficients = field(default_factory=dict)

    def parts(self) -> tuple[tuple[str, Coefficients], ...]:
        """The three parts by name."""
        return ("states", self.states), ("data", self.data), ("noise", self.noise)


@dataclass(frozen=True)
class Program(Table):
    """A sampler's table, checked when it is made.

    Arguments:
        name: what the program is called in tables and plots.
        process: the process whose noise it removes.
        times: the nodes `t_0, ..., t_N`, never rising.
        rows: one row per node; the first is empty, since `X_0` is given.
        space: the Gaussian law whose modes the coefficients run over, or None for a scalar program.

    Raises:
        RecipeError: rising times, a row that looks ahead, coefficients that are not finite or of the wrong number of modes.

    Example:
        >>> from sfumato.noise import FlowMatching
        >>> from sfumato.sample import PRESETS, Program
        >>> program = PRESETS["ddim"].compile(FlowMatching(), [1.0, 0.5, 0.0])
        >>> program.evaluations, program.times
        (2, (1.0, 0.5, 0.0))
        >>> {j: round(float(c), 3) for j, c in program.rows[1].data.items()}  # X_1 = ... + 0.5 D_0
        {0: 0.5}
        >>> Program.from_dict(program.to_dict()).evaluated
        (0, 1)
    """

    name: str
    process: ScalarProcess
    times: tuple[float, ...]
    rows: tuple[Row, ...]
    space: Gaussian | None = None

    def __post_init__(self) -> None:
        self.check_times()
        if any(len(part) for _, part in self.rows[0].parts()):
            raise RecipeError("rows[0]", "coefficients", "an empty row", "X_0 is where sampling starts.")
        for i, row in enumerate(self.rows[1:], start=1):
            for name, part in row.parts():
                low, high = (1, i) if name == "noise" else (0, i - 1)
                if not all(low <= j <= high for j in part):
                    raise RecipeError(f"rows[{i}].{name}", sorted(part), f"nodes from {low} to {high}")
                if not all(c.shape == (self.modes,) and bool(torch.isfinite(c).all()) for c in part.values()):
                    raise RecipeError(f"rows[{i}].{name}", "other coefficients", f"{self.modes} finite numbers a node")

    @cached_property
    def modes(self) -> int:
        """Entries of a coefficient: 1, or those of the law's spectrum."""
        return _modes(self.space)

    @cached_property
    def levels(self) -> tuple[Tensor, Tensor]:
        """`alpha` and `sigma` at the nodes, float64 `(nodes,)`."""
        t = torch.tensor(self.times, dtype=torch.float64)
        return self.process.alpha(t), self.process.sigma(t)

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """The full tables `A, B, C`, each `(nodes, nodes, modes)`."""
        n = len(self.rows)
        tables = [torch.zeros(n, n, self.modes, dtype=torch.float64) for _ in range(3)]
        for i, row in enumerate(self.rows):
            for table, (_, part) in zip(tables, row.parts(), strict=True):
                for j, c in part.items():
                    table[i, j] = c
        return tables[0], tables[1], tables[2]

    def to_dict(self) -> dict[str, Any]:
        """Plain data (JSON values). The law of a spectral program is not in it: keep it beside, and give it to `from_dict`."""
        rows = [{name: {str(j): c.tolist() for j, c in part.items()} for name, part in row.parts() if part} for row in self.rows]
        return {
            "format": FORMAT,
            "name": self.name,
            "process": self.process.to_dict(),
            "times": list(self.times),
            "modes": self.modes,
            "rows": rows,
        }

    @classmethod
    def from_dict(cls, data: Any, space: Gaussian | None = None) -> Program:
        """The program that `to_dict` wrote down; `space` is the law of a spectral one.

        Raises:
            RecipeError: an unknown format or key, a missing law, or a table that is not one.
        """
        keys = {"format", "name", "process", "times", "modes", "rows"}
        if not isinstance(data, dict) or set(data) != keys:
            given = sorted(data) if isinstance(data, dict) else type(data).__name__
            raise RecipeError("program", given, f"exactly the keys {sorted(keys)}")
        if data["format"] != FORMAT:
            raise RecipeError("program.format", data["format"], f"format {FORMAT}", "It was written by another version of sfumato.")
        if not isinstance(data["name"], str) or not _is_numbers(data["times"]) or not isinstance(data["rows"], list):
            raise RecipeError("program", "other types", "a name, a list of times and a list of rows")
        modes = _modes(space)
        if data["modes"] != modes:
            raise RecipeError("program.modes", data["modes"], f"{modes} modes", "Does the program belong to another law?")
        nodes = {str(i): i for i in range(len(data["rows"]))}
        rows = tuple(_row_from_dict(i, row, nodes) for i, row in enumerate(data["rows"]))
        return cls(data["name"], process_from_dict(data["process"]), tuple(float(t) for t in data["times"]), rows, space)


def _modes(space: Gaussian | None) -> int:
    return 1 if space is None else len(space.covariance.spectrum)


def _is_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= _LARGEST for v in values)


def _row_from_dict(i: int, row: Any, nodes: Mapping[str, int]) -> Row:
    if not isinstance(row, dict) or not set(row) <= {"states", "data", "noise"}:
        raise RecipeError(f"rows[{i}]", sorted(row) if isinstance(row, dict) else type(row).__name__, "the keys states, data, noise")
    parts: dict[str, dict[int, Tensor]] = {}
    for name, part in row.items():
        if not isinstance(part, dict) or not all(j in nodes and _is_numbers(c) for j, c in part.items()):
            raise RecipeError(f"rows[{i}].{name}", "another form", "node numbers with lists of numbers")
        parts[name] = {nodes[j]: torch.tensor(c, dtype=torch.float64) for j, c in part.items()}
    return Row(**parts)
