"""Steering: changing what a model draws, by its own structure or by the user's wishes."""

from __future__ import annotations

from sfumato.steer.variations import Variations, kicked, variations

__all__ = ["Variations", "kicked", "variations"]
