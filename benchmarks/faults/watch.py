"""Loading files that mean harm, watched: nothing is run, nothing is written, it comes to an end, and memory is bounded.

The loads are done in a process of their own with bounded memory. An audit hook sees what Python itself is asked for: a process, a shell, a
file to be written outside the folder of the trial. A canary, a file that hostile contents aim at, must be as it was.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.faults.child import Surroundings, call
from benchmarks.faults.tally import Tally
from sfumato.errors import SfumatoError

SECONDS = 20.0
"""How long a load may take; a machine may be busy."""
_ROOM = 3 * 2**30
"""Bytes of memory that loading may ask for, beyond what is in use."""
_FORBIDDEN = re.compile(r"os\.(system|exec|posix_spawn|spawn|fork|rmdir|chmod|putenv)|subprocess\.Popen|socket\.connect")
_MOVES = ("os.remove", "os.rename")
CANARY = "canary"


class _TooLong(BaseException):
    """A load takes longer than it may."""


@dataclass(frozen=True)
class Trials:
    """Trials of one kind, to be done in a process of their own.

    Arguments:
        name: which.
        make: `(home, count)` to a function of the trial's number, which writes a hostile file and returns how to load and use it; what that
            returns is what is wrong with what was loaded, or None.
        count: how many.
        home: where files go.
    """

    name: str
    make: Callable[[Path, int], Callable[[int], Callable[[], str | None]]]
    count: int
    home: Path

    def __call__(self) -> None:
        """Do them, and write what was found to a file, so that a crash shows as one that is missing."""
        found = Tally(self.name)
        watch = _Watch(self.home)
        trial = self.make(self.home, self.count)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, size + _ROOM))
        with open(self.home / "found.jsonl", "w") as file:
            for i in range(self.count):
                use = trial(i)
                wrong, what = watch.over(use)
                found.note(what)
                found.trial(wrong and f"trial {i}: {wrong}")
                if wrong:
                    file.write(json.dumps(found.failures[-1]) + "\n")
                    file.flush()
                if i % 50 == 0:
                    (self.home / "at").write_text(str(i))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            file.write(json.dumps({"notes": found.notes, "slowest": round(watch.slowest, 2), "peak": peak}) + "\n")


def watched(trials: Trials) -> Tally:
    """The tally of the trials, with a failure if their process has not come to its end."""
    trials.home.mkdir(parents=True, exist_ok=True)
    (trials.home / CANARY).write_text("alive")
    tally = Tally(trials.name)
    outcome = call(trials, Surroundings(trials.home), seconds=SECONDS * 60)
    kept = trials.home / "found.jsonl"
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    tally.trials = trials.count
    tally.failures = [line for line in lines if isinstance(line, str)]
    for end in (line for line in lines if isinstance(line, dict)):
        tally.notes.update(end["notes"])
        tally.notes["MB at most in all"] = end["peak"]
        tally.notes["ms for the slowest"] = round(1000 * end["slowest"])
    if outcome.code != 0:
        at = (trials.home / "at").read_text() if (trials.home / "at").exists() else "the start"
        tally.failures.append(f"the process ended with {outcome.code} after trial {at}: {outcome.err[-400:]}")
    return tally


class _Watch:
    """One process's audit hook, clock and canary."""

    def __init__(self, home: Path) -> None:
        self.home, self.at_work, self.seen, self.slowest = str(home.resolve()), False, list[str](), 0.0
        self.canary = home / CANARY
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGALRM, self._alarm)

    def over(self, use: Callable[[], str | None]) -> tuple[str | None, str]:
        """What is wrong, and whether the file was refused or loaded."""
        self.seen.clear()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        # an endless loop in C hears no signal: it ends the process, and says where
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
        self.at_work = True
        start, wrong, what = os.times().user, None, "loaded and used"
        try:
            wrong = use()
        except SfumatoError as error:
            what = "refused"
            if len(str(error).splitlines()) != 1 or len(str(error)) > 3000:
                wrong = f"not one line: {str(error)[:200]!r}"
        except _TooLong:
            wrong = "it takes too long"
        except BaseException as error:
            own = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__) if "sfumato" in f.filename]
            wrong = f"{type(error).__name__} ({', '.join(own[-2:])}): {str(error)[:200]}"
        finally:
            self.at_work = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
        self.slowest = max(self.slowest, os.times().user - start)
        if self.canary.read_text() != "alive":
            self.canary.write_text("alive")
            wrong = "the canary was touched"
        if self.seen:
            wrong = f"asked for {self.seen[:3]}"
        return wrong, what

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        raise _TooLong

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.at_work:
            return
        moves = event in _MOVES and not all(self._inside(path) for path in arguments if isinstance(path, str | bytes | Path))
        if _FORBIDDEN.fullmatch(event) or moves or (event == "open" and self._writes(arguments)):
            self.seen.append(f"{event} {str(arguments)[:100]}")

    def _writes(self, arguments: tuple[Any, ...]) -> bool:
        path, mode, flags = (*arguments, None, None)[:3]
        writing = any(c in str(mode or "") for c in "wax+") or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return writing and isinstance(path, str | bytes | Path) and not self._inside(path)

    def _inside(self, path: str | bytes | Path) -> bool:
        return os.path.realpath(os.fsdecode(path)).startswith(self.home + "/work")
