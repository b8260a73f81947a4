"""Measures figures and says whether they reach their targets: `python -m benchmarks [NAME ...] [--quick]`.

`python -m benchmarks faults [PART ...]` runs parts of that one; a figure of which only parts ran is printed and not kept. Otherwise it
writes `benchmarks/results/NAME.json`, and `NAME.md` with the table; a quick run only prints. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figure import Figure, Row, machine

FIGURES = {
    "exact_world": "1. On an exact world: our error over that of the best diffusers setting",
    "digits": "2. On a trained digit model: the same, and the samples' distance to held-out data",
    "agreement": "3. Our classic solvers against diffusers, on the same times and noise",
    "orders": "4. Measured orders of convergence on an exact mixture",
    "empirical": "5. The denoiser of 50,000 points: rate, memory, accuracy",
    "overhead": "6. Time per step with a free denoiser",
    "training": "7. Training against a bare PyTorch loop",
    "resume": "8. Training killed and taken up again",
    "scale": "9. Statistics, Gaussian parts and the report of 50,000 images of 3x64x64",
    "order_table": "10. The order table: every preset, stated against measured",
    "presets": "11. What a preset costs: compiling 20 steps, and a term of a step",
    "frontier": "12. Error against evaluations of every solver, on exact worlds and a trained model",
    "peers": "13. Every published sampler of diffusers, k-diffusion and azula, and ours, measured alike",
    "family": "14. Processes with two channels beside scalar ones: training and sampling",
    "gpu": "15. What only a GPU can tell: overhead, waiting, compilation, half precision, rates",
    "faults": "16. Faults: trials that failed, by what was done; none may",
}
RESULTS = Path(__file__).parent / "results"
_MARKS = {True: "reached", False: "MISSED", None: ""}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the project's figures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which figures: {', '.join(FIGURES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller sizes where it makes sense; nothing is written")
    parser.add_argument("--list", action="store_true", help="list the figures and stop")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if given.list:
        for name, title in FIGURES.items():
            console.print(f"{name:12}  {title}")
        return 0
    # of the faults one can name parts
    parts = given.names[1:] if given.names[:1] == ["faults"] else []
    names = ["faults"] if parts else given.names
    unknown = [name for name in names if name not in FIGURES] + _unknown_parts(parts)
    if unknown:
        parser.error(f"no figure named {', '.join(unknown)}; there are {', '.join(FIGURES)}")
    missed = 0
    for name in names or FIGURES:
        about, start = machine(), time.perf_counter()
        with console.status(f"measuring {name}"):
            figure: Figure = importlib.import_module(f"benchmarks.{name}").measure(given.quick, *([parts] if parts else []))
        about |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(time.perf_counter() - start, 1)}
        console.print(table(name, figure.rows))
        console.print(f"{sentence(about)}\n", style="dim")
        if not given.quick and not parts:
            save(name, figure, about)
        missed += sum(row.passed is False for row in figure.rows)
    console.print(f"{missed} targets missed" if missed else "no target missed")
    return int(missed > 0)


def _unknown_parts(parts: list[str]) -> list[str]:
    from benchmarks.faults import PARTS

    return [name for name in parts if name not in PARTS]


def table(name: str, rows: list[Row]) -> Table:
    """The rows as a table for the terminal."""
    out = Table(title=FIGURES[name], title_justify="left", show_lines=False)
    for column, how in (("", "left"), ("measured", "right"), ("target", "right"), ("", "left"), ("", "left")):
        out.add_column(column, justify=how)  # type: ignore[arg-type]
    for row in rows:
        style = {True: "green", False: "bold red", None: ""}[row.passed]
        out.add_row(row.name, number(row.value), row.target, f"[{style}]{_mark(row)}[/]" if style else _mark(row), row.details)
    return out


def number(value: float | None) -> str:
    """Three digits, or a dash for what was not measured."""
    return "-" if value is None else f"{value:.3g}"


def sentence(about: dict[str, Any]) -> str:
    """The machine's facts in one line."""
    return ", ".join(f"{key} {value}" for key, value in about.items())


def save(name: str, figure: Figure, about: dict[str, Any]) -> None:
    """Write a figure's JSON, and its table as Markdown."""
    RESULTS.mkdir(exist_ok=True)
    plain = {"title": FIGURES[name], "machine": about, "rows": [asdict(row) for row in figure.rows], "facts": figure.facts}
    (RESULTS / f"{name}.json").write_text(json.dumps(_finite(plain), indent=1, allow_nan=False) + "\n")
    lines = [f"# {FIGURES[name]}", "", "| | measured | target | | |", "|---|---:|---:|---|---|"]
    lines += [f"| {r.name} | {number(r.value)} | {r.target} | {_mark(r)} | {r.details} |" for r in figure.rows]
    (RESULTS / f"{name}.md").write_text("\n".join([*lines, "", f"{sentence(about)}.", ""]))


def _mark(row: Row) -> str:
    return "not measured" if row.value is None else _MARKS[row.passed]


def _finite(value: Any) -> Any:
    """Plain JSON: numbers that are none become text."""
    if isinstance(value, dict):
        return {str(key): _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
