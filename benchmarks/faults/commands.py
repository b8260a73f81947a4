"""Every command with bad input: exit code 2, one line, no traceback but with `--debug`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks.faults.child import Surroundings, call
from benchmarks.faults.subject import TUNE, undisturbed
from benchmarks.faults.tally import Tally

_BAD = """
train no-such-set                        | no-such-set
train data.npy --steps 0                 | steps
train data.npy --steps -5                | steps
train data.npy --steps many              | --steps
train data.npy --batch 0                 | batch
train data.npy --batch -1                | batch
train data.npy --conditional             | --conditional
train data.npy --seed x                  | --seed
train data.txt                           | data.txt
train empty                              | empty
train nan.npy                            | NaN
train constant.npy                       | same
train one.npy                            | at least 3
train cut.npy                            | cut.npy
train object.npy                         | object.npy
train flat.npy                           | two axes
train text.png                           | text.png
train broken-images                      | broken-images
train                                    | Missing argument
tune --data no-such-set                  | no-such-set
tune --evaluations 0                     | evaluations
tune --evaluations 5,many                | --evaluations
tune --evaluations ""                    | --evaluations
tune --evaluations -3                    | evaluations
tune --evaluations 4000                  | evaluations
tune --tolerance -1                      | tolerance
tune --tolerance nan                     | tolerance
tune no-model                            | no-model
tune empty --data data.npy               | empty
tune file --data data.npy                | file
tune out/model --data other.npy          | shape
tune out/model --data data.npy --prompt x | prompt
tune nobody/nothing                      | nobody/nothing
tune "no such/thing at all"              | no such
explain --only no-question               | no-question
explain out/model --data other.npy       | shape
explain no-model                         | no-model
sample nothing                           | nothing
sample file                              | file
sample out -n 0                          | n
sample out -n -4                         | n
sample out --evaluations 5               | 5
sample out --evaluations 0               | 0
sample out --label 3                     | --label
sample out --chunk 0                     | chunk
sample out --out x.gif                   | x.gif
sample out --out x                       | x
sample out --out grid.png                | images
sample out --model no-model              | no-model
sample nobody/nothing                    | nobody/nothing
convert file                             | file
convert nothing.pkl                      | nothing.pkl
convert data.npy                         | data.npy
atlas show no-such-row                   | no-such-row
atlas run no-such-row                    | no-such-row
atlas run                                | ROW
no-such-command                          | no-such-command
tune --no-such-option                    | --no-such-option
"""
_USAGE = ("--steps many", "--seed x", "train   ", "no-such-command", "--no-such-option")
"""Mistakes that the command line sees before any of our code runs: the line is all there is, with --debug too."""


def run(quick: bool, home: Path) -> list[Tally]:
    """Each line of the table, without and with `--debug`."""
    folder = undisturbed(home, "whole", TUNE)
    _write_bad(folder)
    plain, debug = Tally("bad input: one line"), Tally("bad input: a traceback with --debug")
    lines = [line for line in _BAD.strip().splitlines() if line]
    for line in lines[::9] if quick else lines:
        said, named = (part.strip() for part in line.split("|"))
        command = _words(said)
        out = () if "--out" in command or command[0] in ("sample", "atlas", "no-such-command") else ("--out", "new")
        where = Surroundings(folder, before=_offline)
        wrong = call((*command, *out), where).expect(2, "error:", named)
        plain.trial(wrong and f"{said}: {wrong}")
        if not quick and not any(usage in line for usage in _USAGE):
            end = call((*command, *out, "--debug"), where)
            debug.trial(None if "Traceback" in end.err and end.code else f"{said} --debug: {end.code}, {end.err[-200:]!r}")
    return [plain] if quick else [plain, debug]


def _words(line: str) -> tuple[str, ...]:
    import shlex

    return tuple(shlex.split(line))


def _offline() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = True


def _write_bad(folder: Path) -> None:
    data = np.load(folder / "data.npy")
    with_nan = data.copy()
    with_nan[7, 1] = np.nan
    arrays = {"nan": with_nan, "constant": np.ones((40, 3), np.float32), "one": data[:1], "other": data[:, :3], "flat": data[:, 0]}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "object.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (folder / "cut.npy").write_bytes((folder / "nan.npy").read_bytes()[:70])
    for name in ("file", "data.txt", "text.png"):
        (folder / name).write_text("nothing")
    (folder / "empty").mkdir()
    (folder / "broken-images").mkdir()
    for i in range(4):
        (folder / "broken-images" / f"{i}.png").write_text("no picture")
