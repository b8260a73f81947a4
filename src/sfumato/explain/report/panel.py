"""One question of the report and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sfumato.explain.explanation import Explanation, plain


@dataclass(frozen=True)
class Panel:
    """An answered question.

    Arguments:
        name: under which `--only` knows it.
        title: the question, in plain words.
        idea: what is measured, what theory predicts and what the mechanism-off twin is, in a few sentences.
        answers: explanations with a caption each, the most important first.
        advice: what it means for whoever owns the model.
        sheets: samples to show, batches of events by name; rows of pictures under a heading each.
        tables: further figures, `(heading, column names, rows)`.
        missing: why the question could not be asked of this model or these data; the rest is then empty.
    """

    name: str
    title: str
    idea: str
    answers: Sequence[tuple[str, Explanation]] = ()
    advice: str = ""
    sheets: dict[str, Tensor] = field(default_factory=dict)
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Any]]]] = ()
    missing: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the pictures."""
        answers = {caption: answer.to_dict() for caption, answer in self.answers}
        return {"title": self.title, "advice": self.advice, "missing": self.missing, "answers": answers, "tables": plain(self.tables)}
