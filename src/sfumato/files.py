"""Files that are whole or absent: written beside their place, and moved there in one step."""

from __future__ import annotations

import os
from pathlib import Path

from sfumato.errors import OutputError


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` at `path`: at every moment, and after a crash at any moment, the file there is the old one or the new one, whole.

    What a process that was killed has left beside it is written over the next time.

    Raises:
        OutputError: the folder cannot be made or written, or is full; nothing is left beside the old file then.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        if os.name == "posix":
            # the new name itself is only safe once the folder is
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from error
