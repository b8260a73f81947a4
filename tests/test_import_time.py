"""Importing sfumato costs little over importing torch, and brings nothing that only some of it needs.

Processor time, not the clock, is measured, inside one process after torch has been imported: other work on the machine then counts little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

LIMIT, TORCH = 0.3, 1.3
"""Seconds over torch, on a machine that imports torch in so many; a slower machine may take longer in proportion."""
TRIES = 5
HELP = """
import contextlib, io
from sfumato.__main__ import main
sys.argv = ["sfumato", "--help"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
"""
STEPS = {
    "package": "import sfumato",
    "help": HELP,
    "sample": "import sfumato.sample",
    "all": "import sfumato.learn, sfumato.explain, sfumato.tune",
}
MEASURE = """
import json, sys, time
steps, cache, first = json.loads(sys.argv[1]), sys.argv[2], time.process_time()
import torch
torch_, spent = time.process_time() - first, {}
sys.dont_write_bytecode, sys.pycache_prefix = False, cache
for name, step in steps.items():
    start = time.process_time()
    exec(step)
    spent[name] = time.process_time() - start
print(json.dumps([torch_, spent]))
"""
LOADED = """
import json, sys
loaded = {}
for name, step in json.loads(sys.argv[1]).items():
    exec(step)
    loaded[name] = list(sys.modules)
print(json.dumps(loaded))
"""
HEAVY = {"accelerate", "diffusers", "jinja2", "matplotlib", "ot", "PIL", "pandas", "scipy", "sklearn", "transformers"}


def python(code, *arguments):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, capture_output=True, text=True, env=env)
    return json.loads(done.stdout)


def over(steps, cache, tries=TRIES):
    """By step its share of the limit, the best of several processes; the first compiles, as an installation does."""
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(tries):
        torch_, spent = python(MEASURE, json.dumps(steps), cache)
        limit = LIMIT * max(1.0, torch_ / TORCH)
        best = {name: min(best[name], spent[name] / limit) for name in steps}
        if max(best.values()) < 1:
            break
    return best


@pytest.mark.slow
def test_importing_takes_a_third_of_a_second_over_torch_and_what_takes_longer_is_found_out(tmp_path):
    """The control is the same import after work of twice the limit, on the same machine in the same minute."""
    steps = {name: STEPS[name] for name in ("package", "help", "sample")}
    assert max(over(steps, tmp_path).values()) < 1
    work = f"end = time.process_time() + 2 * {LIMIT} * max(1, torch_ / {TORCH})\nwhile time.process_time() < end: pass\n"
    assert over({"sample": work + steps["sample"]}, tmp_path, tries=1)["sample"] > 1


def test_what_is_not_needed_is_not_imported():
    loaded = {name: set(modules) for name, modules in python(LOADED, json.dumps(STEPS)).items()}
    assert not loaded["help"] & {"torch", "numpy"}
    assert "torch" in loaded["sample"]
    assert not loaded["sample"] & HEAVY
    assert not loaded["all"] & (HEAVY - {"accelerate"})
