r"""The process of a model that was trained on a table of betas, as `diffusers` pipelines are.

Node `i` of `N` stands at `t = (i + 1)/N` with `alpha^2 = prod_{j<=i} (1 - beta_j)`, and `t = 0` is clean. Between nodes `log(alpha)` is
linear in `t`, i.e. beta is constant there, so the interpolation is itself an exact variance-preserving process. Source: Lu et al. 2022
(arXiv 2206.00927), appendix D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sfumato.errors import ArgumentError
from sfumato.noise.process import Time, as_time
from sfumato.noise.scalars.scalar import ScalarProcess


@dataclass(frozen=True)
class BetaTable(ScalarProcess):
    """A variance-preserving process with piecewise constant betas.

    Arguments:
        betas: the variances `beta_0, ..., beta_{N-1}` of the training chain, each in (0, 1); the last may be 1 (zero terminal SNR).
    """

    betas: tuple[float, ...]
    kind: ClassVar[str] = "beta-table"
    _nodes: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        betas = torch.tensor([float(b) for b in self.betas], dtype=torch.float64)
        inside = (betas > 0) & (betas < 1)
        if betas.numel() == 0 or not bool(inside[:-1].all()) or not 0 < float(betas[-1]) <= 1:
            raise ArgumentError("betas", f"{betas.numel()} values", "variances in (0, 1), the last at most 1")
        object.__setattr__(self, "betas", tuple(betas.tolist()))
        log_alpha = torch.cat([betas.new_zeros(1), torch.cumsum(torch.log1p(-betas), 0) / 2])
        object.__setattr__(self, "_nodes", log_alpha)

    @classmethod
    def linear(cls, n: int = 1000, first: float = 1e-4, last: float = 0.02) -> BetaTable:
        """`n` betas, equally spaced from `first` to `last` (Ho et al. 2020, arXiv 2006.11239)."""
        return cls(tuple(torch.linspace(first, last, n, dtype=torch.float64).tolist()))

    @classmethod
    def scaled_linear(cls, n: int = 1000, first: float = 0.00085, last: float = 0.012) -> BetaTable:
        """`n` betas whose square roots are equally spaced (latent diffusion, Rombach et al. 2022, arXiv 2112.10752)."""
        return cls(tuple((torch.linspace(math.sqrt(first), math.sqrt(last), n, dtype=torch.float64) ** 2).tolist()))

    @property
    def steps(self) -> int:
        """The number `N` of training steps."""
        return len(self.betas)

    def index(self, t: Time) -> Tensor:
        """The (fractional) training index `t N - 1` that a network trained on the table expects."""
        return as_time(t) * self.steps - 1

    def _cell(self, t: Tensor) -> tuple[Tensor, Tensor]:
        position = t * self.steps
        cell = position.floor().clamp(0, self.steps - 1).long()
        return cell, position - cell

    def _log_alpha(self, t: Tensor) -> Tensor:
        nodes = self._nodes.to(t.device)
        cell, part = self._cell(t)
        low, high = nodes[cell], nodes[cell + 1]
        # lerp would turn the limit log(0) at the far node into NaN at part = 0
        return torch.where(part == 0, low, low + part * (high - low))

    def alpha(self, t: Time) -> Tensor:
        return torch.exp(self._log_alpha(as_time(t)))

    def sigma(self, t: Time) -> Tensor:
        return torch.sqrt(0.0 - torch.expm1(2 * self._log_alpha(as_time(t))))

    def levels(self, t: Time) -> tuple[Tensor, Tensor]:
        log_alpha = self._log_alpha(as_time(t))
        return torch.exp(log_alpha), torch.sqrt(0.0 - torch.expm1(2 * log_alpha))

    def half_log_snr(self, t: Time) -> Tensor:
        log_alpha = self._log_alpha(as_time(t))
        return log_alpha - 0.5 * torch.log(0.0 - torch.expm1(2 * log_alpha))

    def time(self, half_log_snr: Time) -> Tensor:
        lam = torch.as_tensor(half_log_snr, dtype=torch.float64)
        depth = 0.5 * softplus(-2 * lam, threshold=700)
        nodes = -self._nodes.to(lam.device)
        cell = (torch.searchsorted(nodes, depth.contiguous()) - 1).clamp(0, self.steps - 1)
        low, high = nodes[cell], nodes[cell + 1]
        part = torch.where(torch.isinf(high), torch.isinf(depth).to(torch.float64), (depth - low) / (high - low))
        return ((cell + part) / self.steps).clamp(0.0, 1.0)

    def drift(self, t: Time) -> Tensor:
        nodes = self._nodes.to(t.device if isinstance(t, Tensor) else "cpu")
        cell, _ = self._cell(as_time(t))
        return (nodes[cell + 1] - nodes[cell]) * self.steps

    def diffusion_squared(self, t: Time) -> Tensor:
        return -2 * self.drift(t)

    def to_dict(self) -> dict[str, object]:
        return {"kind": self.kind, "betas": list(self.betas)}
