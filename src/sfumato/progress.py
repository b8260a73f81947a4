"""Progress, as the work reports it and whoever watches shows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """What long work tells: a task begins, advances, ends."""

    def begin(self, task: str, total: int) -> None:
        """A task of `total` parts begins; the one before is done."""

    def advance(self, parts: int = 1) -> None:
        """So many parts are done."""

    def note(self, text: str) -> None:
        """Something worth saying has been found."""


class Silent:
    """Tells nobody."""

    def begin(self, task: str, total: int) -> None: ...

    def advance(self, parts: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


class Timed:
    """A progress that also keeps the seconds of every task."""

    def __init__(self, inner: Progress) -> None:
        self.inner = inner
        self.timings: list[tuple[str, float]] = []

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Progress]:
        """Report a task and time it."""
        self.inner.begin(name, total)
        began = time.perf_counter()
        yield self.inner
        self.timings.append((name, time.perf_counter() - began))
