"""Figure 8: a training run that is killed again and again, and taken up each time, ends with the very weights of one that is not.

`learn.fit` of the default model on the digits runs in a process of its own, which gets SIGKILL at random moments of its work, saves
included (it saves every 10 steps, so that many kills fall into one).
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.figure import Figure, at_least, at_most

_CHILD = """
import sys
from sfumato.data import digits
from sfumato.learn import FitSettings, default_denoiser, default_loss, fit
data = digits()
settings = FitSettings(int(sys.argv[2]), 256, seed=1)
tell = lambda done, *_: print(done, flush=True)
fit(default_denoiser(data), data, settings, default_loss(data), folder=sys.argv[1], save_every=10, on_step=tell)
"""


def measure(quick: bool = False) -> Figure:
    steps, kills = (60, 2) if quick else (600, 12)
    chance = random.Random(0)
    band = steps // kills
    moments = [(band * i + chance.randrange(1, band), chance.uniform(0, 0.1)) for i in range(kills)]
    with tempfile.TemporaryDirectory() as home:
        whole, broken = Path(home, "whole"), Path(home, "broken")
        _train(whole, steps)
        hits = sum(_train(broken, steps, kill) for kill in moments)
        _train(broken, steps)
        files = sorted(path.name for path in whole.glob("*.safetensors"))
        apart = {name: _different(whole / name, broken / name) for name in files}
    details = f"a run of {steps} steps, files {', '.join(files)}"
    rows = [
        at_least("kills that hit the run at work", hits, kills, "at random steps and moments in them"),
        at_most("bytes that differ from the uninterrupted run's", sum(apart.values()), 0, details),
    ]
    return Figure(rows, {"moments": moments, "different": apart})


def _train(folder: Path, steps: int, kill: tuple[int, float] | None = None) -> bool:
    """Whether the run was killed, at most so many seconds after the step of the given number."""
    command = [sys.executable, "-c", _CHILD, str(folder), str(steps)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout or ():
            if kill is not None and int(line) >= kill[0]:
                time.sleep(kill[1])
                child.send_signal(signal.SIGKILL)
                break
    if child.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the training process ended with {child.returncode}")
    return child.returncode != 0


def _different(path: Path, other: Path) -> int:
    """How many bytes of the tensors of two files differ; all of them where names or shapes do."""
    a, b = load_file(path), load_file(other)
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape or a[name].dtype != b[name].dtype for name in a):
        return sum(x.nbytes for x in a.values())
    return sum(int((x.reshape(-1).view(torch.uint8) != b[name].reshape(-1).view(torch.uint8)).sum()) for name, x in a.items())
