"""A slice of `python -m benchmarks faults`: what is killed, cut, altered, interrupted and refused, in seconds.

Believed since each trial compares with an undisturbed run bit for bit, and since the negative controls below show that the watch sees what
it is there to see.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.faults import PARTS, checkpoints, measure, pickles, recipes
from benchmarks.faults.mutate import spoil_bytes, spoil_values
from benchmarks.faults.subject import chance
from benchmarks.faults.tally import Tally
from benchmarks.faults.watch import CANARY, _Watch

import sfumato
from sfumato.errors import ArgumentError, OutputError, RecipeError, one_line
from sfumato.holding import MARK, held
from sfumato.stopping import TOLD, interruption
from sfumato.tune import Recipe


def test_every_part_of_the_tally_can_be_run():
    import importlib

    for name in PARTS:
        assert callable(importlib.import_module(f"benchmarks.faults.{name}").run)
    with pytest.raises(ValueError, match="no part named weather"):
        measure(parts=["weather"])


def test_a_tally_passes_only_without_failures():
    tally = Tally("x")
    assert tally.row().passed is None
    tally.trial(None, None)
    assert tally.row().passed is True
    tally.trial(None, "wrong")
    assert (tally.row().passed, tally.row().value) == (False, 1)


@pytest.mark.parametrize(
    ("make", "count"), [(recipes._recipes, 150), (recipes._laws, 40), (checkpoints._by_design, 60), (pickles._pickles, 20)]
)
def test_spoilt_files_are_refused_in_one_line_or_whole(make, count, tmp_path):
    (tmp_path / CANARY).write_text("alive")
    trial, watch = make(tmp_path, count), _Watch(tmp_path)
    found = [watch.over(trial(i)) for i in range(count)]
    assert [wrong for wrong, _ in found if wrong] == []
    assert sum(what == "refused" for _, what in found) > count // 2


def test_the_watch_sees_a_shell_a_file_a_touched_canary_and_a_strange_error(tmp_path):
    """Negative controls: each is what a load that goes wrong would do."""
    (tmp_path / CANARY).write_text("alive")
    watch = _Watch(tmp_path)

    def strange() -> None:
        raise KeyError("x")

    assert "os.system" in str(watch.over(lambda: str(os.system("true")) and None)[0])
    assert "open" in str(watch.over(lambda: (tmp_path / "elsewhere").write_text("") and None)[0])
    assert "canary" in str(watch.over(lambda: (tmp_path / CANARY).write_text("dead") and None)[0]) or watch.seen
    (tmp_path / "work").mkdir()
    for place, wanted in ((tmp_path / "elsewhere", True), (tmp_path / "work" / "own", False)):
        place.write_text("")
        assert ("os.remove" in str(watch.over(lambda place=place: place.unlink())[0])) == wanted
    assert "KeyError" in str(watch.over(strange)[0])
    assert watch.over(lambda: None) == (None, "loaded and used")


def test_spoilers_spoil():
    rng, whole = chance("test"), bytes(range(200))
    assert sum(spoil_bytes(whole, rng) != whole for _ in range(50)) > 40
    plain = {"a": [1, {"b": 2.0}], "c": "x"}
    assert sum(repr(spoil_values(plain, rng)) != repr(plain) for _ in range(50)) > 40
    assert plain == {"a": [1, {"b": 2.0}], "c": "x"}


def test_a_folder_is_held_by_one_process_and_freed_by_its_end(tmp_path):
    with held(tmp_path), pytest.raises(OutputError, match=f"process {os.getpid()}"), held(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    code = (
        f"import sys, time; from pathlib import Path; from sfumato.holding import held\nwith held(Path({str(tmp_path)!r})): time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not ((tmp_path / MARK).exists() and (tmp_path / MARK).stat().st_size):
            assert child.poll() is None
            time.sleep(0.01)
        with pytest.raises(OutputError, match=f"process {child.pid}"), held(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()
    with held(tmp_path):
        assert (tmp_path / MARK).exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_waits_for_the_work_and_is_never_lost(number):
    before, seen = signal.getsignal(number), []

    def work() -> None:
        with interruption() as stop:
            os.kill(os.getpid(), number)
            seen.append((stop.requested, stop.code))

    with pytest.raises(KeyboardInterrupt):
        work()
    assert seen == [(True, 128 + number)]
    assert signal.getsignal(number) is before


def test_errors_are_one_bounded_line_whatever_is_in_them():
    deep: list = []
    for _ in range(20_000):
        deep = [deep]
    for odd in ("a\nb\x1b[31m", "x" * 10**6, "\ud800", deep):
        text = str(ArgumentError("name", odd, "something\nelse", "a hint\n\tin lines"))
        assert len(text.splitlines()) == 1
        assert len(text) < 2500
        assert text.isprintable()
    assert one_line("plain") == "plain"


def test_between_two_recipes_there_is_always_a_whole_one(tmp_path, monkeypatch):
    """Stopped between its two files, the new recipe's law is there and the old recipe still finds its own."""
    old, new = recipes.a_recipe(4), recipes.a_recipe(6)
    old.save(tmp_path)

    def crash(path: Path, content: bytes) -> None:
        if path.name == "recipe.json":
            raise KeyboardInterrupt
        whole(path, content)

    from sfumato.tune import recipe_statistics

    whole = recipe_statistics.write_bytes
    for _ in range(2):
        monkeypatch.setattr(recipe_statistics, "write_bytes", crash)
        with pytest.raises(KeyboardInterrupt):
            new.save(tmp_path)
        monkeypatch.undo()
        assert Recipe.load(tmp_path).to_dict() == old.to_dict()
    new.save(tmp_path)
    assert Recipe.load(tmp_path).to_dict() == new.to_dict()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["recipe.json", "statistics.safetensors"]
    old.save(tmp_path / "other")
    (tmp_path / "statistics.safetensors").write_bytes((tmp_path / "other" / "statistics.safetensors").read_bytes())
    with pytest.raises(RecipeError, match="another recipe"):
        Recipe.load(tmp_path)


def test_an_interruption_of_generated_code_has_its_own_exit_code(tmp_path):
    """`python -m` ends by SIGINT where one has passed through an `exec` of text, unless it is made to forget: see `interrupting`."""
    lines = ["import sfumato.cli", "from sfumato.__main__ import main"]
    lines += ["sfumato.cli.main = lambda given: exec('raise KeyboardInterrupt')", "main([])"]
    (tmp_path / "stopped_inside.py").write_text("\n".join(lines))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(sfumato.__file__).parents[1]}"}
    done = subprocess.run([sys.executable, "-m", "stopped_inside"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (130, TOLD)
