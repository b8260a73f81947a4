"""`python -m benchmarks.mutation [--rooms noise,exact,sample] [--count N | --all] [--survivors] [--workers 2]`.

Goes on where it was interrupted: verdicts are kept in `--log`, and hold as long as the mutated file's code is the same. `--survivors` tries
those again that lived, which is what to do after a test was added.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.figure import machine
from benchmarks.mutation.campaign import ROOT, TESTS, Budget, Campaign, learn
from benchmarks.mutation.coverage import Cache, digest
from benchmarks.mutation.mutants import PACKAGE, ROOMS, Mutant, files, mutants
from benchmarks.mutation.summary import reason, reasons, summary, wilson

OUT = ROOT / "benchmarks" / "results" / "mutation.json"
WORK = ROOT / ".mutation"


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    work = Path(given.work)
    state = {file: digest(PACKAGE / file) for file in files(tuple(given.rooms.split(",")))}
    log = _Log(work / "verdicts.jsonl", state)
    everything = _sampled(list(state), given.seed)
    chosen = [m for m in everything if not given.files or any(part in m.file for part in given.files.split(","))]
    chosen = chosen if given.all else chosen[: given.count]
    known_reasons = reasons()
    if given.survivors:
        todo = [m for m in chosen if log.status(m) not in (None, "killed") and reason(m.identity, known_reasons) is None]
    else:
        todo = [m for m in chosen if log.status(m) is None]
    if todo and not given.report:
        known = learn(given.tests.split(","), Cache(work / "coverage", PACKAGE), given.workers, _tell)
        _tell(f"{len(known.seconds)} tests, {sum(known.seconds.values()):.0f} s; {len(todo)} mutants to try of {len(everything)}")
        progress = _Progress(len(todo), log)
        Campaign(known, Budget(given.seconds, given.items), tuple(given.tests.split(",")), progress.record).run(todo, given.workers)
    report = summary({m.identity: log.verdicts[m.identity] for m in chosen if log.status(m)}, known_reasons)
    report |= {
        "mutants": len(everything),
        "seed": given.seed,
        "hardware": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _show(report)
    if given.out:
        Path(given.out).write_text(json.dumps(report, indent=1) + "\n")
    return int(any(room["of_distinct"] < 0.9 for room in report["rooms"].values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description="Which share of small faults do the tests notice?")
    parser.add_argument("--rooms", default=",".join(ROOMS))
    parser.add_argument("--files", default="", help="only files whose path contains one of these, separated by commas")
    parser.add_argument("--tests", default=",".join(TESTS), help="test folders and files that may kill")
    parser.add_argument("--count", type=int, default=400, help="how many mutants, spread over all files")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survivors", action="store_true", help="try those again that lived and have no reason")
    parser.add_argument("--report", action="store_true", help="only report what is known")
    parser.add_argument("--seconds", type=float, default=20.0, help="usual seconds of tests that a mutant may cost")
    parser.add_argument("--items", type=int, default=60, help="tests that a mutant may cost")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", default=str(WORK), help="folder of the verdicts and of the measured coverage")
    parser.add_argument("--out", default="", help=f"where the report goes, such as {OUT.relative_to(ROOT)}")
    return parser


def _sampled(names: list[str], seed: int) -> list[Mutant]:
    """All mutants in the order in which they are tried: at random within a file, every file once, then in proportion to their sizes."""
    placed = []
    for file in names:
        of_file = mutants(file)
        random.Random(f"{seed}:{file}").shuffle(of_file)
        placed += [(0.0 if i == 0 else (i + 0.5) / len(of_file), m.identity, m) for i, m in enumerate(of_file)]
    return [m for _, _, m in sorted(placed, key=lambda p: p[:2])]


class _Log:
    """Verdicts, one line each; the last one on a mutant counts, as long as its file's code is what it was."""

    def __init__(self, path: Path, state: dict[str, str]) -> None:
        self.path, self.state = path, state
        self.verdicts: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text().splitlines() if path.exists() else ():
            verdict = json.loads(line)
            self.verdicts[verdict["identity"]] = verdict

    def status(self, mutant: Mutant) -> str | None:
        verdict = self.verdicts.get(mutant.identity)
        return verdict["status"] if verdict and verdict["code"] == self.state[mutant.file] else None

    def add(self, mutant: Mutant, verdict: dict[str, Any]) -> None:
        verdict = {
            "identity": mutant.identity,
            "difference": mutant.difference(),
            "line": mutant.line,
            "code": self.state[mutant.file],
        } | verdict
        self.verdicts[mutant.identity] = verdict
        with self.path.open("a") as file:
            file.write(json.dumps(verdict) + "\n")


class _Progress:
    def __init__(self, total: int, log: _Log) -> None:
        self.total, self.log, self.start, self.lock = total, log, time.perf_counter(), threading.Lock()
        self.done = self.killed = 0

    def record(self, mutant: Mutant, verdict: dict[str, Any]) -> None:
        with self.lock:
            self.log.add(mutant, verdict)
            self.done += 1
            self.killed += verdict["status"] == "killed"
            low, high = wilson(self.killed, self.done)
            left = (time.perf_counter() - self.start) * (self.total / self.done - 1)
            share = f"{self.killed / self.done:.1%} killed [{low:.1%}, {high:.1%}]"
            said = "" if verdict["status"] == "killed" else f": {mutant.difference()[:90]}"
            _tell(f"{self.done}/{self.total} {share} {left / 60:.0f} min left | {verdict['status']} {mutant.identity}{said}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show(report: dict[str, Any]) -> None:
    files_of: dict[str, list[str]] = defaultdict(list)
    for file in report["files"]:
        files_of[file.partition("/")[0]].append(file)
    for room, counts in report["rooms"].items():
        print(_line(room, counts))
        for file in sorted(files_of[room], key=lambda f: report["files"][f]["of_distinct"]):
            print(_line(f"  {file}", report["files"][file]))
    for survivor in report["survivors"]:
        where = f"{survivor['status']:11} {survivor['identity']} (line {survivor['line']})"
        print(f"{where}: {survivor['difference']}  # {survivor['reason'] or 'NO REASON'}")


def _line(name: str, counts: dict[str, Any]) -> str:
    low, high = counts["interval_of_distinct"]
    tried = f"{counts['killed']:5} of {counts['tried']:5}, {counts['explained']:4} explained"
    return f"{name:60} {tried}: {counts['of_distinct']:.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    sys.exit(main())
