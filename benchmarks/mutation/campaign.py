"""The work of a campaign: which mutants, which tests for each, and two kinds of processes that try them; every verdict is kept at once."""

from __future__ import annotations

import ast
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.mutation.coverage import Cache
from benchmarks.mutation.mutants import PACKAGE, Mutant

ROOT = PACKAGE.parents[1]
TESTS = ("tests/noise", "tests/exact", "tests/sample", "tests/metrics", "tests/test_denoiser.py")
Job = dict[str, Any]


@dataclass(frozen=True)
class Budget:
    """What one mutant may cost: so many seconds of tests (in their usual time) and so many tests."""

    seconds: float = 20.0
    items: int = 60


@dataclass
class Known:
    """Which items reach what, and what killed before."""

    seconds: dict[str, float] = field(default_factory=dict)
    reaching: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    importing: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    killers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    flawed: set[str] = field(default_factory=set)

    def add(self, test: str, found: dict[str, Any]) -> None:
        for item, of in found["items"].items():
            self.seconds[item] = of["seconds"]
            for mark in of["marks"]:
                self.reaching[mark].add(item)
        for mark in found["collected"]:
            self.importing[mark].add(test)

    def select(self, mutant: Mutant, budget: Budget) -> list[str]:
        """The items to try on a mutant: past killers in its function, then tests named after its file, then the quickest."""
        mark, stem = f"{mutant.file}:{mutant.place}", Path(mutant.file).stem
        # a default or a module's constant is no statement that a test reaches: whatever reaches the file may notice it
        wide = mutant.function is None or mutant.default
        direct = self._reaching(self.reaching, mutant.file) if wide else self.reaching.get(mark, set())
        files = self._reaching(self.importing, mutant.file) if wide else self.importing.get(mark, set())
        if mutant.function is None:
            # constants are bound once, with the package: test files that name them
            files = files | _naming(PACKAGE / mutant.file, {item.partition("::")[0] for item in self.seconds})
        indirect = {item for item in self.seconds if item.partition("::")[0] in files}
        past = self.killers[_place(mutant)]
        order = {item: i for i, item in enumerate(past)}

        def rank(item: str) -> tuple[bool, int, bool, bool, float]:
            named = stem in Path(item.partition("::")[0]).stem
            return item not in order, -order.get(item, 0), item not in direct, not named and self.seconds[item] > 0.3, self.seconds[item]

        chosen, total = [], 0.0
        for item in sorted((direct | indirect) - self.flawed, key=rank):
            if chosen and total + self.seconds[item] > budget.seconds:
                continue
            chosen.append(item)
            total += self.seconds[item]
            if len(chosen) == (5 if wide else 1) * budget.items:
                break
        return chosen

    @staticmethod
    def _reaching(marks: dict[str, set[str]], file: str) -> set[str]:
        return set().union(*(those for mark, those in marks.items() if mark.startswith(f"{file}:")))

    def killed(self, mutant: Mutant, by: str) -> None:
        if by in self.seconds:
            past = self.killers[_place(mutant)]
            if by in past:
                past.remove(by)
            past.append(by)


def _naming(module: Path, tests: set[str]) -> set[str]:
    targets = [t for node in ast.parse(module.read_bytes()).body for t in getattr(node, "targets", [getattr(node, "target", None)])]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    return {test for test in tests if names & set(re.findall(r"\w+", (ROOT / test).read_text()))}


def _place(mutant: Mutant) -> str:
    return f"{mutant.file}::{mutant.function[0] if mutant.function else ''}"


class Process:
    """A server, started when the first job comes."""

    def __init__(self, mode: str, tests: Iterable[str]) -> None:
        self.mode, self.tests = mode, tuple(tests)
        self.child: subprocess.Popen[str] | None = None

    def ask(self, job: Job) -> Job:
        if self.child is None:
            path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
            given = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
            command = [sys.executable, "-m", "benchmarks.mutation.server", self.mode, *self.tests]
            self.child = subprocess.Popen(command, cwd=ROOT, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._answer()
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(job) + "\n")
        self.child.stdin.flush()
        return self._answer()

    def _answer(self) -> Job:
        assert self.child is not None
        assert self.child.stdout is not None
        if not (line := self.child.stdout.readline()):
            raise RuntimeError(f"the {self.mode} server has ended; its last words are above")
        return json.loads(line)

    def close(self) -> None:
        if self.child is not None and self.child.stdin is not None:
            self.child.stdin.close()
            self.child.wait()


