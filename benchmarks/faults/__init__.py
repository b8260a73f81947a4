"""Figure 16: what is done to a run, a file or a folder, and whether it holds: `python -m benchmarks faults [PART ...] [--quick]`.

Every part hurts the library in one way, many times, at moments and places drawn from a fixed seed. A trial fails if something is lost or
half written, if an error is not one clear line, if anything that a file holds is run, if the same command does not go on to the very result
of an undisturbed run, or if it hangs.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.tally import Tally
from benchmarks.figure import Figure, Row

SEED = 16
PARTS = {
    "kill": "SIGKILL at random moments, and in the middle of a save",
    "disk": "a full disk",
    "places": "folders that cannot be written, files that cannot be read",
    "recipes": "recipes, truncated, flipped, altered",
    "checkpoints": "checkpoints and states of runs, truncated, flipped, altered",
    "pickles": "checkpoints that are pickles, hostile ones",
    "datafiles": "arrays and images, truncated, flipped, hostile",
    "company": "two commands in one folder",
    "signals": "Ctrl-C and SIGTERM at random moments",
    "nonfinite": "losses, weights and answers that are not finite",
    "commands": "every command with bad input",
}


def measure(quick: bool = False, parts: Sequence[str] = ()) -> Figure:
    """The tally of the parts, of all by default.

    Raises:
        ValueError: a part that there is none of.
    """
    unknown = [name for name in parts if name not in PARTS]
    if unknown:
        raise ValueError(f"no part named {', '.join(unknown)}; there are {', '.join(PARTS)}")
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    print(f"seed {SEED}", file=sys.stderr)
    for name in parts or PARTS:
        start = time.monotonic()
        print(f"{name}: {PARTS[name]}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=f"faults-{name}-") as home:
            tallies: list[Tally] = importlib.import_module(f"benchmarks.faults.{name}").run(quick, Path(home))
        seconds[name] = round(time.monotonic() - start, 1)
        for tally in tallies:
            print(f"  {tally.name}: {tally.trials} trials, {len(tally.failures)} failures", file=sys.stderr, flush=True)
        rows += [tally.row() for tally in tallies]
    return Figure(rows, {"seed": SEED, "seconds": seconds})
