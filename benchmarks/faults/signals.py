"""Ctrl-C and SIGTERM at random moments: one line, 130 or 143, no traceback, and the same command goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.faults.child import Child, Outcome, Surroundings, call
from benchmarks.faults.folders import broken, leftovers, other, result
from benchmarks.faults.subject import SAMPLE, TRAIN, TUNE, chance, folder_with_data, partial_file, undisturbed
from benchmarks.faults.tally import Tally

_ASKED = (signal.SIGINT, signal.SIGTERM)
_ALREADY = (0, 130, 143)


def run(quick: bool, home: Path) -> list[Tally]:
    """At work, at the start of a process, and under a launcher."""
    counts = {"train": 3, "tune": 1, "sample": 1} if quick else {"train": 20, "tune": 10, "sample": 10}
    commands = {"train": (TRAIN,), "tune": (TUNE,), "sample": (TUNE, SAMPLE)}
    tallies = [_interrupted(name, commands[name], home, n) for name, n in counts.items() if not quick or name == "train"]
    tallies.append(_starting(home, 1 if quick else 12))
    if not quick:
        tallies.append(_launched(home, 3))
    return tallies


def _interrupted(name: str, commands: tuple[tuple[object, ...], ...], home: Path, trials: int) -> Tally:
    tally, rng = Tally(f"asked to stop: {name}"), chance(f"signals {name}")
    whole = undisturbed(home, f"{name}-whole", *commands)
    wanted, command = result(whole / "out"), commands[-1]
    start = time.monotonic()
    call(command, Surroundings(whole if name == "sample" else folder_with_data(home, f"{name}-clock")))
    seconds, folder, number = time.monotonic() - start, whole, 0
    for i in range(trials):
        if name != "sample" and (i == 0 or folder is None):
            folder, number = folder_with_data(home, f"{name}-{number}"), number + 1
        asked = _ASKED[i % 2]
        end, hit = _ask(command, folder, rng, seconds, asked)
        wrong = [end.expect(128 + asked, "stopped") if hit and end.code != 0 else end.expect(0), broken(folder)]
        if rng.random() < 0.3 or end.code == 0 or i == trials - 1:
            wrong += [call(command, Surroundings(folder)).expect(0), leftovers(folder / "out"), other(folder / "out", wanted)]
            folder = whole if name == "sample" else folder_with_data(home, f"{name}-more-{i}")
        tally.trial(*wrong)
    return tally


def _ask(command: tuple[object, ...], folder: Path, rng: random.Random, seconds: float, number: int) -> tuple[Outcome, bool]:
    child = Child(command, Surroundings(folder))
    if rng.random() < 0.3:
        child.until(lambda: partial_file(folder))
    else:
        time.sleep(0.05 + rng.uniform(0, seconds))
    hit = child.signal(number)
    return child.wait(), hit


def _starting(home: Path, trials: int) -> Tally:
    """A process of its own, stopped while it loads its modules: from its first statement on."""
    tally, rng = Tally("asked to stop: at the start"), chance("starting")
    folder = folder_with_data(home, "starting")
    for i in range(trials):
        command = [sys.executable, "-m", "sfumato", *map(str, (*TRAIN[:-1], 5))]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment()) as child:
            _until_ours(child.pid)
            time.sleep(rng.uniform(0.05, 2.0))
            asked = _ASKED[i % 2]
            child.send_signal(asked)
            out, err = child.communicate(timeout=300)
        end = Outcome(child.returncode, out, err)
        tally.trial(end.expect(0) if end.code == 0 else end.expect(128 + asked, "stopped"), broken(folder / "out"))
    return tally


def _environment() -> dict[str, str]:
    import sfumato

    return {**os.environ, "PYTHONPATH": str(Path(str(sfumato.__file__)).parents[1]), "OMP_NUM_THREADS": "1"}


def _until_ours(pid: int) -> None:
    """Wait until a process has handlers of its own for both signals: before that there is only Python."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        status = Path(f"/proc/{pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")), 0)
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)


def _launched(home: Path, trials: int) -> Tally:
    """Two processes under a launcher, of which it stops both, or only one is asked: they stop at one step, and go on as one."""
    tally, rng = Tally("asked to stop: two processes under torchrun"), chance("launched")
    arguments = ("train", "data.npy", "--out", "out", "--steps", "1500")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29611", "-m", "sfumato", *arguments]
    whole = folder_with_data(home, "ranks-whole")
    environment = {**_environment(), "ACCELERATE_USE_CPU": "1"}

    def launch(folder: Path, delay: float | None, one: bool) -> tuple[int, str]:
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as child:
            state = folder / "out" / "training.safetensors"
            while delay is not None and not state.exists() and child.poll() is None:
                time.sleep(0.01)
            if delay is not None:
                time.sleep(delay)
                below = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
                os.kill(int(below[-1]) if one and below else child.pid, signal.SIGINT)
            said, _ = child.communicate(timeout=600)
        return child.returncode, said

    code, said = launch(whole, None, False)
    wanted = result(whole / "out")
    for i in range(trials if code == 0 else 0):
        folder = folder_with_data(home, f"ranks-{i}")
        launch(folder, rng.uniform(0, 0.5), one=i % 2 == 0)
        wrong = broken(folder / "out")
        code, said = launch(folder, None, False)
        tally.trial(wrong, None if code == 0 else f"exit code {code}: {said[-300:]!r}", other(folder / "out", wanted))
    if not tally.trials:
        tally.trial(f"it fails by itself: {said[-300:]!r}")
    return tally
