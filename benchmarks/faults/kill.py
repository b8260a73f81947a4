"""SIGKILL, at random moments and in the middle of saves, to `train` and to `tune`, again and again until the command comes to its end."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

from benchmarks.faults.child import Child, Surroundings, call
from benchmarks.faults.folders import broken, leftovers, other, result
from benchmarks.faults.subject import TRAIN, TUNE, chance, folder_with_data, partial_file, undisturbed
from benchmarks.faults.tally import Tally

_CHAIN = 4
"""Most kills of one run."""


def run(quick: bool, home: Path) -> list[Tally]:
    """Both commands."""
    return [_killed("train", TRAIN, home, 3 if quick else 20), _killed("tune", TUNE, home, 1 if quick else 20)]


def _killed(name: str, command: tuple[object, ...], home: Path, kills: int) -> Tally:
    tally, rng = Tally(f"killed: {name}"), chance(f"kill {name}")
    before = undisturbed(home, f"{name}-before", command, seed=1)
    start = time.monotonic()
    wanted = result(undisturbed(home, f"{name}-whole", command) / "out")
    seconds = time.monotonic() - start
    chain = 0
    while tally.trials < kills:
        folder = folder_with_data(home, f"{name}-{chain}")
        if name == "tune":
            # another recipe lies there before: at every moment either is whole
            shutil.copytree(before / "out", folder / "out", ignore=shutil.ignore_patterns("model"))
        chain += 1
        for _ in range(min(_CHAIN, kills - tally.trials)):
            hit = _kill(command, folder, rng, seconds)
            if not hit:
                break
            tally.trial(broken(folder / "out"))
            tally.note(hit)
        end = call(command, Surroundings(folder))
        wrong = [end.expect(0), broken(folder / "out"), leftovers(folder / "out"), other(folder / "out", wanted)]
        if any(wrong):
            tally.failures.append("; ".join(w for w in wrong if w))
    tally.notes["runs gone on with to the very result"] = chain
    return tally


def _kill(command: tuple[object, ...], folder: Path, rng: random.Random, seconds: float) -> str | None:
    """How the command was hit; None if it came to its end before."""
    child = Child(command, Surroundings(folder))
    if rng.random() < 0.5:
        how, saves = "in a save", rng.randrange(1, 5)
        for _ in range(saves):
            child.until(lambda: partial_file(folder))
            time.sleep(rng.uniform(0, 0.004))
            if saves > 1:
                child.until(lambda: not partial_file(folder))
    else:
        how = "at any moment"
        time.sleep(rng.uniform(0, seconds))
    hit = child.signal(signal.SIGKILL)
    end = child.wait()
    return how if hit and end.code == -signal.SIGKILL else None
