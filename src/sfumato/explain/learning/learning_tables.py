"""Published explained variances during training, to compare shapes with.

Source: the result tables that accompany Wang & Vastola 2024 (arXiv 2412.09726), github.com/Animadversio/GaussianTeleportationDiffusion.
Training time is in thousands of images for the EDM runs (CIFAR-10, FFHQ-64, AFHQv2-64) and in steps for the others; shares are means over
samples, to the digits that are quoted.
"""

from __future__ import annotations

from dataclasses import dataclass

KIMG, STEPS = "thousand images", "steps"


@dataclass(frozen=True)
class PublishedCurve:
    """Shares of one approximant at one noise level, where they are quoted.

    Arguments:
        run, unit: which training run, and what its time counts.
        approximant: by our name for it: "gaussian" or "empirical".
        ratio: the noise-to-signal ratio; the data have a standard deviation of about 1/2.
        peak: when the Gaussian explained most at this level.
        shares: explained variance by training time.
    """

    run: str
    unit: str
    approximant: str
    ratio: float
    peak: int
    shares: dict[int, float]


PUBLISHED = (
    PublishedCurve("CIFAR-10", KIMG, "gaussian", 0.02, 301, {200: 0.627, 301: 0.684, 5000: 0.609}),
    PublishedCurve(
        "CIFAR-10",
        KIMG,
        "gaussian",
        0.1,
        301,
        {0: -19.7, 100: -56.0, 200: 0.828, 301: 0.894, 502: 0.867, 1204: 0.846, 2509: 0.841, 5000: 0.835},
    ),
    PublishedCurve("CIFAR-10", KIMG, "gaussian", 1.0, 301, {0: 0.807, 100: 0.932, 200: 0.988, 301: 0.992, 5000: 0.988}),
    PublishedCurve("CIFAR-10", KIMG, "empirical", 0.02, 301, {200: -1.17, 301: -0.43, 702: 0.00, 5000: 0.18}),
    PublishedCurve("CIFAR-10", KIMG, "empirical", 0.1, 301, {200: 0.239, 301: 0.666, 502: 0.723, 1204: 0.751, 5000: 0.769}),
    PublishedCurve("FFHQ-64", KIMG, "gaussian", 0.1, 903, {903: 0.842, 5000: 0.805, 35000: 0.792}),
    PublishedCurve("FFHQ-64", KIMG, "gaussian", 0.2, 1003, {1003: 0.917, 5000: 0.897}),
    PublishedCurve("FFHQ-64", KIMG, "gaussian", 0.5, 803, {803: 0.972, 5000: 0.966}),
    PublishedCurve("FFHQ-64", KIMG, "empirical", 0.1, 903, {5000: 0.816, 35000: 0.835}),
    PublishedCurve("AFHQv2-64", KIMG, "gaussian", 0.1, 803, {803: 0.862, 5000: 0.835}),
    PublishedCurve("AFHQv2-64", KIMG, "empirical", 0.1, 803, {5000: 0.757}),
    PublishedCurve("MNIST", STEPS, "gaussian", 0.1, 4500, {4500: 0.768, 25_000: 0.752}),
    PublishedCurve("MNIST", STEPS, "empirical", 0.1, 4500, {25_000: 0.919, 1_000_000: 0.927}),
    PublishedCurve("CIFAR-10, another code", STEPS, "gaussian", 0.1, 1500, {1500: 0.905, 50_000: 0.836}),
    PublishedCurve("CIFAR-10, another code", STEPS, "empirical", 0.1, 1500, {50_000: 0.768}),
)
"""The curves, as far as they are quoted here."""
