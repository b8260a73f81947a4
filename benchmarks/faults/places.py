"""Folders that cannot be written, paths that are something else, files that cannot be read: by somebody whom permissions bind."""

from __future__ import annotations

from pathlib import Path

from benchmarks.faults.child import Surroundings, call
from benchmarks.faults.folders import broken, other, result
from benchmarks.faults.subject import TUNE, undisturbed
from benchmarks.faults.tally import Tally


def run(quick: bool, home: Path) -> list[Tally]:
    """Every place once, for every command that has to do with it."""
    tally = Tally("places that cannot be used")
    folder = undisturbed(home, "whole", TUNE)
    wanted = result(folder / "out")
    (folder / "file").write_text("")
    (folder / "images").mkdir()
    (folder / "secret.npy").write_bytes((folder / "data.npy").read_bytes())
    (folder / "closed").mkdir()
    (folder / "closed" / "data.npy").write_bytes((folder / "data.npy").read_bytes())
    (folder / "free").mkdir()
    (folder / "secret.npy").chmod(0)
    shut = {folder / "closed": 0, folder / "out" / "model": 0o555, folder / "out": 0o555, folder: 0o555}
    for path, mode in shut.items():
        path.chmod(mode)
    short = ("--steps", 3)
    cases: list[tuple[tuple[object, ...], str]] = [
        (("train", "data.npy", "--out", "out/model", *short), "out"),
        (("train", "data.npy", "--out", "new", *short), "new"),
        (("train", "data.npy", "--out", "file", *short), "file"),
        (("train", "data.npy", "--out", "file/below", *short), "file"),
        (("train", "data.npy", "--out", "/proc/nothing", *short), "/proc/nothing"),
        (("train", "data.npy", "--out", "closed/below", *short), "closed"),
        (("train", "secret.npy", "--out", "free/a", *short), "secret.npy"),
        (("train", "closed/data.npy", "--out", "free/a", *short), "closed"),
        (("train", "closed", "--out", "free/a", *short), "closed"),
        (("train", "images", "--out", "free/a", *short), "images"),
        (("train", "nowhere/data.npy", "--out", "free/a", *short), "nowhere"),
        ((*TUNE[:3], "--out", "out", "--quick"), "out"),
        (("tune", "closed/model", "--data", "data.npy", "--out", "free/b"), "closed"),
        (("tune", "closed", "--data", "data.npy", "--out", "free/b"), "closed"),
        (("explain", "out/model", "--data", "data.npy", "--out", "file"), "file"),
        (("sample", "closed", "--out", "free/x.npy"), "closed"),
        (("sample", "closed/recipe.json", "--out", "free/x.npy"), "closed"),
        (("sample", "out", "--out", "free/no/where/closed.npy", "-n", 2), ""),
        (("sample", "out", "--out", "closed/x.npy", "-n", 2), "closed"),
        (("sample", "out", "--out", "file/x.npy", "-n", 2), "file"),
        (("convert", "secret.npy", "--out", "free/c"), "secret.npy"),
        (("convert", "closed/x.pkl", "--out", "free/c"), "closed"),
        (("atlas", "run", "T1", "--json", "closed/x.json"), "closed"),
    ]
    try:
        for command, named in cases[::6] if quick else cases:
            outcome = call(command, Surroundings(folder, mortal=True))
            wrong = outcome.expect(2, "error:", named) if named else outcome.expect(0)
            tally.trial(wrong and f"{' '.join(map(str, command))}: {wrong}", other(folder / "out", wanted), broken(folder / "out"))
    finally:
        for path in reversed(shut):
            path.chmod(0o755)
    return [tally]
