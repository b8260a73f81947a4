"""Two commands in one folder: the second is told who is at work, and a dead one holds up nobody."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from benchmarks.faults.child import Child, Surroundings, call
from benchmarks.faults.folders import broken, leftovers, other, result
from benchmarks.faults.subject import TRAIN, TUNE, chance, folder_with_data, undisturbed
from benchmarks.faults.tally import Tally
from sfumato.holding import MARK


def run(quick: bool, home: Path) -> list[Tally]:
    """Pairs that start one after the other, and at the same time."""
    tallies = []
    for name, command in (("train", TRAIN), ("tune", TUNE))[: 1 if quick else 2]:
        wanted = result(undisturbed(home, f"{name}-whole", command) / "out")
        tallies.append(_later(name, command, wanted, home, 1 if quick else 4))
        tallies.append(_together(name, command, wanted, home, 1 if quick else 4))
    return tallies


def _later(name: str, command: tuple[object, ...], wanted: dict[str, str], home: Path, trials: int) -> Tally:
    """The second is refused; the first is not disturbed, or is killed and then taken up by the second command."""
    tally = Tally(f"two at once: {name}, one after the other")
    for i in range(trials):
        folder = folder_with_data(home, f"{name}-later-{i}")
        first = Child(command, Surroundings(folder))
        mark = folder / "out" / MARK
        begun = first.until(lambda mark=mark: mark.exists() and mark.stat().st_size > 0)  # type: ignore[misc]
        second = call(command, Surroundings(folder))
        wrong = [None if begun else "no mark", second.expect(2, "error:", f"process {first.pid}")]
        if i % 2:
            first.signal(signal.SIGKILL)
            first.wait()
            wrong += [broken(folder / "out"), call(command, Surroundings(folder)).expect(0)]
        else:
            wrong.append(first.wait().expect(0))
        tally.trial(*wrong, other(folder / "out", wanted), leftovers(folder / "out"))
    return tally


def _together(name: str, command: tuple[object, ...], wanted: dict[str, str], home: Path, trials: int) -> Tally:
    """Of two that start within milliseconds one does the work; the other is refused, or comes after it."""
    tally, rng = Tally(f"two at once: {name}, at the same time"), chance("together")
    for i in range(trials):
        folder = folder_with_data(home, f"{name}-both-{i}")
        first = Child(command, Surroundings(folder))
        time.sleep(rng.uniform(0, 0.02))
        second = Child(command, Surroundings(folder))
        ends = [first.wait(), second.wait()]
        refused = [end for end in ends if end.code == 2]
        wrong = [end.expect(2, "error:", "is being written to by") for end in refused]
        wrong += [None if {end.code for end in ends} in ({0}, {0, 2}) else f"they ended with {[end.code for end in ends]}"]
        tally.trial(*wrong, broken(folder / "out"), leftovers(folder / "out"), other(folder / "out", wanted))
    return tally
