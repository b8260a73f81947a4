r"""Gaussian preconditioning: the scalings of a Gaussian fit to the data, mode by mode.

With `GaussianScalings(law)` the network starts at the posterior mean of that law, i.e. at the best linear denoiser of data with its mean
and covariance, and has only to learn what the Gaussian does not explain; in every eigenmode its input and its target have unit variance
from the first step on. Full, low-rank with a rest, diagonal and cosine covariances are the covariance's own matter.

Source: Wang & Vastola 2023 (arXiv 2311.10892) for the best linear denoiser; the scalings are those of Karras et al. 2022
(arXiv 2206.00364, table 1) with `sigma_data^2` replaced by the mode's variance.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoise.scaled.scalings import Scalings, Term
from sfumato.errors import ArgumentError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.exact.spectral.basis import Basis, CosineBasis, IdentityBasis, MatrixBasis


@dataclass(frozen=True)
class _Cast:
    """What is asked for at every step, in one dtype on one device."""

    mean: Tensor
    basis: Basis
    spectrum: Tensor

    @classmethod
    def of(cls, law: Gaussian) -> _Cast:
        return cls(law.mean.reshape(law.event_shape), law.covariance.basis, law.covariance.spectrum)


def _full_precision(device: str) -> AbstractContextManager[object]:
    """Mixed precision is for the network: the known part keeps its digits. (Entering `autocast` costs as much as the product inside.)"""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


class GaussianScalings(Scalings):
    """`mu` and `Sigma` of a Gaussian law, no eigenvalue under `floor`.

    Arguments:
        law: usually `sfumato.exact.fit_gaussian(...)` of the training data.
        floor: eigenvalues are raised to it; needed where the law has directions without variance (pixels that never change): the
            network could say nothing there, and its input would be pure noise.

    Raises:
        ArgumentError: an eigenvalue that is 0 also after the floor, or a negative floor.
    """

    kind = "gaussian"

    def __init__(self, law: Gaussian, floor: float = 0.0) -> None:
        if not floor >= 0:
            raise ArgumentError("floor", floor, "a variance of at least 0")
        covariance = law.covariance.map(lambda v: v.clamp(min=floor))
        if covariance.singular:
            raise ArgumentError("floor", floor, "a positive floor", "The law has directions without variance.")
        if isinstance(covariance.basis, MatrixBasis):
            # products of a strided matrix round otherwise than those of the contiguous one that a file gives back
            basis = MatrixBasis(covariance.basis.matrix.contiguous(), check=False)
            covariance = SpectralCovariance(basis, covariance.eigenvalues, covariance.rest)
        self.law = Gaussian(law.mean, covariance, law.event_shape)
        self._cast = _Cast.of(self.law)

    def _like(self, x: Tensor) -> _Cast:
        """The law in `x`'s dtype on its device, kept from one call to the next; always cast from the original."""
        if self._cast.basis.dtype != x.dtype or self._cast.basis.device != x.device:
            self._cast = _Cast.of(self.law.to(x.dtype, x.device))
        return self._cast

    def mean_like(self, x: Float[Tensor, "batch *event"]) -> Tensor:
        if x.shape[1:] != self.law.event_shape:
            raise ShapeError("x", tuple(x.shape), f"a batch of events of shape {self.law.event_shape}")
        return self._like(x).mean

    def spectrum_like(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " modes"]:
        return self._like(x).spectrum

    def project(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch rank"]:
        with _full_precision(x.device.type):
            return self._like(x).basis.project(x.flatten(1))

    def combine(self, *terms: Term) -> Float[Tensor, "batch *event"]:
        x = terms[0][1]
        with _full_precision(x.device.type):
            return self._like(x).basis.combine(*[(gains, y.flatten(1), c) for gains, y, c in terms]).view(x.shape)

    def to_config(self) -> dict[str, Any]:
        basis = self.law.covariance.basis
        names = {MatrixBasis: "matrix", IdentityBasis: "identity", CosineBasis: "cosine"}
        config: dict[str, Any] = {"kind": self.kind, "basis": names[type(basis)], "event_shape": list(self.law.event_shape)}
        if isinstance(basis, CosineBasis):
            config |= {"shape": list(basis.shape), "channels": basis.channels}
        return config

    def tensors(self) -> dict[str, Tensor]:
        covariance = self.law.covariance
        out = {"mean": self.law.mean, "spectrum": covariance.spectrum}
        if isinstance(covariance.basis, MatrixBasis):
            out["columns"] = covariance.basis.matrix
        return out


def gaussian_from_config(config: dict[str, Any], tensors: dict[str, Tensor]) -> GaussianScalings:
    """The scalings that `to_config` and `tensors` wrote down, bit for bit.

    Raises:
        KeyError, ArgumentError: something is missing, or is not what it should be.
    """
    mean, spectrum = tensors["mean"], tensors["spectrum"]
    basis: Basis
    if config["basis"] == "matrix":
        basis = MatrixBasis(tensors["columns"])
    elif config["basis"] == "identity":
        basis = IdentityBasis(mean.numel(), mean.dtype)
    elif config["basis"] == "cosine":
        basis = CosineBasis(config["shape"], channels=config["channels"], dtype=mean.dtype)
    else:
        raise ArgumentError("scalings.basis", repr(config["basis"]), "matrix, identity or cosine")
    if spectrum.shape != (basis.rank + bool(basis.codim),):
        raise ArgumentError(
            "scalings.spectrum", tuple(spectrum.shape), f"{basis.rank} variances, and one more for the rest if there is any"
        )
    rest = float(spectrum[basis.rank]) if basis.codim else 0.0
    return GaussianScalings(Gaussian(mean, SpectralCovariance(basis, spectrum[: basis.rank], rest), config["event_shape"]))
