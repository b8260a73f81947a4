"""Training watched from the first step: what the score resembles, and in which order the data's directions are learned.

`learning_report` trains a copy of an untrained denoiser and watches. Whoever trains by other means hands a `LearningProbe` to a
`sfumato.learn.Recorder`, that as `on_step` to `fit`, and afterwards the recorder to `learning_of`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.denoise import Preconditioned
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.explain.explanation import Explanation
from sfumato.explain.learning.learning_curve import LearningCurve, learning_curve
from sfumato.explain.learning.mode_variance import ModeLearning, mode_learning, mode_variances
from sfumato.explain.score.score_probe import ScoreProbe, score_probe
from sfumato.explain.worlds import Worlds, fit_worlds
from sfumato.learn import DenoisingLoss, FitSettings, Recorder, fit, log_steps
from sfumato.learn.training.callbacks import Weights
from sfumato.learn.training.fit import Progress
from sfumato.noise import Time

RATIOS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
"""The noise-to-signal ratios that are looked at, for data whose standard deviation is about 1/2."""
_PROBED = 256


@dataclass(frozen=True, eq=False)
class Look:
    """What a `LearningProbe` saw at one training step; no variances if it was told to generate nothing."""

    scores: ScoreProbe
    variances: Tensor | None


@dataclass(frozen=True, eq=False)
class LearningProbe:
    """What a `Recorder` asks of a denoiser in training.

    Arguments:
        worlds: the closed forms that the score is compared with.
        x0: clean data `(n, *event)` to probe around.
        ratios: noise-to-signal ratios.
        samples: how many samples to generate at each look, for their variances along the Gaussian's components; 0 for none.
        seed: of the probes' noise and of the samples, the same at every look.
    """

    worlds: Worlds
    x0: Tensor
    ratios: Sequence[float] = RATIOS
    samples: int = 256
    seed: int = 0
    _remembered: dict[str, _Remembered] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, data: Dataset) -> LearningProbe:
        """The probe of a data set's training part, with everything at its default."""
        return cls(fit_worlds(data), data.train[:_PROBED])

    def __call__(self, denoiser: Preconditioned) -> Look:
        parameter = next(denoiser.parameters())
        device, dtype = parameter.device, parameter.dtype
        for name, law in self.worlds.approximants().items():
            # laws do not change while a network trains, so they are asked once
            self._remembered.setdefault(name, _Remembered(law.to(dtype, device).denoiser(denoiser.process)))
        scores = score_probe(denoiser, self._remembered, self.x0.to(device, dtype), self.ratios, seed=self.seed)
        law = self.worlds.gaussian
        return Look(scores, mode_variances(denoiser, law, self.samples, seed=self.seed, device=device) if self.samples else None)


class _Remembered(Denoiser):
    """A denoiser that answers from memory what it has been asked before."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner, self.process = inner, inner.process
        self._known: dict[float, tuple[Tensor, Tensor]] = {}

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        known = self._known.get(float(t))
        if known is None or not torch.equal(known[0], x):
            known = self._known[float(t)] = (x, self.inner.denoise(x, t, condition))
        return known[1]


@dataclass(frozen=True)
class LearningReport(Explanation):
    """The course of a training run.

    Arguments:
        data: what was learned.
        curve: what the score resembled, by step and noise level.
        modes: when each direction of the data was learned; None if nothing was generated on the way.
    """

    data: str
    curve: LearningCurve
    modes: ModeLearning | None

    def beside(self, gaussian: LearningReport | None = None, whitened: LearningReport | None = None) -> LearningReport:
        """The same with the courses of runs on `gaussian_twin` and `whitened_twin` data, for comparison."""
        curve = self.curve if gaussian is None else self.curve.beside(gaussian.curve)
        both = self.modes is not None and whitened is not None and whitened.modes is not None
        modes = self.modes.beside(whitened.modes) if both else self.modes  # type: ignore[union-attr, arg-type]
        return replace(self, curve=curve, modes=modes)

    @property
    def numbers(self) -> dict[str, float]:
        """Those of the curve, and those of the modes."""
        return self.curve.numbers | ({} if self.modes is None else self.modes.numbers)

    @property
    def meaning(self) -> str:
        return self.curve.meaning if self.modes is None else f"{self.curve.meaning} {self.modes.meaning}"

    def plot(self, ax: Any) -> None:
        """The map of training step and noise level; `curve.plot` and `modes.plot` are the other two pictures."""
        self.curve.plot_map(ax)


def learning_of(recorder: Recorder[Look], data: str) -> LearningReport:
    """What a recorder with a `LearningProbe` has seen.

    Raises:
        ArgumentError: it has seen fewer than two steps.
    """
    if len(recorder.steps) < 2:
        raise ArgumentError("recorder", f"{len(recorder.steps)} records", "at least 2", "Give it to `fit` as on_step first.")
    curve = learning_curve(recorder.steps, [look.scores for look in recorder.answers], recorder.weights)
    variances = [look.variances for look in recorder.answers if look.variances is not None]
    if not variances:
        return LearningReport(data, curve, None)
    targets = recorder.probe.worlds.gaussian.covariance.eigenvalues  # type: ignore[attr-defined]
    return LearningReport(data, curve, mode_learning(recorder.steps, variances, targets))


def learning_report(
    denoiser: Preconditioned,
    data: Dataset,
    settings: FitSettings,
    loss: DenoisingLoss | None = None,
    *,
    probe: LearningProbe | None = None,
    records: int = 24,
    weights: Weights = "raw",
    progress: Progress | None = None,
) -> LearningReport:
    """Train a copy of a denoiser, as `sfumato.learn.training.fit` would, and report the course of it.

    Arguments:
        denoiser: untrained, e.g. `untrained_twin(model)`; it is left as it is.
        data: its training part is learned.
        settings, loss: as of `fit`.
        probe: what to look at; default: `LearningProbe.of(data)`.
        records: how often to look, at most, at steps equally spaced in the logarithm.
        weights: which weights to look at: averages lag behind, so raw ones show when something is learned.
        progress: as of `fit`.

    Raises:
        as `fit`; ArgumentError for fewer than 2 records.
    """
    recorder = Recorder(probe or LearningProbe.of(data), log_steps(settings.steps, records), weights)
    fit(copy.deepcopy(denoiser), data, settings, loss, on_step=recorder, progress=progress)
    return learning_of(recorder, data.name)
