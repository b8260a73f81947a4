"""Ctrl-C between steps, not inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether somebody has asked to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Inside, the first Ctrl-C only sets `requested`; a second one interrupts at once, as ever.

    Outside the main thread, where no signal arrives, it does nothing.
    """
    out = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield out
        return
    before = signal.getsignal(signal.SIGINT)
    if before is None:
        # a handler that was not installed from Python cannot be put back
        before = signal.default_int_handler

    def note(number: int, frame: FrameType | None) -> None:
        out.requested = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield out
    finally:
        signal.signal(signal.SIGINT, before)
