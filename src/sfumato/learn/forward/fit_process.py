r"""A network and the process whose score it learns, trained together on the path bound.

The network says the noise, `eps` with `x = A x_0 + L eps` (Cholesky), so its score is `-L^{-T} eps`. One step of the network follows the
loss of the process as it is, one of the process, with a learning rate some ten times lower, the loss of the network as it is, through
the states that the process makes. Source: Singhal et al. 2023 (arXiv 2302.07261); Du et al. 2023 (arXiv 2206.10365).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sfumato.denoise import Network
from sfumato.errors import ArgumentError
from sfumato.learn.losses.path_bound_loss import Score, path_bound_loss
from sfumato.learn.training.descent import descend, pick_rows
from sfumato.learn.training.settings import FitSettings
from sfumato.noise import LinearSDE, convert


@runtime_checkable
class LearnedProcess(Protocol):
    """A module whose parameters make a process; without gradients (`requires_grad_(False)`) it is a fixed one."""

    def process(self) -> LinearSDE:
        """The process, differentiable in the parameters."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is learned."""


def score_of(network: Network, process: LinearSDE) -> Score:
    """The score of a network that says the noise of states, with `log(t)/4` as its noise label."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        said = network(x.to(torch.float32), (torch.log(t) / 4).to(torch.float32), None).to(x)
        return convert(process, said, "cholesky noise", "score", x, t)

    return score


def fit_process(
    learned: LearnedProcess,
    network: Network,
    data: Float[Tensor, "n *event"],
    settings: FitSettings,
    *,
    slower: int | float = 10.0,
    first: float = 1e-3,
) -> Float[Tensor, "steps"]:
    """Train both in place; the network's loss at every step, in nats.

    Arguments:
        learned: the process.
        network: on events of the state's shape, `(K, *event)`, or `event` for one channel.
        data: clean.
        settings: of the network's descent.
        slower: how many times smaller the process's learning rate is.
        first: see `path_bound_loss`.

    Raises:
        ArgumentError: a factor that is not positive.
    """
    if not slower > 0:
        raise ArgumentError("slower", slower, "a positive factor")
    moving = [p for p in learned.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(moving, settings.learning_rate / slower) if moving else None
    own = torch.Generator().manual_seed(settings.seed + 1)

    def loss(process: LinearSDE, generator: torch.Generator) -> Tensor:
        batch = data[pick_rows(len(data), settings.batch_size, generator)].to(torch.float64)
        return path_bound_loss(process, score_of(network, process), batch, generator, first=first).mean()

    def network_loss(generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            process = learned.process()
        return loss(process, generator)

    def process_step(_: int) -> None:
        if optimiser is None:
            return
        for parameter, slope in zip(moving, torch.autograd.grad(loss(learned.process(), own), moving), strict=True):
            parameter.grad = slope
        optimiser.step()

    return descend(network, network_loss, settings, after=process_step)
