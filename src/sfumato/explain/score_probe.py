r"""How much of a score closed forms explain, at each noise level.

Per noisy sample `x = alpha x_0 + sigma eps` the share of a denoiser's score `s` that another score `a` explains is

    EV = 1 - |s - a|^2 / |s|^2 = 1 - |alpha (D - D_a)|^2 / |alpha D - x|^2,

averaged over samples (the ratio per sample, not the ratio of averages). Source: Wang & Vastola 2024 (arXiv 2412.09726), section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import over_events
from sfumato.seeds import noise


@dataclass(frozen=True)
class ScoreProbe:
    """Explained variance by name of the approximant: mean and standard deviation over samples, one entry per ratio `k`."""

    ratios: list[float]
    explained: dict[str, tuple[list[float], list[float]]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def score_probe(
    denoiser: Denoiser,
    approximants: Mapping[str, Denoiser],
    x0: Float[Tensor, "n *event"],
    ratios: Sequence[float],
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ScoreProbe:
    """Probe a denoiser's score at `x0` plus noise.

    Arguments:
        denoiser: whose score is to be explained.
        approximants: closed forms by name, asked under the denoiser's process.
        x0: clean data to probe around; the same noise is used at every level.
        ratios: noise-to-signal ratios `k`.
        seed: of the noise.
        progress: called with the number of levels done.

    Raises:
        ArgumentError: no ratios, or a ratio the process does not have.
    """
    if not ratios:
        raise ArgumentError("ratios", list(ratios), "at least one noise-to-signal ratio")
    process = denoiser.process
    eps = noise(seed, len(x0), tuple(x0.shape[1:]), dtype=x0.dtype, device=x0.device).draw(0)
    explained: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in approximants}
    asked = {name: a.under(process) for name, a in approximants.items()}
    with torch.no_grad():
        for done, k in enumerate(ratios, start=1):
            t = process.time_of_ratio(k)
            x = process.sample(x0, t, eps)
            alpha = over_events(process.alpha(t), x)
            own = denoiser.denoise(x, t)
            size = ((alpha * own - x) ** 2).flatten(1).sum(1)
            for name, approximant in asked.items():
                missed = ((alpha * (own - approximant.denoise(x, t))) ** 2).flatten(1).sum(1)
                share = 1 - missed / size
                explained[name][0].append(float(share.mean()))
                explained[name][1].append(float(share.std()))
            if progress is not None:
                progress(done)
    return ScoreProbe([float(k) for k in ratios], explained)
