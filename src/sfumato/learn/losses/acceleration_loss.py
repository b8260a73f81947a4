r"""Learning an acceleration: the regression of `a / z(t)`, and the belief about the data that the answer stands for.

    L = E sqrt(1/t) |F(m, c) - a / z(t)|^2,        m ~ q(m_t | x_0),    a the acceleration towards x_0,    c = log(t)/4,

`t` even in `[first, 1)`. The regression on `(m, t)` is unbiased, so at the optimum `z F` is the acceleration of the exact belief. Source:
Chen et al. 2024 (arXiv 2310.07805).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sfumato.denoise import Network
from sfumato.errors import ArgumentError
from sfumato.noise import Time, as_time, over_events
from sfumato.sample.linear.acceleration import Acceleration


def acceleration_loss(
    network: Network, view: Acceleration, x0: Float[Tensor, "batch *event"], generator: torch.Generator, *, first: float = 1e-3
) -> Float[Tensor, ""]:
    """The loss of one batch, to be descended with `descend`.

    Arguments:
        network: `F`, on states `(2, *event)`; its second channel is the answer.
        view: which acceleration, of the SDE or of the flow.
        x0: the data.
        generator: of times and noise, on the CPU.
        first: the earliest time, below which the acceleration diverges.

    Raises:
        ArgumentError: a first time outside (0, 1).
    """
    if not 0 < first < 1:
        raise ArgumentError("first", first, "a time in (0, 1)")
    t = first + (1 - first) * torch.rand(len(x0), generator=generator, dtype=torch.float64)
    noise = torch.randn(view.process.state_shape(x0), generator=generator, dtype=x0.dtype).to(x0.device)
    state = view.process.sample(x0, t, noise)
    target = over_events(1 / view.scale(t), x0) * view.of(x0, state, t)
    error = _said(network, state, t) - target
    return (over_events(t.rsqrt(), error) * error.square()).mean()


class AcceleratedBelief:
    """The belief of a network trained on `acceleration_loss`: `denoise(state, t)` as samplers ask for it.

    Arguments:
        network: `F`.
        view: what it was trained on.
    """

    def __init__(self, network: Network, view: Acceleration) -> None:
        self.network, self.view = network, view

    def denoise(self, x: Tensor, t: Time) -> Tensor:
        """`E[x_0 | m_t = x]`, `(batch, *event)`."""
        times = as_time(t).expand(len(x))
        said = _said(self.network, x, times)
        return self.view.data(over_events(self.view.scale(times), said) * said, x, times)


def _said(network: Network, state: Tensor, t: Tensor) -> Tensor:
    answer: Tensor = network(state.to(torch.float32), (torch.log(t) / 4).to(torch.float32), None)
    return answer[:, 1].to(state.dtype)
