"""A small model of the noisy data at a time `T`, to start sampling from in place of noise: by greatest likelihood on forward samples.

A Gaussian (one component) or a mixture by expectation-maximisation; the same denoiser serves every `T`, so only this is fitted anew.
Source: Franzese et al. 2022 (arXiv 2206.05173), section 3 (with the number of components from a Dirichlet process, or a flow).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.data.dataset import Batches
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian, GaussianMixture, fit_gaussian, fit_mixture
from sfumato.noise import ScalarProcess
from sfumato.sample import Solver, run
from sfumato.seeds import Seed, noise

_DRAW = 2
"""Of the noise that makes the data noisy; draws 0 and 1 of the same seed may have made the data."""


def fit_start(
    process: ScalarProcess, data: Float[Tensor, "n *event"], t: float, components: int = 1, *, copies: int = 1, seed: int = 0
) -> Gaussian | GaussianMixture:
    """A law of `x_t`.

    Arguments:
        process: what makes the data noisy.
        data: clean, the training part.
        t: the diffusion time, above 0.
        components: 1 for a Gaussian; more for a mixture of at most so many.
        copies: how often every sample is used, with noise of its own.
        seed: of the noise and of the mixture's start.

    Raises:
        ArgumentError: no noise at `t`, no component or copy; otherwise as `fit_gaussian` and `fit_mixture`.
    """
    if not 0 < t <= 1 or components < 1 or copies < 1:
        raise ArgumentError("t, components, copies", (t, components, copies), "a time in (0, 1], and at least one of each")
    source = noise(seed, len(data), tuple(data.shape[1:]), dtype=data.dtype, device=data.device)
    noisy = torch.cat([process.sample(data, t, source.draw(_DRAW + j)) for j in range(copies)])
    batches = Batches(noisy, 4096)
    return fit_gaussian(batches) if components == 1 else fit_mixture(batches, components, seed=seed)


def sample_from(
    denoiser: Denoiser, start: Gaussian | GaussianMixture, solver: Solver, times: Sequence[float], n: int, seed: Seed = 0
) -> Float[Tensor, "n *event"]:
    """`n` samples: a draw of the start law at the first of the times, carried to the last.

    Arguments:
        denoiser: asked under its own process.
        start: the law at `times[0]`.
        solver, times: the steps; their number should be proportional to the way in log-SNR where different starts are compared.
        n, seed: how many, of which noise.
    """
    x = start.sample(n, seed)
    draws = noise(seed, n, start.event_shape, dtype=x.dtype, first=n)
    with torch.no_grad():
        return run(solver.compile(denoiser.process, times), lambda y, t: denoiser.denoise(y, t), x, draws)
