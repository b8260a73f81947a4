r"""How a circular convolution learns to denoise, in closed form.

A filter `w` on a circular grid of `N` pixels acts as `D(x)_p = sum_o w_o x_(p + o)` with offsets `o` of a window, one filter per noise
level (`alpha = 1`). Of the data only the spectrum of Fourier variances `S_f` enters. Under gradient flow (see `linear_learning`) on the
error summed over pixels

    w(tau) = w* + exp(-2 N eta tau (sigma^2 I + S_patch)) (w(0) - w*),        w* = (sigma^2 I + S_patch)^-1 S_patch e_centre,

where `S_patch` is the covariance of the pixels of a window, averaged over its places. All such denoisers are diagonal in the Fourier
basis, so the flow contracts frequency `f` by `exp(-int (1 - w_f(s))/s ds)`, which is one term of the one-layer learner per eigenvector of
`S_patch`. A window as wide as the grid is the one-layer learner of `S_f` itself, with rate `N eta`.

Source: Wang & Pehlevan 2025 (arXiv 2503.03206), sections on convolutional denoisers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.learning.linear_learning import entire_exponential_integral, kept_start


def fourier_variances(x: Float[Tensor, "n *grid"]) -> Float[Tensor, "*grid"]:
    """`S_f = E|x_f|^2 / N` of data about their mean event, float64, in the order of `torch.fft.fftn`.

    Raises:
        ShapeError: no grid.
    """
    if x.ndim < 2:
        raise ShapeError("x", tuple(x.shape), "(n, *grid)")
    away = x.to(torch.float64) - x.to(torch.float64).mean(0)
    axes = tuple(range(1, x.ndim))
    return torch.fft.fftn(away, dim=axes).abs().square().mean(0) / math.prod(x.shape[1:])


@dataclass(frozen=True, eq=False)
class LocalFilter:
    """A filter with a window of odd sizes, in training; see the module.

    Arguments:
        spectrum: the Fourier variances of the data, `fourier_variances(x)`.
        window: the window's sizes, odd (or that of the whole grid), one per axis.
        start: the filter at `tau = 0`: `(*window)`, or a number for so much of the identity.
        rate: the learning rate `eta`.

    Raises:
        ArgumentError: a window that does not fit, negative variances, a rate that is not positive.
        ShapeError: a start of another shape than the window's.
    """

    spectrum: Tensor
    window: Sequence[int]
    start: Tensor | float = 0.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        grid = tuple(self.spectrum.shape)
        fits = len(self.window) == len(grid) and all(0 < k <= n and (k % 2 or k == n) for k, n in zip(self.window, grid, strict=False))
        if not fits:
            raise ArgumentError("window", tuple(self.window), f"odd sizes, or the grid's, of at most {grid}")
        if not bool((torch.isfinite(self.spectrum) & (self.spectrum >= 0)).all()):
            raise ArgumentError("spectrum", f"a least value of {float(self.spectrum.min()):.4g}", "finite variances of at least 0")
        if not 0 < self.rate < math.inf:
            raise ArgumentError("rate", self.rate, "a positive learning rate")
        if isinstance(self.start, Tensor) and self.start.shape != tuple(self.window):
            raise ShapeError("start", tuple(self.start.shape), f"a filter of the window's shape {tuple(self.window)}")

    def filter(self, sigma: float, tau: float) -> Float[Tensor, "*window"]:
        """The filter at noise `sigma > 0` after training for `tau`, float64."""
        modes = self._modes()
        total = modes.variances + self._positive(sigma) ** 2
        left = torch.exp(-self._spent(tau) * total)
        gains = modes.target * (modes.variances / total) * (1 - left) + modes.start * left
        return (modes.vectors @ gains).reshape(tuple(self.window))

    def generated_variance(self, tau: float, sigma_max: float = 80.0, sigma_min: float = 0.002) -> Float[Tensor, "*grid"]:
        """The Fourier variances of what the probability flow makes of `N(0, sigma_max^2 I)` at `sigma_min`, after training for `tau`."""
        low, high = (self._log_response(self._positive(s), self._spent(tau)) for s in (sigma_min, sigma_max))
        return sigma_max**2 * torch.exp(2 * (low - high))

    def _log_response(self, sigma: float, spent: float) -> Tensor:
        modes = self._modes()
        s, a = torch.tensor(sigma, dtype=torch.float64), torch.tensor(spent, dtype=torch.float64)
        kept = kept_start(modes.variances, s, a)
        learned = entire_exponential_integral(a * (modes.variances + s**2)) / 2 + kept
        parts = modes.target * learned - modes.start * kept
        # what an asymmetric filter adds is a phase, which leaves the variance alone
        return torch.real(modes.waves @ parts.to(modes.waves.dtype)).reshape(self.spectrum.shape)

    def _spent(self, tau: float) -> float:
        if not 0 <= tau < math.inf:
            raise ArgumentError("tau", tau, "a training time of at least 0")
        return 2 * self.spectrum.numel() * self.rate * tau

    @staticmethod
    def _positive(sigma: float) -> float:
        if not 0 < sigma < math.inf:
            raise ArgumentError("sigma", sigma, "a positive noise level")
        return sigma

    def _modes(self) -> _Modes:
        """The eigenvectors of `S_patch`, and what the filter's start, its target and the waves of the grid are in them."""
        grid, spectrum = self.spectrum.shape, self.spectrum.to(torch.float64)
        # the covariance of two pixels of a circular grid depends on the way between them
        correlation = torch.real(torch.fft.ifftn(spectrum))
        offsets = torch.tensor(list(itertools.product(*(range(-(k // 2), k - k // 2) for k in self.window))))
        way = (offsets[:, None] - offsets) % torch.tensor(grid)
        patch = correlation[tuple(way.unbind(-1))]
        values, vectors = torch.linalg.eigh((patch + patch.T) / 2)
        centre = (offsets == 0).all(1).to(torch.float64)
        begun = self.start.to(torch.float64).reshape(-1) if isinstance(self.start, Tensor) else self.start * centre
        angles = sum(
            2
            * math.pi
            / n
            * torch.arange(n, dtype=torch.float64).reshape([-1 if i == axis else 1 for i in range(len(grid))])[..., None]
            * offsets[:, axis]
            for axis, n in enumerate(grid)
        )
        waves = torch.exp(1j * torch.as_tensor(angles, dtype=torch.float64)).reshape(-1, len(offsets))
        return _Modes(values.clamp(min=0.0), vectors, vectors.T @ centre, vectors.T @ begun, waves @ vectors.to(waves.dtype))


@dataclass(frozen=True)
class _Modes:
    variances: Tensor
    vectors: Tensor
    target: Tensor
    start: Tensor
    waves: Tensor
