r"""Affine maps that are diagonal in a basis: what the probability flow of a Gaussian is, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact.spectral.basis import Basis


@dataclass(frozen=True, eq=False)
class AffineFlow:
    r"""`x -> shift_out + U diag(g) U^T (x - shift_in) + g_rest (I - U U^T)(x - shift_in)`.

    Arguments:
        basis: the columns `U`.
        spectrum: the gains `g` and, if there is a complement, `g_rest`: float64 `(modes,)`, or `(batch, modes)` for one map per sample.
        shift_in, shift_out: `(dim,)`, or one per sample.
    """

    basis: Basis
    spectrum: Float[Tensor, "*maps modes"]
    shift_in: Float[Tensor, "*starts dim"]
    shift_out: Float[Tensor, "*ends dim"]

    @property
    def gains(self) -> Tensor:
        """The gain per mode, `(rank,)`."""
        return self.spectrum[..., : self.basis.rank]

    @property
    def rest(self) -> Tensor:
        """The gain on the complement: a scalar, 1 if there is none."""
        return self.spectrum[..., self.basis.rank] if self.basis.codim else torch.ones_like(self.spectrum[..., 0])

    def __call__(self, x: Float[Tensor, " batch *event"]) -> Float[Tensor, " batch *event"]:
        """The image of `x`, computed in the basis's dtype and returned in `x`'s.

        Raises:
            ShapeError: `x` has another number of elements per sample than the basis has dimensions.
        """
        if x.ndim < 1 or x.shape[1:].numel() != self.basis.dim:
            raise ShapeError("x", tuple(x.shape), f"(batch, *event) with {self.basis.dim} elements per event")
        flat = x.reshape(len(x), self.basis.dim).to(self.basis.dtype)
        return (self.shift_out + self.basis.scale(self.spectrum, flat - self.shift_in)).to(x.dtype).reshape(x.shape)

    def then(self, other: AffineFlow) -> AffineFlow:
        """This map followed by `other`, which must be diagonal in the same basis (the same object).

        Raises:
            ArgumentError: `other` has another basis.
        """
        if other.basis is not self.basis:
            raise ArgumentError(
                "other", "a map in another basis", "one in the same basis object", "Compose by calling one after the other."
            )
        single = self.shift_out.ndim == 1
        out = other(self.shift_out[None] if single else self.shift_out)
        return AffineFlow(self.basis, self.spectrum * other.spectrum, self.shift_in, out[0] if single and out.shape[0] == 1 else out)

    def inverse(self) -> AffineFlow:
        """The map backwards.

        Raises:
            ArgumentError: a gain is 0.
        """
        if bool((self.spectrum == 0).any()):
            raise ArgumentError("flow", "a map that sends some direction to 0", "an invertible map")
        return AffineFlow(self.basis, 1 / self.spectrum, self.shift_out, self.shift_in)

    @property
    def logdet(self) -> Tensor:
        """`log |det|` of the map: a float64 scalar, or one per sample; `-inf` if a gain is 0."""
        return self.basis.total(torch.log(self.spectrum.abs()))
