"""What the report's questions share: a model, its data, closed forms of the data, and trajectories of the model's flow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.denoiser import Denoiser
from sfumato.errors import ShapeError
from sfumato.exact import Gaussian
from sfumato.explain.worlds import Worlds, fit_worlds
from sfumato.sample import Trajectory, reference, reference_times
from sfumato.seeds import noise

STEPS = 48
_STARTS = 256
_NUMBERS = 2**26
"""About so many numbers may all events that one question asks the model about have together, so that of large events there are fewer."""
_LEAST = 8
LEVELS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Noise-to-signal ratios that tables show; those above the process's last one are left out."""


@dataclass(frozen=True)
class Subject:
    """A model and its data; what is expensive is computed when it is first asked for.

    Arguments:
        denoiser: the model, unconditional or with a condition that may be left out.
        data: what it was trained on, and what it was not.
        seed: of all noise.

    Raises:
        ShapeError: the denoiser does not answer in the shape of the data's events.
    """

    denoiser: Denoiser
    data: Dataset
    seed: int = 0

    def __post_init__(self) -> None:
        few = self.data.train[:2]
        with torch.no_grad():
            answer = self.denoiser.denoise(few, 0.5)
        if answer.shape != few.shape:
            raise ShapeError("denoiser", tuple(answer.shape[1:]), f"answers of the data's event shape {self.data.event_shape}")

    @cached_property
    def worlds(self) -> Worlds:
        """The data's Gaussian, a mixture, and the points."""
        return fit_worlds(self.data, seed=self.seed)

    @property
    def law(self) -> Gaussian:
        """The data's Gaussian."""
        return self.worlds.gaussian

    @cached_property
    def paths(self) -> Trajectory:
        """The model's probability flow from draws of its prior, to clean samples."""
        count, process = self.afford(_STARTS, STEPS), self.denoiser.process
        start = process.prior_sample(noise(self.seed, count, self.data.event_shape).draw(0))
        return reference(self.denoiser.denoise, start, process, self.law, reference_times(process, STEPS))

    def afford(self, wanted: int, each: int) -> int:
        """So many events as are wanted, or as events of this size allow if the model is asked about each so many times."""
        return max(_LEAST, min(wanted, _NUMBERS // (self.dim * each)))

    @property
    def dim(self) -> int:
        """Numbers per event."""
        return self.data.train[0].numel()

    def levels(self, low: float = 0.0, high: float = float("inf")) -> list[float]:
        """The levels between two ratios that the process has."""
        top = min(high, float(self.denoiser.process.ratio(1.0)))
        return [k for k in LEVELS if low <= k <= top]

    def label(self, x: Tensor) -> Tensor:
        """What a sample shows: the label of the nearest training event."""
        from sfumato.explain.generalising.memorization import nearest

        labels = self.data.train_labels
        if labels is None:
            raise ShapeError("train_labels", None, "one label per training event")
        return labels[nearest(x, self.data.train, 1)[1][:, 0]]