def learn(tests: Iterable[str], cache: Cache, workers: int, tell: Callable[[str], None]) -> Known:
    """Which items reach what: from the cache, and measured for the test files that are new."""
    known = Known()
    paths = [p for name in tests for p in (sorted((ROOT / name).glob("test_*.py")) if (ROOT / name).is_dir() else [ROOT / name])]
    missing = [path for path in paths if cache.get(path) is None]
    names = [path.relative_to(ROOT).as_posix() for path in missing]

    def work(process: Process, i: int) -> None:
        cache.put(missing[i], found := process.ask({"kind": "trace", "test": names[i]}))
        tell(f"traced {names[i]}: {len(found['items'])} tests")

    _share(range(len(missing)), lambda: [Process("traced", names)], lambda p, i: work(p[0], i), min(workers, len(missing)))
    for path in paths:
        known.add(path.relative_to(ROOT).as_posix(), cache.get(path) or {"items": {}, "collected": []})
    return known


@dataclass
class Campaign:
    """Mutants against tests; `record` gets each verdict as it falls."""

    known: Known
    budget: Budget
    tests: tuple[str, ...]
    record: Callable[[Mutant, Job], None]
    sound: set[str] = field(default_factory=set)

    def run(self, mutants: list[Mutant], workers: int) -> None:
        _share(mutants, lambda: [Process("warm", self.tests), Process("light", ())], self._one, workers)

    def _one(self, processes: list[Process], mutant: Mutant) -> None:
        while True:
            verdict = self._try(processes, mutant)
            if verdict["status"] != "killed" or self._sound(processes, verdict, mutant):
                break
        if verdict["status"] == "killed":
            self.known.killed(mutant, verdict["by"])
        self.record(mutant, verdict)

    def _try(self, processes: list[Process], mutant: Mutant) -> Job:
        chosen = self.known.select(mutant, self.budget)
        if not chosen:
            return {"status": "not covered", "seconds": 0.0, "ran": 0}
        job = self._job(asdict(mutant) | {"text": mutant.text.decode()}, chosen)
        on_import = bool(self.known.importing.get(f"{mutant.file}:{mutant.place}"))
        verdict = {"status": "not in place"} if on_import and mutant.function else processes[0].ask(job)
        how = "in place"
        # what runs on import (defaults do, too) and lives was perhaps put in too late: once more, from the start
        late = mutant.function is None or mutant.default
        if verdict["status"] == "not in place" or (verdict["status"] == "survived" and late):
            verdict, how = processes[1].ask(job), "on import"
        if verdict["status"] == "broken":
            raise RuntimeError(f"{mutant.identity}, {how}: {verdict['why']}")
        return verdict | {"how": how}

    def _job(self, mutant: Job | None, chosen: list[str]) -> Job:
        items = [(name, 3.0 + 6 * self.known.seconds[name]) for name in chosen]
        return {"kind": "mutant", "mutant": mutant, "items": items, "wall": 120 + 10 * sum(limit for _, limit in items)}

    def _sound(self, processes: list[Process], verdict: Job, mutant: Mutant) -> bool:
        """Whether the killer passes without the fault; otherwise it is never asked again."""
        name, how = verdict["by"], verdict["how"]
        chosen = [name] if name in self.known.seconds else self.known.select(mutant, self.budget)
        tried = how + " ".join([name] if name in self.known.seconds else sorted({item.partition("::")[0] for item in chosen}))
        if tried in self.sound:
            return True
        if processes[how == "on import"].ask(self._job(None, chosen))["status"] == "survived":
            self.sound.add(tried)
            return True
        if name not in self.known.seconds:
            raise RuntimeError(f"{mutant.identity}: {', '.join(chosen)} fail without a fault")
        self.known.flawed.add(name)
        return False


def _share(work: Iterable[Any], start: Callable[[], list[Process]], each: Callable[[list[Process], Any], None], workers: int) -> None:
    """Do the work in order, by so many threads with processes of their own; the first error ends it."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for thing in work:
        waiting.put(thing)
    errors: list[BaseException] = []

    def run() -> None:
        processes = start()
        try:
            while not errors:
                each(processes, waiting.get_nowait())
        except queue.Empty:
            pass
        except BaseException as error:
            errors.append(error)
        finally:
            for process in processes:
                process.close()

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
