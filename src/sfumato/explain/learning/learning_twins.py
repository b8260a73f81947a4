"""Twins for questions about training: the same network untrained, and the same data without what is asked about."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.denoise import Network, Preconditioned, network_from_config
from sfumato.errors import ArgumentError
from sfumato.exact import Gaussian


def untrained_twin(denoiser: Preconditioned) -> Preconditioned:
    """A denoiser of the same architecture, process and scalings with the initial weights of the architecture's own seed 0.

    Raises:
        ArgumentError: a network that cannot be built again (not a `Network`).
    """
    network = denoiser.network
    if not isinstance(network, Network):
        raise ArgumentError("denoiser.network", type(network).__name__, "a sfumato.denoise.Network, which can be built again")
    parameter = next(network.parameters())
    fresh = network_from_config(network.to_config()).to(parameter.device, parameter.dtype)
    return Preconditioned(fresh, denoiser.process, denoiser.scalings)


def gaussian_twin(data: Dataset, law: Gaussian, n: int = 20_000, seed: int = 0) -> Dataset:
    """Data with nothing finer to learn: `n` samples of the Gaussian to learn from, and `n // 6` to test on."""
    whole = law.to(torch.float32).sample(n + max(1, n // 6), seed)
    return Dataset(f"Gaussian of {data.name}", whole[:n], whole[n:])


def whitened_twin(data: Dataset, law: Gaussian, variance: float = 1.0, floor: float = 1e-3) -> tuple[Dataset, Gaussian]:
    """The same data with one variance in every direction, so that none is to be learned before another, and their Gaussian.

    The Gaussian's components are the law's, in the law's order: along them `mode_variances` tells both runs alike.

    Arguments:
        data: what is whitened, about the law's mean.
        law: the Gaussian fitted to the data.
        variance: what every direction gets; an untrained network of scale `sigma_data` already generates about `sigma_data^2` in each.
        floor: directions with less than this share of the largest variance are removed, since they hold little but rounding.

    Raises:
        ArgumentError: a variance that is not positive, a floor outside (0, 1).
    """
    if not (variance > 0 and 0 < floor < 1):
        raise ArgumentError("variance, floor", (variance, floor), "a positive variance and a share in (0, 1)")
    spectrum = law.covariance.spectrum
    kept = spectrum > floor * float(spectrum.max())
    gains = torch.where(kept, (variance / torch.where(kept, spectrum, 1.0)).sqrt(), 0.0)

    def white(x: Tensor) -> Tensor:
        away = x.flatten(1).to(law.dtype) - law.mean
        return (law.mean + law.covariance.apply(lambda _: gains, away)).to(x.dtype).reshape(x.shape)

    labels = (data.train_labels, data.test_labels, data.classes)
    whitened = law.covariance.map(lambda _: torch.where(kept, variance, 0.0).to(spectrum))
    return Dataset(f"whitened {data.name}", white(data.train), white(data.test), *labels), Gaussian(law.mean, whitened, law.event_shape)
