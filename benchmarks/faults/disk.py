"""A full disk: files that may not grow past a limit, and where mounting is allowed a file system that is full."""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.faults.child import Surroundings, call
from benchmarks.faults.folders import broken, leftovers, other, result
from benchmarks.faults.subject import SAMPLE, TRAIN, TUNE, chance, folder_with_data, undisturbed, write_data
from benchmarks.faults.tally import Tally

_MANY = (*SAMPLE, "-n", 1000)


def run(quick: bool, home: Path) -> list[Tally]:
    """Each command under limits, and `train` on a file system of its own."""
    whole = undisturbed(home, "whole", TRAIN)
    tallies = [_limited(whole, home, 2 if quick else 20)]
    tallies += [_tuned(home, 1 if quick else 8), _mounted(whole, home, 1 if quick else 4)]
    return tallies


def _limited(whole: Path, home: Path, trials: int) -> Tally:
    tally, rng, wanted = Tally("full disk: train (file limit)"), chance("disk train"), result(whole / "out")
    largest = max(p.stat().st_size for p in (whole / "out").iterdir())
    for i in range(trials):
        folder = folder_with_data(home, f"limit-{i}")
        first = call(TRAIN, Surroundings(folder, most=rng.randrange(100, largest)))
        wrong = [first.expect(2, "error:", "cannot write"), broken(folder / "out"), leftovers(folder / "out")]
        again = call(TRAIN, Surroundings(folder))
        tally.trial(*wrong, again.expect(0), other(folder / "out", wanted), leftovers(folder / "out"))
    return tally


def _tuned(home: Path, trials: int) -> Tally:
    """The model is there; what fails is the recipe, the report, or the samples."""
    tally, rng = Tally("full disk: tune, sample (file limit)"), chance("disk tune")
    folder = undisturbed(home, "tuned", TUNE)
    wanted = result(folder / "out")
    for i in range(trials):
        # what is said goes to a file too, which has to hold one line of error
        command, most = (TUNE, rng.randrange(1000, 40_000)) if i % 2 == 0 else (_MANY, rng.randrange(1000, 8000))
        failed = call(command, Surroundings(folder, most=most))
        wrong = [failed.expect(2, "error:", "cannot write"), broken(folder), other(folder / "out", wanted), leftovers(folder / "out")]
        tally.trial(*wrong, call(command, Surroundings(folder)).expect(0), other(folder / "out", wanted))
    return tally


def _mounted(whole: Path, home: Path, trials: int) -> Tally:
    tally, rng, wanted = Tally("full disk: train (tmpfs)"), chance("tmpfs"), result(whole / "out")
    total = sum(p.stat().st_size for p in (whole / "out").iterdir())
    for i in range(trials):
        folder = home / f"tmpfs-{i}"
        folder.mkdir()
        size = rng.randrange(16_000, total)
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False)
        if mount.returncode:
            tally.note("mounting is not allowed here")
            return tally
        try:
            write_data(folder / "data.npy")
            first = call(TRAIN, Surroundings(folder))
            wrong = [first.expect(2, "error:", "cannot write"), broken(folder / "out")]
            subprocess.run(["mount", "-o", f"remount,size={8 * total}", str(folder)], check=True)
            again = call(TRAIN, Surroundings(folder))
            tally.trial(*wrong, again.expect(0), other(folder / "out", wanted), leftovers(folder / "out"))
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=False)
    return tally
