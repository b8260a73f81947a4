"""Commands in processes of their own, to be hurt: killed, interrupted, kept from writing, made somebody else.

They are forked from a server that has imported everything, so that a trial costs what the command costs.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CAPABILITIES = 0x20080522
"""The version of the kernel's structure for them."""
LIMIT = 300.0
"""Seconds after which a command is said to hang."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["benchmarks.faults.warm"])


@dataclass(frozen=True)
class Surroundings:
    """What a command finds.

    Arguments:
        folder: where it starts.
        most: bytes that a file may grow to (`RLIMIT_FSIZE`), or None.
        mortal: whether permissions bind it, which root otherwise stands above.
        before: done in its process at first.
    """

    folder: Path
    most: int | None = None
    mortal: bool = False
    before: Callable[[], None] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, negative for a signal and None if it hung, and what it said."""

    code: int | None
    out: str
    err: str

    @property
    def complaint(self) -> list[str]:
        """The lines of standard error that are no progress: from the first `error:` or `stopped` on, or all of a traceback."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        for i, line in enumerate(lines):
            if line.startswith(("error:", "stopped", "Traceback", "Exception ignored")):
                return lines[i:]
        return []

    def expect(self, code: int | Sequence[int], starts: str = "", names: str = "") -> str | None:
        """What is wrong with this end, where `code` and one line were due."""
        codes = [code] if isinstance(code, int) else list(code)
        if self.code not in codes:
            return f"exit code {self.code}, not {codes}: {self.err[-300:]!r}"
        if starts and (len(self.complaint) != 1 or not self.complaint[0].startswith(starts)):
            return f"not one line that starts with {starts!r}: {self.err[-300:]!r}"
        if names and names not in self.err:
            return f"{names!r} is not named: {self.err[-300:]!r}"
        return None


class Child:
    """A running command of the command line, or a function, which then has no outcome but its exit code."""

    def __init__(self, what: Sequence[object] | Callable[[], Any], where: Surroundings) -> None:
        task = what if callable(what) else tuple(str(w) for w in what)
        self._home = tempfile.TemporaryDirectory(prefix="faults-")
        self.out, self.err = Path(self._home.name, "out"), Path(self._home.name, "err")
        for path in (self.out, self.err):
            path.touch()
        self._process = _CONTEXT.Process(target=_live, args=(task, where, str(self.out), str(self.err)), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        return int(self._process.pid or 0)

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: int) -> bool:
        """Send a signal; whether there was anybody to get it."""
        if not self.alive:
            return False
        os.kill(self.pid, number)
        return True

    def until(self, ready: Callable[[], bool], seconds: float = LIMIT, pause: float = 0.0005) -> bool:
        """Wait until something is so; False if the command ends before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if ready():
                return True
            if not self.alive:
                return ready()
            time.sleep(pause)
        return False

    def wait(self, seconds: float = LIMIT) -> Outcome:
        """Its end, which is made if it does not come."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
        said = [path.read_text(errors="replace") for path in (self.out, self.err)]
        self._home.cleanup()
        return Outcome(code, *said)


def call(what: Sequence[object] | Callable[[], Any], where: Surroundings, seconds: float = LIMIT) -> Outcome:
    """Start a command and wait for its end."""
    return Child(what, where).wait(seconds)


def timed_call(what: Sequence[object], where: Surroundings) -> tuple[Outcome, float]:
    """The end of a command, and the seconds it took."""
    start = time.monotonic()
    return call(what, where), time.monotonic() - start


def _drop_capabilities() -> None:
    """Give up what root may do beyond the permissions of files; it still owns its own."""
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


def _live(task: tuple[str, ...] | Callable[[], Any], where: Surroundings, out: str, err: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
    os.chdir(where.folder)
    if where.most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (where.most, where.most))
    if where.mortal:
        _drop_capabilities()
    if where.before is not None:
        where.before()
    if callable(task):
        task()
        return
    from sfumato.__main__ import main

    main(list(task))
