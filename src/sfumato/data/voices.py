r"""Toy voices: frames of log-magnitude spectra that say who speaks and what.

    frame = comb(pitch of the speaker) + envelope(speaker) + template(phoneme) + 0.1 eps        over 32 frequencies,

the logarithm of a product of spectra: a harmonic comb whose pitch varies by 5 percent from frame to frame, a smooth envelope of three
formants, and two bumps of the phoneme's own. Every frame is drawn from `(seed, 0)` by numpy's Philox; the speakers and phonemes themselves
are the same for every seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sfumato.errors import ArgumentError

BINS, SPEAKERS, PHONEMES = 32, 4, 8


@dataclass(frozen=True)
class Voices:
    """Frames, and who says what in them.

    Arguments:
        frames: log-magnitudes.
        speaker, phoneme: numbers from 0.
    """

    frames: Float[Tensor, "n bins"]
    speaker: Int[Tensor, " n"]
    phoneme: Int[Tensor, " n"]


def voices(n: int = 4000, seed: int = 0) -> Voices:
    """`n` frames, of speakers and phonemes in equal numbers, float64.

    Raises:
        ArgumentError: fewer frames than pairs of a speaker and a phoneme.
    """
    if n < SPEAKERS * PHONEMES:
        raise ArgumentError("n", n, f"at least {SPEAKERS * PHONEMES} frames, one for each speaker and phoneme")
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)))
    pair = np.arange(n) % (SPEAKERS * PHONEMES)
    speaker, phoneme = pair % SPEAKERS, pair // SPEAKERS
    bins = np.arange(BINS)
    pitch = (3.0 + 0.8 * speaker) * (1 + 0.05 * rng.standard_normal(n))
    comb = 0.5 * np.cos(2 * np.pi * bins / pitch[:, None])
    frames = comb + _envelopes()[speaker] + _templates()[phoneme] + 0.1 * rng.standard_normal((n, BINS))
    return Voices(torch.from_numpy(frames), torch.from_numpy(speaker), torch.from_numpy(phoneme))


def _envelopes() -> np.ndarray:
    """Formants at 4, 12 and 22 bins of a vocal tract whose length is the speaker's, and a tilt, `(speakers, bins)`."""
    length = 0.8 + 0.15 * np.arange(SPEAKERS)[:, None]
    bumps = sum(_bump(place * length, 3.0) for place in (4.0, 12.0, 22.0))
    return 1.5 * bumps - 0.5 * np.arange(SPEAKERS)[:, None] * np.linspace(-1, 1, BINS)


def _templates() -> np.ndarray:
    """Two bumps at the phoneme's own places, `(phonemes, bins)`."""
    p = np.arange(PHONEMES)[:, None]
    return 1.2 * _bump(2.0 + 3.7 * p, 1.5) - 1.2 * _bump((9.0 + 11.0 * p) % BINS, 2.0)


def _bump(place: np.ndarray, width: float) -> np.ndarray:
    return np.asarray(np.exp(-0.5 * ((np.arange(BINS) - place) / width) ** 2))
