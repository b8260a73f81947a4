"""The commands of `sfumato atlas`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.errors import ArgumentError
from sfumato.voice import launched

atlas = typer.Typer(no_args_is_help=True, help="One executable row per paper: what it claims, and what we measure.")

Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
Names = Annotated[list[str] | None, typer.Argument(metavar="ROW...", help="ids or slugs, e.g. T3 painters", show_default=False)]


@atlas.command("list")
def atlas_list(
    word: Annotated[str | None, typer.Argument(help="what the slug, the title, the authors or the claim shall contain")] = None,
    family: Annotated[str | None, typer.Option(help="theory, solvers or processes")] = None,
    room: Annotated[str | None, typer.Option(help="a room whose parts the row uses, e.g. sample")] = None,
    debug: Debug = False,
) -> None:
    """The rows: id, slug, and whether the claim holds here."""
    from sfumato.atlas import papers, rooms

    from .console import show_rows

    families, used = {p.family for p in papers()}, {p: rooms(p) for p in papers()}
    _known("--family", family, families)
    _known("--room", room, {name for names in used.values() for name in names})
    found = [p for p in papers() if family in (None, p.family) and (room is None or room in used[p])]
    if word is not None:
        found = [p for p in found if word.lower() in f"{p.id} {p.slug} {p.title} {p.authors} {p.claim}".lower()]
    show_rows(found)


def _known(option: str, given: str | None, names: set[str]) -> None:
    if given is not None and given not in names:
        raise ArgumentError(option, repr(given), f"one of {', '.join(sorted(names))}")


@atlas.command("show")
def atlas_show(row: Annotated[str, typer.Argument(help="id or slug, e.g. T3")], debug: Debug = False) -> None:
    """What a paper claims, and the code that measures it."""
    from sfumato.atlas import find

    from .console import show_row

    show_row(find(row))


@atlas.command("cite")
def atlas_cite(
    row: Names = None, every: Annotated[bool, typer.Option("--all", help="cite every paper")] = False, debug: Debug = False
) -> None:
    """BibTeX of papers, or of sfumato itself where none is named."""
    from sfumato.atlas import bibtex, papers

    if every and row:
        raise ArgumentError("ROW", row, "rows to cite, or --all")
    typer.echo(bibtex(*([paper.slug for paper in papers()] if every else row or [])), nl=False)


@atlas.command("run")
def atlas_run(
    row: Names = None,
    every: Annotated[bool, typer.Option("--all", help="run every row")] = False,
    file: Annotated[Path | None, typer.Option("--json", help="write the findings to a file, after every row")] = None,
    update: Annotated[bool, typer.Option("--update", help="go on with that file: only rows that are new, changed or not good")] = False,
    debug: Debug = False,
) -> int:
    """Run rows; exit code 0 if every check passed and every control failed as it should."""
    from sfumato.atlas import find, rows
    from sfumato.atlas.record import Record
    from sfumato.ranks import Ranks

    from .console import run_rows
    from .subjects import writable

    if launched()[0] > 0:
        return 0  # rows are not shared out: the first process runs them
    if every == bool(row):
        raise ArgumentError("ROW", row or None, "rows to run, or --all", "`sfumato atlas list` shows them.")
    if update and file is None:
        raise ArgumentError("--update", None, "a file to go on with, --json FILE")
    chosen = rows() if every else [find(name) for name in row or []]
    if file is not None:
        writable(file.resolve().parent, Ranks())
    record = Record(file, update)
    run_rows([one for one in chosen if record.due(one)], record)
    return 0 if record.good(chosen) else 1
