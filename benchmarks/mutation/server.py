"""A process that has everything imported, and forks a child for every mutant: `python -m benchmarks.mutation.server MODE PATH ...`.

`warm`: the tests are collected once; a child puts its fault in place. `traced`: the same with marked statements. `light`: only what the
package builds on is imported; a child imports package and tests with the fault in, for code that runs on import. All do without the shape
checks of a test run, which double the time: a fault that they alone would notice counts as a survivor.

One job a line comes in as JSON, one answer a line goes out. A child is stopped by the clock of its own processor time, so that a busy
machine kills no mutant.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest

from benchmarks.mutation.coverage import Reached, marked
from benchmarks.mutation.mutants import PACKAGE, ROOMS, Mutant
from benchmarks.mutation.overlay import Index, import_all, read_as

Job = dict[str, Any]
_ROOM = 6 * 2**30
_UNMUTATED = "unmutated"


class Server:
    """The plugin that takes over pytest's loop: the items are collected, and jobs decide what runs."""

    def __init__(self, mode: str, jobs: TextIO, answers: TextIO) -> None:
        self.mode, self.jobs, self.answers = mode, jobs, answers
        self.reached = Reached() if mode == "traced" else None

    def pytest_collection(self) -> None:
        import_all(PACKAGE, ROOMS)
        if self.reached:
            self.reached.marks.clear()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        index = Index(PACKAGE)
        gc.collect()
        gc.freeze()
        self._say({"ready": len(items), "failed": session.testsfailed})
        for line in self.jobs:
            job = json.loads(line)
            if job["kind"] == "trace":
                self._say(self._trace(session, job["test"]))
            else:
                self._say(isolated(lambda tell, job=job: self._mutant(job, items, index, tell), job["wall"]))
        return True

    def _trace(self, session: pytest.Session, test: str) -> Job:
        assert self.reached is not None
        reached, chosen = self.reached, [item for item in session.items if item.nodeid.partition("::")[0] == test]
        with tempfile.NamedTemporaryFile("r+") as file:

            def work(tell: Callable[[str], None]) -> None:
                Path(file.name).write_text(json.dumps(reached.run(chosen)))

            answer = isolated(work, 3000)
            text = file.read()
        return {"items": json.loads(text) if text else {}, "collected": sorted(reached.of_file.get(test, ())), "status": answer["status"]}

    def _mutant(self, job: Job, items: dict[str, pytest.Item], index: Index, tell: Callable[[str], None]) -> None:
        if job["mutant"] is not None:
            given = dict(job["mutant"])
            given |= {"text": given["text"].encode(), "function": tuple(given["function"]) if given["function"] else None}
            try:
                done = index.put(Mutant(**given))
            except Exception as error:
                tell(f"failed\t<import>\t{type(error).__name__}: {error}")
                return
            if not done:
                tell("not in place")
                return
        run_items([(items[name], limit) for name, limit in job["items"] if name in items], tell)

    def _say(self, answer: Job) -> None:
        print(json.dumps(answer), file=self.answers, flush=True)


class Fresh:
    """The plugin of a child that imports package and tests itself."""

    def __init__(self, job: Job, tell: Callable[[str], None]) -> None:
        self.job, self.tell = job, tell

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        if session.testsfailed:
            self.tell("failed\t<collection>\tthe tests could not be collected")
        else:
            run_items(_renamed(items, self.job["items"]), self.tell)
        return True


class Verdict:
    """The plugin that hears of the first failure."""

    def __init__(self) -> None:
        self.failure = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failure:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash else str(report.longrepr)
            self.failure = " ".join(text.split())[:300] or "failed"


def _renamed(items: dict[str, pytest.Item], asked: list[tuple[str, float]]) -> list[tuple[pytest.Item, float]]:
    """The items asked for; where a fault is in a value that names a test's case, the cases of that test that bear a new name."""
    found = [(items[name], limit) for name, limit in asked if name in items]
    lost = {name.partition("[")[0]: limit for name, limit in asked if name not in items}
    names = {name for name, _ in asked}
    return found + [(item, lost[test]) for name, item in items.items() if (test := name.partition("[")[0]) in lost and name not in names]


def run_items(chosen: list[tuple[pytest.Item, float]], tell: Callable[[str], None]) -> None:
    """Run items in order, each within its processor time, until one fails."""
    verdict = Verdict()
    for (item, limit), (following, _) in zip(chosen, [*chosen[1:], (None, 0)], strict=True):
        if not verdict.failure:
            item.config.pluginmanager.register(verdict) if item is chosen[0][0] else None
            tell(f"start\t{item.nodeid}")
            signal.setitimer(signal.ITIMER_PROF, limit)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if verdict.failure:
                tell(f"failed\t{item.nodeid}\t{verdict.failure}")


