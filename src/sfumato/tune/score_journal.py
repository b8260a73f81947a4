"""Scores written down as they are measured, so that a search that is a function of its scores can be interrupted and gone on with."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sfumato.errors import CheckpointError, OutputError
from sfumato.files import write_bytes

FORMAT = 1


class ScoreJournal:
    """A file of one line a score, in the order in which a deterministic search asks for them.

    The first line says which search it is; every other holds a checksum of what was measured, and the score. A last line that was cut short
    by an interruption is dropped, and measured again.

    Raises:
        CheckpointError: a file of another search.
        OutputError: the file cannot be read or written.
    """

    def __init__(self, path: Path, search: dict[str, Any]) -> None:
        self.path, self.known, self.read = path, list[tuple[int, float]](), 0
        header = json.dumps({"format": FORMAT, **search}, sort_keys=True)
        try:
            lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
            if lines and lines[0] != header:
                raise CheckpointError("journal", str(path), "scores of this very search", "Give another file to start anew.")
            self.known = [_read(line, path) for line in lines[1:]]
            # whole lines only, also if this is interrupted
            write_bytes(path, "\n".join([header, *lines[1:], ""]).encode())
        except (OSError, UnicodeDecodeError) as e:
            raise OutputError(f"journal: {path} cannot be used: {getattr(e, 'strerror', None) or e}.") from e

    def value(self, what: str, measure: Callable[[], float]) -> float:
        """The score of the next thing in order: as it was written down, else measured and written.

        Raises:
            CheckpointError: something else was measured at this place.
        """
        check = zlib.crc32(what.encode())
        if self.read < len(self.known):
            seen, score = self.known[self.read]
            if seen != check:
                raise CheckpointError("journal", str(self.path), "scores of the same candidates", "It was written by another version.")
        else:
            score = measure()
            self.known.append((check, score))
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([check, score]) + "\n")
            except OSError as e:
                raise OutputError(f"journal: {self.path} cannot be written: {e.strerror or e}.") from e
        self.read += 1
        return score


def _read(line: str, path: Path) -> tuple[int, float]:
    try:
        check, score = json.loads(line)
        return int(check), float(score)
    except (ValueError, TypeError) as e:
        raise CheckpointError("journal", str(path), "lines of a checksum and a score", "The file was altered.") from e
