r"""Dynamic thresholding: predicted pixels are kept within the range that data have, sample by sample.

    s = max(quantile_q |D|, bound),        D <- clip(D, -s, s) bound / s

so that strong guidance does not saturate: what lies within `bound` up to the quantile is left as it is. Source: Saharia et al. 2022 (arXiv
2205.11487), section 2.3; as part of DPM-Solver++ (arXiv 2211.01095). It acts on the data prediction, hence in every solver alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import Time


class Thresholded(Denoiser):
    """A denoiser whose answers are thresholded.

    Arguments:
        inner: the denoiser.
        quantile: of the absolute values within a sample, in (0, 1].
        bound: the largest absolute value that data have.

    Raises:
        ArgumentError: a quantile or bound out of range.
    """

    def __init__(self, inner: Denoiser, quantile: float = 0.995, bound: float = 1.0) -> None:
        if not 0 < quantile <= 1:
            raise ArgumentError("quantile", quantile, "a share in (0, 1]")
        if not 0 < bound < math.inf:
            raise ArgumentError("bound", bound, "a positive bound")
        self.inner, self.quantile, self.bound, self.process = inner, quantile, bound, inner.process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        data = self.inner.denoise(x, t, condition)
        size = torch.quantile(data.abs().flatten(1), self.quantile, dim=1).clamp(min=self.bound)
        size = size.reshape(-1, *[1] * (data.ndim - 1))
        return torch.maximum(torch.minimum(data, size), -size) * (self.bound / size)
