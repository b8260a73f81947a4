"""What the command line shows: live progress and the table of results."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from sfumato.atlas.paper import Paper
from sfumato.atlas.record import Record
from sfumato.atlas.row import Check, Row, run
from sfumato.explain.report.panel import Panel
from sfumato.tune.result import TuneResult

_WIDE = 140
_SILENCE = 20.0
"""Seconds after which a log hears how far a task is."""


class Console:
    """Live progress on standard error, one line a task; where that is no terminal, a line when a task begins and one now and then."""

    def __init__(self) -> None:
        self._console = RichConsole(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        self._task: TaskID | None = None
        self._told = time.monotonic()

    def __enter__(self) -> Console:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None and kind is None:
            self._finish()
        self._progress.stop()

    def begin(self, task: str, total: int) -> None:
        """A task begins, and the one before is done."""
        if self._task is not None:
            self._finish()
        if not self._console.is_terminal:
            self._console.print(task, highlight=False)
        self._task = self._progress.add_task(task, total=total, note="")
        self._told = time.monotonic()

    def advance(self, parts: int = 1) -> None:
        """So many parts of the task are done."""
        if self._task is None:
            return
        self._progress.advance(self._task, parts)
        if not self._console.is_terminal and time.monotonic() - self._told > _SILENCE:
            task = self._progress.tasks[self._task]
            self._console.print(f"  {task.completed:.0f} of {task.total or 0:.0f}", highlight=False)
            self._told = time.monotonic()

    def say(self, text: str) -> None:
        """A word beside the bar."""
        if self._task is not None:
            self._progress.update(self._task, note=text)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"  {text}", highlight=False)

    def _finish(self) -> None:
        if self._task is not None:
            task = self._progress.tasks[self._task]
            self._progress.update(self._task, completed=task.total)


def _console() -> RichConsole:
    """A table is of use only whole: where there is no terminal, it is as wide as it needs."""
    return RichConsole(width=None if sys.stdout.isatty() else _WIDE, highlight=False)


def show_result(result: TuneResult, recipe: Path, report: Path) -> None:
    """The main table: our program beside the best peer of every budget."""
    table = Table(title=f"error against the reference flow, {result.reference['samples']:.0f} starts no choice has seen")
    for name in ("evaluations", "ours", "best of diffusers", "", "ours / theirs", "distance to data: ours", "theirs"):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    for n in result.settings["evaluations"]:
        ours, peer = result.ours(n), result.best(n, "diffusers")
        ratio = f"{ours.error.value / peer.error.value:.2f}" if peer else ""
        table.add_row(
            str(n),
            str(ours.error),
            str(peer.error) if peer else "not installed",
            peer.name if peer else "",
            ratio,
            str(ours.quality or ""),
            str(peer.quality or "") if peer else "",
        )
    console = _console()
    console.print(table)
    for name, value in result.floor.items():
        console.print(f"distance to held-out data of {name}: {value}")
    console.print(f"recipe: {recipe}\nreport: {report}\nsamples: sfumato sample {recipe.parent} -n 64 --seed 0 --out grid.png")


def show_panels(panels: Sequence[Panel], report: Path) -> None:
    """What each question found, a line each."""
    console = _console()
    for panel in panels:
        console.print(f"[bold]{escape(panel.title)}[/bold] {escape(panel.advice or 'Not asked: ' + panel.missing)}")
    console.print(f"report: {report}")


def show_rows(rows: Sequence[Paper]) -> None:
    """The atlas as a table."""
    table = Table()
    for name in ("id", "slug", "paper", "reproduced"):
        table.add_column(name, no_wrap=name != "paper")
    for row in rows:
        table.add_row(row.id, row.slug, f"{row.title} ({row.authors}, {row.year})", row.reproduced)
    _console().print(table)


def show_row(row: Row) -> None:
    """A row's identity, its claim, and the code of its checks."""
    import inspect

    from rich.syntax import Syntax

    console = _console()
    console.print(
        f"[bold]{row.id}  {row.title}[/bold]\n{row.authors}, {row.year}, arXiv {row.arxiv}\n\n{row.claim}\n\nreproduced: {row.reproduced}\n"
    )
    for measure in row.checks:
        console.print(Syntax(inspect.getsource(measure), "python"))


def run_rows(rows: Sequence[Row], record: Record) -> None:
    """Run rows one after the other, saying what each check found as it finds it; the record has each row as soon as it is done."""
    console = _console()
    for row in rows:
        console.print(f"[bold]{row.id} {row.slug}[/bold]")
        outcome = run(row, lambda check: console.print(_line(check), soft_wrap=True))
        record.add(outcome)
        good = sum(c.good for c in outcome.checks)
        console.print(f"  {good} of {len(outcome.checks)} as they should be, {outcome.seconds:.1f} s")


def _line(check: Check) -> str:
    measured = f"{check.measured:.4g}" if isinstance(check.measured, int | float) else str(check.measured)
    verdict = (
        ("failed, as it should" if check.good else "PASSED, AND SHOULD NOT") if check.control else ("passed" if check.good else "FAILED")
    )
    colour = "green" if check.good else "red"
    told = escape(f"{check.name}: {measured}, expected {check.expected}")
    return f"  [{colour}]{'control' if check.control else 'check  '} {verdict}[/{colour}]  {told}"
