r"""A denoiser with its mean error taken out: a calibration of any pretrained model.

An exact belief has, at every `t > 0` and for every class,

    E_{q_t} D(x_t, t) = E x_0,        which is the same as        E_{q_t} score = 0,    E_{q_t} eps = 0,    E_{q_t} v = -sigma E x_0.

A trained one misses by `b(t) = E[D(x_t, t) - x_0]`. Taking it out, `D - b`, lowers the mean squared error of the data at `t` by exactly
`|b|^2` (that of the score by `alpha^2 |b|^2 / sigma^4 = |E score|^2`), whatever the view that the network predicts: noise less its mean,
data less theirs plus that of the data, and so on are all this one subtraction. Source: Pang et al. 2023 (arXiv 2302.10688), eqs. 8-15.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, ShapeError
from sfumato.noise.process import Time


@dataclass(frozen=True, eq=False)
class MeanError:
    """`b` in units of `sin = sigma / sqrt(alpha^2 + sigma^2)`, in which it is of one size at all levels, and 0 at the clean end.

    Arguments:
        half_log_snr: the levels, strictly rising, float64.
        values: `b / sin` per level and row, `(nodes, rows, *event)`: one row for all, or one a class and a last one for "no class".
        floor: the expected `|values|^2` that the finite number of draws alone would give, `(nodes, rows)`. Where `|values|^2` is not well
            above it, calibrating adds noise.
        norm: `E |eps|` of the predicted noise, `(nodes,)`.

    Raises:
        ShapeError, ArgumentError: fields that do not fit together, levels that do not rise, values that are not finite.
    """

    half_log_snr: Float[Tensor, "nodes"]
    values: Float[Tensor, "nodes rows *event"]
    floor: Float[Tensor, "nodes rows"]
    norm: Float[Tensor, "nodes"]

    def __post_init__(self) -> None:
        nodes = len(self.half_log_snr)
        if self.values.ndim < 3 or self.values.shape[:2] != self.floor.shape or {len(self.values), len(self.norm)} != {nodes}:
            shapes = (tuple(self.half_log_snr.shape), tuple(self.values.shape), tuple(self.floor.shape), tuple(self.norm.shape))
            raise ShapeError("half_log_snr, values, floor, norm", shapes, "(nodes,), (nodes, rows, *event), (nodes, rows) and (nodes,)")
        if not bool((self.half_log_snr.diff() > 0).all()) or nodes < 1 or not bool(torch.isfinite(self.values).all()):
            raise ArgumentError("half_log_snr, values", self.half_log_snr.tolist(), "levels that rise strictly, and finite values")

    def at(self, half_log_snr: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`values` at any level, `(..., rows, *event)`, linear in between; below and above the table those of its ends."""
        levels = self.half_log_snr.to(half_log_snr.device)
        values = self.values.to(half_log_snr.device)
        if len(levels) == 1:
            return values[0].expand(*half_log_snr.shape, *values.shape[1:])
        inside = half_log_snr.clamp(levels[0], levels[-1])
        right = torch.searchsorted(levels, inside).clamp(1, len(levels) - 1)
        share = (inside - levels[right - 1]) / (levels[right] - levels[right - 1])
        share = share.to(values.dtype).reshape(*share.shape, *[1] * (values.ndim - 1))
        return torch.lerp(values[right - 1], values[right], share)

    def squared(self) -> Float[Tensor, "nodes rows"]:
        """`|values|^2`, the fall of the mean squared error of the noise where `alpha^2 + sigma^2 = 1`, over `alpha^2`."""
        return self.values.flatten(2).square().sum(2)


class Calibrated(Denoiser):
    """`D(x, t, c) - b(t, c)`; labels that are negative or absent mean "no class", so both branches of classifier-free guidance are served.

    Arguments:
        inner: the denoiser.
        error: its mean error, see `sfumato.learn.mean_error`.
    """

    def __init__(self, inner: Denoiser, error: MeanError) -> None:
        self.inner, self.error, self.process = inner, error, inner.process

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        if x.shape[1:] != self.error.values.shape[2:]:
            raise ShapeError("x", tuple(x.shape), f"a batch of events of shape {tuple(self.error.values.shape[2:])}")
        alpha, sigma = self.process.levels(t)
        values = self.error.at(self.process.half_log_snr(t).expand(len(x)).to(x.device))
        size = (sigma / torch.hypot(alpha, sigma)).to(x).expand(len(x)).reshape(-1, *[1] * (x.ndim - 1))
        error = values[torch.arange(len(x), device=x.device), self._row(condition, x)]
        return self.inner.denoise(x, t, condition) - size * error.to(x.dtype)

    def _row(self, condition: Tensor | None, x: Tensor) -> Tensor:
        last = self.error.values.shape[1] - 1
        if condition is None or last == 0:
            return torch.full((len(x),), last, device=x.device)
        if condition.shape != (len(x),) or condition.is_floating_point() or bool((condition >= last).any()):
            given = f"{condition.dtype} {tuple(condition.shape)}"
            raise ArgumentError("condition", given, f"one integer label per sample below {last}, negative for no class")
        return torch.where(condition < 0, last, condition).to(x.device)
