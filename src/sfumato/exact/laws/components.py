r"""The covariances of a mixture's components, evaluated together.

Components may differ in rank: the systems of lower rank are padded with columns of zeros, which count 0 times in a log-determinant.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from sfumato.errors import ArgumentError
from sfumato.exact.spectral.basis import MatrixBasis
from sfumato.exact.spectral.covariance import SpectralCovariance


class Components:
    """K spectral covariances of one dimension, dtype and device.

    `eigenvalues` `(K, r)` (1 where padded), `counts` `(K, r)` (0 where padded), `rest` and `codim` `(K,)`; `rest` is 1 where there is no
    complement. If every basis is a matrix, projecting on all of them is one product with the `(dim, K r)` matrix of all columns.

    Raises:
        ArgumentError: none, or of different dimensions, dtypes or devices.
    """

    def __init__(self, covariances: Sequence[SpectralCovariance]) -> None:
        kinds = {(c.dim, c.dtype, c.device) for c in covariances}
        if len(kinds) != 1:
            raise ArgumentError("covariances", f"{len(covariances)} of kinds {sorted(map(str, kinds))}", "one dimension, dtype and device")
        self.bases = [c.basis for c in covariances]
        self.rank = max(c.rank for c in covariances)
        self.eigenvalues = torch.stack([pad(c.eigenvalues, (0, self.rank - c.rank), value=1.0) for c in covariances])
        self.counts = torch.stack([pad(torch.ones_like(c.eigenvalues), (0, self.rank - c.rank)) for c in covariances])
        self.codim = self.counts.new_tensor([c.basis.codim for c in covariances])
        self.rest = self.counts.new_tensor([c.rest if c.basis.codim else 1.0 for c in covariances])
        self.thin = bool((self.codim > 0).any())
        self.singular = any(c.singular for c in covariances)
        self.columns: Tensor | None = None
        if all(isinstance(b, MatrixBasis) for b in self.bases):
            stacked = torch.stack([pad(b.columns(), (0, self.rank - b.rank)) for b in self.bases], 1)
            self.columns = stacked.reshape(covariances[0].dim, -1)

    def project_own(self, means: Tensor) -> Tensor:
        """`U_k^T m_k`, `(K, r)`."""
        return torch.cat([pad(b.project(m[None]), (0, self.rank - b.rank)) for b, m in zip(self.bases, means, strict=True)])

    def project(self, x: Tensor, centres: Tensor, alpha: Tensor, scale: Tensor) -> Tensor:
        """`scale_k U_k^T (x - alpha m_k)`, `(batch, K, r)`, given the projected means `centres` `(K, r)`.

        Arguments:
            x: `(batch, dim)`.
            alpha, scale: scalar and `(K, r)`, or one of each per sample.
        """
        shape = (len(x), *centres.shape)
        if self.columns is not None and scale.ndim == 2:
            scale = scale.to(x.dtype)
            offset = (-alpha.to(x.dtype) * scale * centres).reshape(-1)
            return torch.addmm(offset, x, self.columns * scale.reshape(-1)).reshape(shape)
        if self.columns is not None:
            modes = (x @ self.columns).reshape(shape)
        else:
            modes = torch.stack([pad(b.project(x), (0, self.rank - b.rank)) for b in self.bases], 1)
        return (modes - alpha.to(x.dtype)[..., None, None] * centres) * scale.to(x.dtype)

    def lift(self, modes: Tensor, scale: Tensor) -> Tensor:
        """`sum_k U_k (scale_k modes_k)`, `(batch, dim)`, with `scale` `(K, r)` or `(batch, K, r)`."""
        scale = scale.to(modes.dtype)
        if self.columns is None:
            scaled = modes * scale
            return torch.stack([b.lift(scaled[:, k, : b.rank]) for k, b in enumerate(self.bases)]).sum(0)
        if scale.ndim == 2:
            return modes.flatten(1) @ (self.columns * scale.reshape(-1)).T
        return (modes * scale).flatten(1) @ self.columns.T
