"""Tuning: from a model to its fastest sampler.

Example:
    >>> from sfumato.data import moons
    >>> from sfumato.exact import fit_mixture
    >>> from sfumato.noise import VariancePreserving
    >>> from sfumato.tune import TuneSettings, tune
    >>> data = moons()
    >>> model = fit_mixture(data.batches(512), 4).denoiser(VariancePreserving())  # stands for a network
    >>> little = dict(fit=32, judge=16, measure=16, steps=24, quality=0, world_trials=4, network_trials=1, closed_forms=0, fits=())
    >>> recipe, result = tune(model, data, TuneSettings(evaluations=(4, 6), **little))
    >>> [program.evaluations for program in recipe.programs.values()]
    [4, 6]
    >>> recipe.sampler(model, 6).sample(5, seed=0).shape
    torch.Size([5, 2])
"""

from __future__ import annotations

from sfumato.progress import Progress
from sfumato.tune.recipe import Recipe
from sfumato.tune.result import Candidate, Teleport, TuneResult
from sfumato.tune.tuning import TuneSettings, tune

__all__ = ["Candidate", "Progress", "Recipe", "Teleport", "TuneResult", "TuneSettings", "tune"]
