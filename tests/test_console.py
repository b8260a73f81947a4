"""What a log is told of long work, where no bar can be shown."""

from types import SimpleNamespace

from sfumato import console
from sfumato.console import Console


def test_where_there_is_no_terminal_a_task_begins_with_a_line_and_tells_now_and_then_how_far_it_is(capsys, monkeypatch):
    clock = iter([0.0, 0.0, 10.0, 21.0, 21.0, 22.0, 43.0, 43.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    shown = Console()
    shown.begin("training", 40)
    for _ in range(4):
        shown.advance(10)
    assert capsys.readouterr().err.splitlines() == ["training", "  20 of 40", "  40 of 40"]
