"""What a process with more channels costs beside a scalar one: training steps and samples, with a perceptron as the network.

The scalar side is the everyday path (`DenoisingLoss`, `Program`) under a variance-preserving process; the other one the generic path
(`StateLoss`, `LinearProgram`) under critically damped Langevin dynamics, whose states have two channels. Both networks have the same
hidden layers. The target is 1.2 times the number of channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.figure import Figure, Row, alternate, at_most, paired_ratio, timed
from sfumato.denoise import Preconditioned, ResidualMLP, StateDenoiser
from sfumato.learn import DenoisingLoss, StateLoss
from sfumato.noise import VariancePreserving, cld
from sfumato.sample import LinearDDIM, ddim, run, run_linear, uniform_log_snr, uniform_time
from sfumato.seeds import noise

EVENT = (1, 16, 16)
BATCH = 256
STEPS = 20
LIMIT = 1.2


def measure(quick: bool = False) -> Figure:
    rounds = 5 if quick else 31
    rows: list[Row] = []
    facts = {}
    for what, scalar, augmented in (("a training step", _train_scalar(), _train_two()), ("a sample", _sample_scalar(), _sample_two())):
        seconds = alternate({"scalar": timed(scalar), "augmented": timed(augmented)}, rounds)
        ratio = paired_ratio(seconds["augmented"], seconds["scalar"]) / 2
        rows.append(at_most(f"{what} with two channels, over twice a scalar one", ratio, LIMIT, "critically damped Langevin"))
        facts[what] = seconds
    return Figure(rows, facts)


def _network(channels: int) -> ResidualMLP:
    return ResidualMLP((channels, *EVENT[1:]), 512, 4)


def _step(module: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], object]:
    optimiser = torch.optim.Adam(module.parameters(), 1e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def _clean() -> torch.Tensor:
    return noise(0, BATCH, EVENT).draw(0)


def _train_scalar() -> Callable[[], object]:
    model, clean, loss = Preconditioned(_network(1), VariancePreserving(), 1.0), _clean(), DenoisingLoss()

    def value() -> torch.Tensor:
        examples = loss.examples(model.process, clean, torch.Generator().manual_seed(0))
        return loss(model, model.process, examples).mean()

    return _step(model, value)


def _train_two() -> Callable[[], object]:
    network, process, clean, loss = _network(2), cld(), _clean(), StateLoss("cholesky noise")

    def value() -> torch.Tensor:
        examples = loss.examples(process, clean, torch.Generator().manual_seed(0))
        return loss(lambda x, t, y: network(x.flatten(1, 2), t.to(x)).unflatten(1, (2, 1)), examples).mean()

    return _step(network, value)


def _sample_scalar() -> Callable[[], object]:
    process = VariancePreserving()
    model = Preconditioned(_network(1), process, 1.0).eval()
    program, x = ddim().compile(process, uniform_log_snr(process, STEPS)), _clean()
    return torch.no_grad()(lambda: run(program, model.denoise, x))


def _sample_two() -> Callable[[], object]:
    process, network = cld(), _network(2).eval()
    program = LinearDDIM().compile(process, uniform_time(STEPS, end=1e-3))
    model = StateDenoiser(lambda x, t, y: network(x.flatten(1, 2), t.to(x)).unflatten(1, (2, 1)), process, "cholesky noise")
    x = process.prior_sample(noise(1, BATCH, (2, *EVENT)).draw(0))
    return torch.no_grad()(lambda: run_linear(program, model.denoise, x))
