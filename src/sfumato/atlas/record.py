"""What runs of rows found, in one file that is whole after every row, so that a run can be stopped and gone on with.

The file is a list of findings in the order of the atlas, each with the machine it was measured on and the fingerprint of its code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sfumato
from sfumato.atlas.paper import Paper
from sfumato.atlas.row import Outcome
from sfumato.atlas.source import fingerprint, papers
from sfumato.errors import DataError
from sfumato.files import write_bytes
from sfumato.machine import machine


class Record:
    """The findings in a file.

    Arguments:
        file: where they are kept; None keeps them nowhere.
        update: begin with what the file has; otherwise it is begun anew.

    Raises:
        DataError: the file to go on with is no list of findings.
    """

    def __init__(self, file: Path | None, update: bool = False) -> None:
        self.file = file
        kept = read(file) if file is not None and update and file.exists() else []
        self._found = {entry["slug"]: entry for entry in kept}

    def due(self, paper: Paper) -> bool:
        """Whether a row has to be run: it is not in the file, its code has changed since, or it was not as it should be."""
        entry = self._found.get(paper.slug)
        return entry is None or not is_current(entry, paper) or not is_good(entry)

    def add(self, outcome: Outcome) -> None:
        """Keep what a run found, and write the file."""
        self._found[outcome.row.slug] = {**outcome.to_dict(), "machine": {**machine(), "sfumato": sfumato.__version__}}
        if self.file is not None:
            places = {paper.slug: i for i, paper in enumerate(papers())}
            entries = sorted(self._found.values(), key=lambda entry: places.get(entry["slug"], len(places)))
            write_bytes(self.file, json.dumps(entries, indent=1).encode())

    def good(self, rows: Iterable[Paper]) -> bool:
        """Whether these rows are all as they should be."""
        return all(is_good(self._found[row.slug]) for row in rows)


def read(file: Path) -> list[dict[str, Any]]:
    """The findings in a file.

    Raises:
        DataError: it is no list of findings.
    """
    try:
        found = json.loads(file.read_text("utf-8"))
        whole = isinstance(found, list) and all({"slug", "code", "checks", "controls"} <= set(entry) for entry in found)
    except (OSError, ValueError, TypeError) as error:
        raise DataError("--json", str(file), "a file that `sfumato atlas run --json` wrote", str(error)) from error
    if not whole:
        raise DataError("--json", str(file), "a file that this version of `sfumato atlas run --json` wrote", "Run it without --update.")
    return found


def is_current(entry: dict[str, Any], paper: Paper) -> bool:
    """Whether a row's code is still what it was when that was found."""
    return entry["code"] == fingerprint(paper)


def is_good(entry: dict[str, Any]) -> bool:
    """Whether every check passed and every control failed as it should."""
    return all(check["passed"] for check in entry["checks"]) and all(control["failed_as_it_should"] for control in entry["controls"])
