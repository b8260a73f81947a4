"""Steering: changing what a model draws, by its own structure or by the user's wishes."""

from __future__ import annotations

from sfumato.steer.classifier_guidance import ClassifierGuided, NoisyLogProb
from sfumato.steer.stroke import draw_velocity, follow_stroke, lean_velocity
from sfumato.steer.variations import Variations, kicked, variations

__all__ = [
    "ClassifierGuided",
    "NoisyLogProb",
    "Variations",
    "draw_velocity",
    "follow_stroke",
    "kicked",
    "lean_velocity",
    "variations",
]
