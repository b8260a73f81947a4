"""Toy voices: balanced, repeatable, and additive in speaker and phoneme, since spectra multiply."""

from __future__ import annotations

import pytest
import torch

from sfumato.data import voices
from sfumato.data.voices import PHONEMES, SPEAKERS
from sfumato.errors import ArgumentError


def test_every_pair_of_speaker_and_phoneme_is_as_frequent():
    made = voices(320, 3)
    counts = torch.bincount(made.speaker * PHONEMES + made.phoneme)
    assert counts.tolist() == [10] * (SPEAKERS * PHONEMES)


def test_frames_belong_to_the_seed_and_speakers_do_not():
    one, again, other = voices(3200, 1), voices(3200, 1), voices(3200, 2)
    torch.testing.assert_close(one.frames, again.frames, rtol=0, atol=0)
    assert not torch.equal(one.frames, other.frames)
    for s in range(SPEAKERS):
        a, b = (v.frames[v.speaker == s] for v in (one, other))
        error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
        assert float(((a.mean(0) - b.mean(0)) / error).abs().max()) < 4.5


def test_speaker_and_phoneme_do_not_interact():
    """Their means add up: no interaction beyond the noise of 200 frames a pair; within a pair frames vary by noise and pitch alone."""
    made = voices(6400, 0)
    cells = torch.stack([torch.stack([_cell(made, s, p).mean(0) for p in range(PHONEMES)]) for s in range(SPEAKERS)])
    additive = cells.mean(1, keepdim=True) + cells.mean(0, keepdim=True) - cells.mean((0, 1), keepdim=True)
    assert float((cells - additive).abs().max()) < 5 * 0.36 / 200**0.5
    assert float((cells.mean(0) - cells.mean((0, 1))).norm(dim=1).min()) > 1
    # at bin 0 every comb is at its peak, whatever the pitch
    assert float(_cell(made, 0, 0)[:, 0].std()) == pytest.approx(0.1, rel=0.2)


def _cell(made, speaker, phoneme):
    return made.frames[(made.speaker == speaker) & (made.phoneme == phoneme)]


def test_too_few_frames_are_refused():
    with pytest.raises(ArgumentError, match="at least 32"):
        voices(31)
