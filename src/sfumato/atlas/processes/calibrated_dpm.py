"""058: a score's mean is 0; taking a network's mean out lowers its loss by a known amount."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.networks import digits_network
from sfumato.atlas.row import Check, Row, at_least, at_most, close, control
from sfumato.data import digits
from sfumato.denoise import Calibrated
from sfumato.denoiser import Denoiser, to_data
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.explain import score_martingale
from sfumato.explain.score.score_martingale import ScoreMartingale
from sfumato.learn import mean_error
from sfumato.noise import Time, VariancePreserving
from sfumato.seeds import noise

PROCESS = VariancePreserving()
WORLD = GaussianMixture([0.3, 0.7], torch.tensor([[-2.0], [2.0]], dtype=torch.float64), [SpectralCovariance.isotropic(1, 0.05)] * 2)
BIAS = 0.3
DRAWS = 20_000


class _Biased(Denoiser):
    """The exact belief, with 0.3 added to the score."""

    def __init__(self) -> None:
        self.inner, self.process = WORLD.denoiser(PROCESS), PROCESS

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        return to_data(self.inner.score(x, t) + BIAS, "score", x, t, PROCESS)


def losses() -> Iterator[Check]:
    """Check 1: the score-matching loss of a biased score, before and after, on noise that the mean was not measured on."""
    t = 0.5
    k = float(PROCESS.ratio(t))
    data = WORLD.sample(DRAWS, 0)
    error = mean_error(_Biased(), data, (k,), seed=1)
    fresh, sigma = WORLD.sample(DRAWS, 2), float(PROCESS.sigma(t))
    eps = noise(3, DRAWS, (1,), dtype=torch.float64).draw(0)
    x = PROCESS.sample(fresh, t, eps)

    def loss(model: Denoiser) -> Tensor:
        return 0.5 * (model.score(x, t) + eps / sigma).square().sum(1)

    calibrated, exact = Calibrated(_Biased(), error), WORLD.denoiser(PROCESS)
    fall = loss(_Biased()) - loss(calibrated)
    spread = float(fall.std()) / math.sqrt(DRAWS)
    mean = float(PROCESS.alpha(t) * error.values[0, 0, 0] / sigma)  # of the score: alpha b / sigma^2, b = sigma value
    yield close("mean of the biased score", mean, BIAS, absolute=4 * float(PROCESS.alpha(t) * error.floor[0, 0].sqrt() / sigma))
    yield close("fall of the loss, against half the squared mean score", float(fall.mean()), mean**2 / 2, absolute=3 * spread)
    yield at_most("calibrated loss above the exact score's", float((loss(calibrated) - loss(exact)).mean()), 1e-4)
    yield control(at_most("loss of the biased score above the exact one's", float((loss(_Biased()) - loss(exact)).mean()), 1e-4))
    few = mean_error(_Biased(), data[:20], (k,), seed=1)
    yield at_least("expected square of the mean from 20 draws, over that from 20 000", float(few.floor / error.floor), 500.0)


def martingale() -> Iterator[Check]:
    """Check 2: alpha times the score keeps its mean along the reverse process; biased, or without alpha, it does not."""
    start, stops = torch.tensor([0.2], dtype=torch.float64), (0.5, 0.4, 0.3)
    found = score_martingale(WORLD.denoiser(PROCESS), start, 0.6, stops, paths=20_000, steps=200, radius=0.5)
    shown = ", ".join(f"{m[0]:.4f}+-{e[0]:.4f}" for m, e in zip(found.means, found.errors, strict=True))
    yield at_most(f"drift of the mean of alpha score in standard errors ({shown})", found.drift(), 3.0)
    yield at_most("the same where |alpha score| first passes 0.5", found.numbers["at the stopping time"], 3.0)
    yield control(at_most("drift of the score without alpha", found.drift(unscaled=True), 5.0))
    biased = score_martingale(_Biased(), start, 0.6, stops, paths=20_000, steps=200)
    yield control(at_most("drift of the biased score", biased.drift(), 5.0))


def network() -> Iterator[Check]:
    """Check 3: the trained digits network; the noise loss on fresh noise, before and after."""
    data, model = digits(), digits_network()
    ratios = (0.05, 0.15, 0.4, 1.0, 2.5, 6.0, 20.0)
    error, fresh = (mean_error(model, data.train, ratios, draws=12, seed=seed) for seed in (1, 7))
    # taking b out of an error e lowers its mean square by 2 b e - b^2; in noise units alpha / sqrt(alpha^2 + sigma^2) of the table's
    share = torch.sigmoid(2 * error.half_log_snr)
    fall = share * (2 * (error.values * fresh.values).flatten(2).sum(2) - error.squared())[:, 0]
    mean, floor = share * error.squared()[:, 0], share * error.floor[:, 0]
    sure = mean > 4 * floor
    shown = ", ".join(f"{f:.1e} at {k:g}" for f, k in zip(fall.tolist(), sorted(ratios, reverse=True), strict=True))
    yield at_least(f"least fall of the noise loss over 7 levels, fresh noise ({shown})", float(fall.min()), 0.0)
    yield at_least("levels of 7 at which the squared mean is above four times what the draws alone give", int(sure.sum()), 3)
    yield at_least("least fall over the squared mean there", float((fall / mean)[sure].min()), 0.4)
    yield at_most("largest fall relative to the loss of this network, 64 numbers", float(fall.max()) / 64, 1e-2)
    wrong = Calibrated(model, mean_error(model, data.train[:8], ratios, seed=1))
    with torch.no_grad():
        t = float(model.process.time_of_ratio(0.4))
        x = model.process.sample(data.test, t, noise(8, len(data.test), data.event_shape).draw(0))
        worse = (model.denoise(x, t) - data.test).square().mean() - (wrong.denoise(x, t) - data.test).square().mean()
    yield control(at_least("fall on unseen images, calibrated by 8 images", float(worse), 0.0))


@functools.cache
def _drifts() -> dict[str, ScoreMartingale]:
    start, stops = torch.tensor([1.5], dtype=torch.float64), tuple(0.6 - 0.05 * i for i in range(1, 7))
    beliefs: dict[str, Denoiser] = {"exact score": WORLD.denoiser(PROCESS), "biased score": _Biased()}
    return {name: score_martingale(belief, start, 0.6, stops, paths=4000, steps=80) for name, belief in beliefs.items()}


def figure(ax: Any) -> None:
    """The mean of alpha times the score along the reverse process, with standard errors: the exact score keeps it, one with 0.3 added does
    not, and without alpha even the exact one does not.
    """
    exact, biased = _drifts().values()
    for found, colour, label in ((exact, "C0", "exact score"), (biased, "C1", "score + 0.3")):
        means, errors = ([v[0] / abs(found.means[0][0]) for v in values] for values in (found.means, found.errors))
        ax.errorbar(found.times, means, errors, color=colour, label=label)
    plain = [m[0] / a * exact.alphas[0] / abs(exact.means[0][0]) for m, a in zip(exact.means, exact.alphas, strict=True)]
    ax.plot(exact.times, plain, "--", color="C2", label="exact, without alpha")
    ax.set(xlabel="time, from noise on the left to data", ylabel="mean of alpha score, relative")
    ax.invert_xaxis()
    ax.legend()


ROW = Row(
    id="058",
    slug="calibrated-dpm",
    title="On Calibrating Diffusion Probabilistic Models",
    authors="Tianyu Pang, Cheng Lu, Chao Du, Min Lin, Shuicheng Yan, Zhijie Deng",
    year=2023,
    arxiv="2302.10688",
    claim=(
        "The exact score has mean 0 and alpha times the score is a martingale of the reverse process; taking a trained model's mean out "
        "lowers its score-matching loss by exactly half its square."
    ),
    reproduced="yes",
    checks=(losses, martingale, network),
    figure=figure,
)