def isolated(work: Callable[[Callable[[str], None]], None], wall: float) -> Job:
    """Run work in a forked child that may say lines; what came of it. An exception of the work itself kills nothing: `broken`."""
    read, write = os.pipe()
    start = time.perf_counter()
    if (child := os.fork()) == 0:
        os.close(read)
        _child(work, write)
    os.close(write)
    text, late = _lines(read, start + wall)
    if late:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    lines = [line.split("\t") for line in text.splitlines()]
    last = next((line[1] for line in reversed(lines) if line[0] == "start"), "<import>")
    answer: Job = {"seconds": round(usage.ru_utime + usage.ru_stime, 3), "ran": sum(line[0] == "start" for line in lines)}
    failed = next((line for line in lines if line[0] == "failed"), None)
    if ["not in place"] in lines:
        return answer | {"status": "not in place"}
    if broken := next((line for line in lines if line[0] == "broken"), None):
        return answer | {"status": "broken", "why": broken[1]}
    if failed:
        return answer | {"status": "killed", "by": failed[1], "why": failed[2]}
    if late or status:
        code = os.waitstatus_to_exitcode(status)
        return answer | {"status": "killed", "by": last, "why": "timeout" if late or code == -signal.SIGPROF else f"crash {code}"}
    return answer | {"status": "survived"}


def _child(work: Callable[[Callable[[str], None]], None], write: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _ROOM, taken + _ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def tell(line: str) -> None:
        os.write(write, " ".join(line.splitlines()).encode() + b"\n")

    try:
        work(tell)
    except BaseException as error:
        tell(f"broken\t{type(error).__name__}: {error} {traceback.format_exc()[-600:]}")
    finally:
        os._exit(0)


def _lines(read: int, end: float) -> tuple[str, bool]:
    data = b""
    while (left := end - time.perf_counter()) > 0:
        if select.select([read], [], [], left)[0]:
            more = os.read(read, 65536)
            if not more:
                os.close(read)
                return data.decode(errors="replace"), False
            data += more
    os.close(read)
    return data.decode(errors="replace"), True


def _fresh(job: Job, tell: Callable[[str], None]) -> None:
    given = job["mutant"]
    if given is not None:
        mutant = Mutant(**{**given, "text": given["text"].encode(), "function": None})
        path, changed = str(PACKAGE / mutant.file), mutant.source(PACKAGE)
        read_as(lambda name, _: changed if name == path else None)
    tests = sorted({name.partition("::")[0] for name, _ in job["items"]})
    signal.setitimer(signal.ITIMER_PROF, 120)
    code = pytest.main([*_OPTIONS, *tests], plugins=[Fresh(job, tell)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.TESTS_FAILED):
        tell(f"failed\t<collection>\tpytest ended with {code}")


_OPTIONS = [
    "-s",
    "--jaxtyping-packages=",
    "-p",
    "no:xdist",
    "-p",
    "no:faulthandler",
    "--continue-on-collection-errors",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
]


def main(mode: str, paths: list[str]) -> int:
    jobs, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder = tempfile.mkdtemp()
    if mode == "light":
        import beartype, hypothesis, jaxtyping, scipy.integrate, scipy.linalg, scipy.optimize, scipy.special, scipy.stats, torch  # noqa: E401, F401, I001

        torch.set_num_threads(1)
        gc.freeze()
        print(json.dumps({"ready": 0, "failed": 0}), file=answers, flush=True)
        for line in jobs:
            job = json.loads(line)
            answer = isolated(lambda tell, job=job: _fresh(job, tell), job["wall"])
            print(json.dumps(answer), file=answers, flush=True)
        return 0
    if mode == "traced":
        read_as(lambda path, data: marked(Path(path).relative_to(PACKAGE).as_posix(), data) if _ours(path) else None)
    plugin = Server(mode, jobs, answers)
    plugins: list[Any] = [plugin, *([plugin.reached] if plugin.reached else [])]
    return int(pytest.main([*_OPTIONS, f"--basetemp={folder}/tests", *paths], plugins=plugins))


def _ours(path: str) -> bool:
    return Path(path).is_relative_to(PACKAGE) and Path(path).relative_to(PACKAGE).parts[0] in ROOMS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
