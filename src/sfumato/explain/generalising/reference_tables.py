r"""What the authors measured on image models, to be laid over one's own curves.

Shares of a pretrained network's score (`score`, normalised by the network's own) and of its clean-data prediction (`denoised`) that
closed forms explain, at `x = training image + sigma eps`. Source: Wang & Vastola 2024 (arXiv 2412.09726), the tables published with the
paper's code; values as rounded there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

RATIOS = (0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""The noise levels of every row."""

Rows = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class ReferenceTable:
    """One model.

    Arguments:
        model: what was probed.
        score, denoised: explained shares by approximant (named as in `Worlds.approximants`), one entry per level of `RATIOS`.
        endpoint: mean squared pixel difference of whole samples from the closed form to the network's from the same noise.
    """

    model: str
    score: Rows
    denoised: Rows
    endpoint: Mapping[str, float]


REFERENCES: Mapping[str, ReferenceTable] = MappingProxyType(
    {
        "cifar10": ReferenceTable(
            "CIFAR-10, EDM (variance preserving)",
            {
                "isotropic": (0.003, 0.047, 0.531, 0.824, 0.952, 0.9944, 0.9992),
                "gaussian": (0.562, 0.818, 0.959, 0.984, 0.9957, 0.9996, 1.0),
                "mixture": (0.614, 0.828, 0.960, 0.985, 0.9960, 0.9997, 1.0),
                "empirical": (0.262, 0.786, 0.946, 0.972, 0.986, 0.998, 1.0),
            },
            {
                "isotropic": (0.999, 0.960, 0.458, 0.199, 0.091, 0.080, 0.115),
                "gaussian": (0.9995, 0.993, 0.952, 0.923, 0.913, 0.942, 0.965),
                "empirical": (0.999, 0.991, 0.929, 0.838, 0.603, 0.535, 0.969),
            },
            {"gaussian": 0.0130, "mixture": 0.0118, "empirical": 0.0473},
        ),
        "ffhq64": ReferenceTable(
            "FFHQ-64, EDM",
            {
                "gaussian": (0.467, 0.792, 0.963, 0.987, 0.9960, 0.9995, 0.9999),
                "mixture": (0.564, 0.835, 0.965, 0.987, 0.9962, 0.9996, 1.0),
                "empirical": (0.377, 0.835, 0.961, 0.980, 0.991, 0.997, 0.999),
            },
            {
                "gaussian": (0.9995, 0.994, 0.967, 0.949, 0.936, 0.940, 0.956),
                "empirical": (0.999, 0.995, 0.964, 0.920, 0.833, 0.545, 0.534),
            },
            {"gaussian": 0.0141, "empirical": 0.0509},
        ),
        "afhqv2-64": ReferenceTable(
            "AFHQv2-64, EDM",
            {
                "gaussian": (0.576, 0.821, 0.958, 0.983, 0.9950, 0.9995, 0.9999),
                "mixture": (0.295, 0.812, 0.959, 0.983, 0.9946, 0.9995, 0.9999),
                "empirical": (0.162, 0.779, 0.956, 0.979, 0.990, 0.997, 0.999),
            },
            {},
            {"gaussian": 0.0156, "empirical": 0.0563},
        ),
        "mnist": ReferenceTable(
            "MNIST, a U-Net of 1e6 steps",
            {
                "isotropic": (0.002, 0.046, 0.539, 0.830, 0.957, 0.997, 1.0),
                "gaussian": (0.541, 0.744, 0.921, 0.961, 0.986, 0.999, 1.0),
                "mixture": (0.458, 0.859, 0.961, 0.983, 0.996, 1.0, 1.0),
                "empirical": (0.858, 0.926, 0.973, 0.983, 0.991, 1.0, 1.0),
            },
            {},
            {},
        ),
    }
)
"""The four models of the paper by name."""

GAUSSIAN_RANKS: Mapping[float, int] = MappingProxyType({0.2: 2048, 0.5: 768, 1.0: 256, 2.0: 64})
"""The rank at which a single Gaussian is within 0.001 of the full-rank one (of 3072) on CIFAR-10, by noise level."""
