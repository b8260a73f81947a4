"""Explaining: what a model's score is made of."""

from __future__ import annotations

from sfumato.explain.score_probe import ScoreProbe, score_probe

__all__ = ["ScoreProbe", "score_probe"]
