"""Tuning: from a model to its fastest sampler."""

from __future__ import annotations

from sfumato.progress import Progress
from sfumato.tune.recipe import Recipe
from sfumato.tune.result import Candidate, Teleport, TuneResult
from sfumato.tune.tuning import TuneSettings, tune

__all__ = ["Candidate", "Progress", "Recipe", "Teleport", "TuneResult", "TuneSettings", "tune"]
