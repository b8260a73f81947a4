r"""The flow as an operator: from the noise to the states at several times, in one call.

A residual perceptron is asked at all M times together; after each layer its features `u (batch, M, width)` are mixed along the time axis by
a convolution in Fourier space,

    u <- u + leaky_relu( irfft( R_j rfft(u)_j, M ) ),        R complex (modes, width, width), frequencies from `modes` on cut off,

and the states are read off as what the flow of an isotropic Gaussian would make of the start, plus the network's answer:

    X(t_i) = sqrt(V_i / V_0) x + s F_i(x / sqrt(V_0)),        V_i = alpha_i^2 s^2 + sigma_i^2.

With `R = 0`, as it begins, every time is served by the perceptron alone, whose weights may come from a teacher. Source: Zheng et al. 2022
(arXiv 2211.13449), section 4; the Gaussian skip is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, silu

from sfumato.denoise.networks.mlp import ResidualMLP
from sfumato.denoise.scaled.preconditioned import noise_label
from sfumato.errors import ArgumentError
from sfumato.noise import ScalarProcess


class TimeConvolution(nn.Module):
    """`u + leaky_relu(irfft(R rfft(u), M))` along axis 1, see the module; float32 or float64, complex weights know no half precision.

    Arguments:
        width: channels.
        modes: frequencies kept, at most `M // 2 + 1`.

    Raises:
        ArgumentError: sizes that are not positive.
    """

    def __init__(self, width: int, modes: int) -> None:
        if width < 1 or modes < 1:
            raise ArgumentError("width, modes", (width, modes), "at least 1 each")
        super().__init__()
        # two real parts: optimisers and checkpoints know real tensors
        self.weight = nn.Parameter(torch.zeros(2, modes, width, width))

    def forward(self, u: Float[Tensor, "batch times width"]) -> Float[Tensor, "batch times width"]:
        return u + leaky_relu(self.convolve(u))

    def convolve(self, u: Float[Tensor, "batch times width"]) -> Float[Tensor, "batch times width"]:
        """The linear part."""
        modes, times = self.weight.shape[1], u.shape[1]
        if modes > times // 2 + 1:
            raise ArgumentError("modes", modes, f"at most {times // 2 + 1} frequencies of {times} times")
        spectrum = torch.fft.rfft(u, dim=1)[:, :modes]
        mixed = torch.einsum("bjc,jcd->bjd", spectrum, torch.complex(self.weight[0], self.weight[1]))
        # the length has to be said: odd and even M have the same number of frequencies
        return torch.fft.irfft(mixed, n=times, dim=1)


class FlowOperator(nn.Module):
    """The operator of the module's head.

    Arguments:
        network: a perceptron without classes, e.g. a teacher's; trained on.
        process: of the flow.
        start: the time of the noise.
        times: `t_1 > ... > t_M`, below the start; the last one is the sample's.
        sigma_data: the data's standard deviation `s`.
        modes: frequencies that the convolutions keep; 0 for no convolutions.

    Raises:
        ArgumentError: a network with classes, times that do not fall from the start, more modes than frequencies.
    """

    def __init__(
        self, network: ResidualMLP, process: ScalarProcess, start: float, times: Sequence[float], sigma_data: float, modes: int = 2
    ) -> None:
        nodes = [start, *times]
        if network.classes is not None:
            raise ArgumentError("network", f"one with {network.classes} classes", "an unconditional network")
        if len(nodes) < 2 or not all(0 <= s < t <= 1 for t, s in pairwise(nodes)):
            raise ArgumentError("start, times", nodes, "at least one time, falling strictly in [0, 1]")
        if not 0 <= modes <= len(times) // 2 + 1:
            raise ArgumentError("modes", modes, f"0 to {len(times) // 2 + 1} frequencies")
        if not 0 < sigma_data < math.inf:
            raise ArgumentError("sigma_data", sigma_data, "a positive standard deviation")
        super().__init__()
        self.network, self.process, self.start, self.times, self.sigma_data = network, process, start, tuple(times), sigma_data
        kept = network.first.weight
        self.mixing = nn.ModuleList(TimeConvolution(network.width, modes).to(kept) for _ in range(network.depth if modes else 0))

    def forward(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch times *event"]:
        """The states at all times, from noise at the start."""
        alpha, sigma = self.process.levels(torch.tensor([self.start, *self.times], dtype=torch.float64))
        total = (alpha**2 * self.sigma_data**2 + sigma**2).sqrt().to(x)
        label = noise_label(alpha[1:], sigma[1:]).to(x)
        net, count = self.network, len(self.times)
        shifts = net.shifts(silu(net.embed(net.features(label)))).chunk(net.depth, dim=1)
        h = net.first(x.flatten(1) / total[0])[:, None].expand(-1, count, -1)
        for n, (layer, shift) in enumerate(zip(net.layers, shifts, strict=True)):
            h = h + silu(layer(h) + shift)
            if self.mixing:
                h = self.mixing[n](h)
        gain = (total[1:] / total[0]).reshape(1, count, *[1] * (x.ndim - 1))
        return gain * x[:, None] + self.sigma_data * net.last(h).reshape(len(x), count, *x.shape[1:])
