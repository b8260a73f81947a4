r"""Sampling from a prior that is centred elsewhere: noise that reverts to an anchor, one per sample.

Under `dX = beta/2 (m - X) dt + sqrt(beta) dw` data end at `N(m, I)` rather than `N(0, I)`:
`x_t = alpha x_0 + (1 - alpha) m + sigma eps`. The differences `y_t = x_t - m` follow the plain process from `y_0 = x_0 - m`, so any sampler
walks them with the belief

    E[y_0 | y_t = y] = D(y + alpha m, t) - m,

and a sample is `y_0 + m`. Source: Popov et al. 2021 (arXiv 2105.06337), section 3; 2022 (arXiv 2109.13821), section 2.
"""

from __future__ import annotations

from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError
from sfumato.noise import Time, over_events


class Anchored(Denoiser):
    """The belief about differences to an anchor, which is passed as the condition, one row per sample.

    Arguments:
        inner: the belief `D` about `x_0` under the plain process.
    """

    def __init__(self, inner: Denoiser) -> None:
        self.inner, self.process = inner, inner.process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        """`D(x + alpha m, t) - m` with the anchors `m` `(batch, *event)`.

        Raises:
            ArgumentError: no anchors, or of another shape than `x`.
        """
        if condition is None or condition.shape != x.shape:
            given = None if condition is None else tuple(condition.shape)
            raise ArgumentError("condition", given, f"anchors of the state's shape {tuple(x.shape)}")
        anchor = condition.to(x.dtype)
        return self.inner.denoise(x + over_events(self.process.alpha(t), x) * anchor, t) - anchor
