"""Somebody's network as a denoiser, whatever it predicts and however it counts time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser, View, to_data
from sfumato.errors import ArgumentError
from sfumato.noise.process import Time, as_time, over_events
from sfumato.noise.scalars.scalar import ScalarProcess
from sfumato.noise.scalars.table import BetaTable

Clock = Literal["t", "index", "half_log_snr", "sigma", "ratio"]
"""What a network takes as time: our `t`, a `BetaTable`'s index, `log(alpha/sigma)`, `sigma`, or `sigma/alpha`."""

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`network(x, time, condition)`: `x` `(batch, *event)`, `time` `(batch,)`; the answer has the shape of `x`."""

OfTime = Callable[[Tensor], Tensor]
"""A function of our times `t`, float64, of any shape."""


class Wrapped(Denoiser):
    """The denoiser `D = to_data(network(scale(t) x, time(t), condition))`.

    Where what the network predicts does not determine the clean data, asking is refused (see `to_data`): at `alpha = 0` for noise, score
    and energy, at `sigma = 0` for all but data and v.

    Arguments:
        network: see `Network`. It runs in the mode (evaluation, gradients) that it is in.
        process: the process that it was trained on.
        predicts: what its answer is.
        time: a `Clock`, or a function that maps our `t` to the network's.
        scale: a function of `t` by which the network wants its input multiplied; none if not given.

    Raises:
        ArgumentError: an unknown view or clock, or the clock "index" for a process without a table.

    Example:
        >>> import torch
        >>> from sfumato.denoise import Wrapped
        >>> from sfumato.exact import Gaussian, SpectralCovariance
        >>> from sfumato.noise import FlowMatching
        >>> exact = Gaussian(torch.zeros(1, dtype=torch.float64), SpectralCovariance.isotropic(1, 0.25)).denoiser(FlowMatching())
        >>> network = lambda x, time, condition: exact.velocity(x, 1 - time.double())  # yours; it counts time from noise to data
        >>> wrapped, x = Wrapped(network, exact.process, predicts="velocity", time=lambda t: 1 - t), torch.ones(1, 1, dtype=torch.float64)
        >>> print(f"{wrapped.denoise(x, 0.3).item():.4f} {exact.denoise(x, 0.3).item():.4f}")
        0.8235 0.8235
    """

    def __init__(
        self, network: Network, process: ScalarProcess, predicts: View, time: Clock | OfTime = "t", scale: OfTime | None = None
    ) -> None:
        if predicts not in get_args(View):
            raise ArgumentError("predicts", repr(predicts), f"one of {', '.join(get_args(View))}")
        self.network, self.process, self.predicts = network, process, predicts
        self.time = time if callable(time) else _clock(time, process)
        self.scale = scale

    def denoise(self, x: Tensor, t: Time, condition: Tensor | None = None) -> Tensor:
        t = as_time(t)
        # half precision cannot tell the index 999 from 1000
        precision = torch.promote_types(x.dtype, torch.float32)
        time = self.time(t).to(device=x.device, dtype=precision).expand(x.shape[0])
        seen = x if self.scale is None else over_events(self.scale(t), x) * x
        return to_data(self.network(seen, time, condition), self.predicts, x, t, self.process)


def _clock(name: str, process: ScalarProcess) -> OfTime:
    if name == "index":
        if not isinstance(process, BetaTable):
            raise ArgumentError("time", "'index'", "a process with a table of betas (BetaTable)", f"This is {process.kind}.")
        return process.index
    clocks: dict[str, OfTime] = {"t": as_time, "half_log_snr": process.half_log_snr, "sigma": process.sigma, "ratio": process.ratio}
    if name not in clocks:
        raise ArgumentError("time", repr(name), f"one of {', '.join(get_args(Clock))}, or a function of t")
    return clocks[name]
