"""A folder that one process at a time writes to."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from sfumato.errors import OutputError

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

MARK = ".sfumato-lock"
_LONGEST = 200
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside, the folder is this process's: whoever else asks for it is refused.

    The mark is a lock on a file in the folder. It ends with its process, however that ends, so the file that a killed process leaves holds
    up nobody. Where the file system knows no locks, nobody is refused.

    Raises:
        OutputError: a living process holds the folder, which is named; or nothing can be written there.
    """
    mark = folder / MARK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _take(mark)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        # while it is still locked: nobody can have taken the folder in between
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)
        os.close(descriptor)


def _take(mark: Path) -> int:
    """The descriptor of the locked file."""
    while True:
        descriptor = os.open(mark, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # whoever held it before may have removed the file after it was opened here
            if _is_at(descriptor, mark):
                told = f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M:%S}"
                os.ftruncate(descriptor, 0)
                os.write(descriptor, told.encode())
                return descriptor
        except BlockingIOError as error:
            holder = os.read(descriptor, _LONGEST).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise OutputError(f"{mark.parent} is being written to by {holder}. Wait for it, stop it, or give another folder.") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
