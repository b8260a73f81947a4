"""The report that `sfumato explain` writes: every question asked of one model, in one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sfumato.data import Dataset
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.explain.report import knowledge, painting
from sfumato.explain.report.panel import Panel
from sfumato.explain.report.subject import Subject
from sfumato.explain.report.write import write_report
from sfumato.progress import Progress, Silent

__all__ = ["QUESTIONS", "Panel", "Subject", "ask", "write_report"]

QUESTIONS: dict[str, Callable[[Subject], Panel]] = {
    "gaussian": knowledge.gaussian,
    "linear": knowledge.linear,
    "teleport": knowledge.teleport,
    "trajectory": painting.trajectory,
    "emergence": painting.features,
    "response": painting.response,
    "landscape": painting.landscape,
    "manifold": painting.manifold,
    "memory": knowledge.memory,
    "symmetry": painting.symmetry,
    "learning": knowledge.learning,
}
"""The questions by name, in the order of the report."""


def ask(
    denoiser: Denoiser,
    data: Dataset,
    only: Sequence[str] | None = None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Panel]:
    """Ask questions of a model.

    Arguments:
        denoiser: the model.
        data: what it was trained on.
        only: names of questions; default: all.
        seed: of all noise.
        progress: whom to tell.

    Raises:
        ArgumentError: an unknown question.
        ShapeError: the denoiser does not answer in the shape of the data's events.
    """
    chosen = list(QUESTIONS) if only is None else list(only)
    for name in chosen:
        if name not in QUESTIONS:
            raise ArgumentError("only", repr(name), f"names among {', '.join(QUESTIONS)}")
    teller = progress or Silent()
    subject = Subject(denoiser, data, seed)
    teller.begin("closed forms of the data", 1)
    _ = subject.worlds
    panels = []
    for name in (n for n in QUESTIONS if n in chosen):
        teller.begin(f"question: {name}", 1)
        panels.append(QUESTIONS[name](subject))
        teller.advance()
    return panels


def facts(denoiser: Any, data: Dataset, about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the page says of the model and the data."""
    return {
        "Model": {**about, "process": denoiser.process.kind},
        "Data": {"name": data.name, "training": len(data.train), "held out": len(data.test), "event": list(data.event_shape)},
    }


def explain(
    denoiser: Denoiser,
    data: Dataset,
    out: Path,
    only: Sequence[str] | None = None,
    *,
    about: dict[str, Any] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Panel]:
    """Ask, and write `explain.html` and `explain.json` into a folder; see `ask`."""
    import json

    from sfumato.files import write_bytes

    panels = ask(denoiser, data, only, seed=seed, progress=progress)
    known = facts(denoiser, data, about or {"name": "the model"})
    write_bytes(out / "explain.json", json.dumps({"facts": known, **{p.name: p.to_dict() for p in panels}}, indent=1).encode())
    write_report(panels, known, out / "explain.html")
    return panels
