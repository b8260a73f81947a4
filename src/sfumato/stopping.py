"""Being asked to stop: by Ctrl-C, or by whatever runs the process (a launcher, a queue), with SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

TOLD = "stopped; the same command goes on from what was saved"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Interruption:
    """Whether somebody has asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.requested, self.number = False, int(signal.SIGINT)

    def note(self, number: int) -> None:
        """Somebody asks."""
        self.requested, self.number = True, number

    @property
    def code(self) -> int:
        """The exit code of a process that stops for it: 130 or 143."""
        return 128 + self.number


LATEST = Interruption()
"""Of the whole process: its exit code says which signal it was."""


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Inside, the first signal only sets `requested`; a second one interrupts at once, as ever.

    A request that nobody has acted on interrupts at the end. Outside the main thread, where no signal arrives, it does nothing.
    """
    out = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield out
        return
    before = _handlers()

    def note(number: int, frame: FrameType | None) -> None:
        out.note(number)
        LATEST.note(number)
        _handle(before)

    _handle(dict.fromkeys(_SIGNALS, note))
    try:
        yield out
    finally:
        _handle(before)
    if out.requested:
        raise KeyboardInterrupt("stopped at the end of the work")


@contextmanager
def interrupting() -> Iterator[Interruption]:
    """For the whole of a command: both signals raise `KeyboardInterrupt`; afterwards, when its outcome is settled, they do nothing.

    One that arrives where nothing can be raised (in a destructor, say) ends the process at once, with its line: all files are whole at
    every moment.
    """
    LATEST.requested = False

    def note(number: int, frame: FrameType | None) -> None:
        LATEST.note(number)
        raise KeyboardInterrupt

    def lost(what: Any) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            complain(what)
            return
        os.write(2, f"{TOLD}\n".encode())
        os._exit(LATEST.code)

    complain, sys.unraisablehook = sys.unraisablehook, lost
    _handle(dict.fromkeys(_SIGNALS, note))
    try:
        yield LATEST
    finally:
        _handle(dict.fromkeys(_SIGNALS, signal.SIG_IGN))
        # an interruption that passed through an exec of text, as dataclasses do while they are made, is kept by the interpreter, which
        # then ends by SIGINT whatever the exit code (python -m, 3.11); the next exec of text makes it forget
        exec("")


def _handlers() -> dict[signal.Signals, _Handler]:
    # a handler that was not installed from Python cannot be put back
    return {number: signal.getsignal(number) or _usual(number) for number in _SIGNALS}


def _usual(number: signal.Signals) -> _Handler:
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL


def _handle(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
