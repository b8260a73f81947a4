"""Findings are kept row by row: a run that is stopped loses no row, and goes on with what is missing, changed or not good."""

from __future__ import annotations

import json

import pytest

from sfumato.atlas import Outcome, Row, at_most, control, find_paper
from sfumato.atlas.record import Record, read
from sfumato.cli import main
from sfumato.errors import DataError

GOOD = [at_most("a", 0.0, 1.0), control(at_most("b", 2.0, 1.0))]


def row(name, measure=lambda: iter(GOOD)):
    """A real paper under another measure, so that nothing heavy is loaded."""
    return Row(**vars(find_paper(name)), checks=[measure])


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def quick(monkeypatch):
    """Rows that take no time, under the names of real ones; what was run is noted."""
    ran = []

    def found(name):
        return row(name, lambda: ran.append(find_paper(name).slug) or iter(GOOD))

    monkeypatch.setattr("sfumato.atlas.find", found)
    return ran


def test_the_file_is_whole_after_every_row(tmp_path):
    record = Record(tmp_path / "out.json")
    for name, count in (("painters", 1), ("T3", 2)):
        record.add(Outcome(row(name), GOOD, 0.1))
        assert len(read(tmp_path / "out.json")) == count
    entries = read(tmp_path / "out.json")
    assert [entry["id"] for entry in entries] == ["T3", "T5"]
    assert {"processor", "cores", "threads", "python", "torch", "sfumato"} <= set(entries[0]["machine"])


def test_an_update_runs_only_what_is_missing_changed_or_not_good(tmp_path, quick):
    file = tmp_path / "out.json"
    assert call("atlas", "run", "T3", "painters", "--json", file) == 0
    assert call("atlas", "run", "T3", "painters", "T4", "--json", file, "--update") == 0
    assert quick == ["gaussian-score-teleport", "painters", "hidden-linear-structure"]
    entries = read(file)
    entries[0]["code"] = "other"
    entries[1]["checks"][0]["passed"] = False
    file.write_text(json.dumps(entries))
    assert call("atlas", "run", "T3", "painters", "T4", "--json", file, "--update") == 0
    assert quick[3:] == ["gaussian-score-teleport", "hidden-linear-structure"]


def test_without_an_update_the_file_is_begun_anew(tmp_path, quick):
    file = tmp_path / "out.json"
    assert call("atlas", "run", "T3", "--json", file) == call("atlas", "run", "painters", "--json", file) == 0
    assert [entry["slug"] for entry in read(file)] == ["painters"]


def test_a_row_that_was_not_good_is_bad_whether_or_not_it_is_run_again(tmp_path):
    record = Record(tmp_path / "out.json")
    record.add(Outcome(row("T3"), [control(at_most("b", 0.0, 1.0))], 0.1))
    assert not Record(tmp_path / "out.json", update=True).good([find_paper("T3")])


@pytest.mark.parametrize("content", ["no json", "{}", "[1]", '[{"slug": "painters"}]', "[[]]"])
def test_a_file_of_another_kind_is_not_gone_on_with(tmp_path, content):
    file = tmp_path / "out.json"
    file.write_text(content)
    with pytest.raises(DataError, match="--json"):
        Record(file, update=True)
    assert file.read_text() == content


def test_an_update_needs_a_file(capsys):
    assert call("atlas", "run", "T3", "--update") == 2
    assert "--json FILE" in capsys.readouterr().err


def test_the_list_is_narrowed_by_word_family_and_room(capsys):
    assert call("atlas", "list", "--family", "theory") == 0
    told = capsys.readouterr().out
    assert "painters" in told
    assert "sa-solver" not in told
    assert call("atlas", "list", "vastola", "--room", "steer") == 0
    told = capsys.readouterr().out
    assert "painters" in told
    assert "score-sde" not in told
    assert call("atlas", "list", "--room", "kitchen") == 2
    assert "sample" in capsys.readouterr().err
