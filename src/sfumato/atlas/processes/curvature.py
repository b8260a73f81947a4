"""038: an encoder that is learned with the flow makes generative paths straight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control
from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.exact import CoupledGaussian, GaussianMixture, SpectralCovariance
from sfumato.explain import straightness
from sfumato.learn import FitSettings, GaussianEncoder, coupling_costs, fit_coupling
from sfumato.metrics import energy_distance
from sfumato.noise import FlowMatching
from sfumato.sample import flow

_OPTIMA = {10: (0.054, 0.757, 0.81), 1: (0.566, 0.400, 0.43), 0.1: (0.950, 0.049, 0.054), 0.01: (0.995, 0.0050, 0.0055)}
"""By beta at a standard deviation of 1/2: the best correlation, its cost, and the error of the variance after 2 Euler steps."""


def _minimum(beta: float, free: bool) -> CoupledGaussian:
    """The linear encoder of the least `V + beta KL` by gradient descent: slope and spread both free, or the aggregate held at the prior."""
    values = torch.tensor([0.1, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([values], max_iter=40, line_search_fn="strong_wolfe")

    def world() -> CoupledGaussian:
        rho = torch.tanh(values[0])
        return CoupledGaussian(0.5, values[0], values[1].exp()) if free else CoupledGaussian(0.5, rho / 0.5, torch.sqrt(1 - rho**2))

    def objective() -> Tensor:
        optimizer.zero_grad()
        made = world()
        loss = made.cost + beta * made.divergence
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    return world()


def _best(beta: int | float, std: float) -> float:
    """The best correlation among the encoders whose aggregate is the prior, on a grid."""
    rho = torch.linspace(0, 0.9999, 20_001, dtype=torch.float64)
    cost = std * torch.sqrt(1 - rho**2) * torch.acos(rho) - beta / 2 * torch.log1p(-(rho**2))
    return float(rho[cost.argmin()])


def closed_form() -> Iterator[Check]:
    """Gaussian data: the best linear coupling, its cost, and two Euler steps of its flow."""
    for beta, (rho, cost, error) in _OPTIMA.items():
        world = CoupledGaussian.of_correlation(0.5, _best(beta, 0.5))
        yield close(f"best correlation, beta {beta}", _best(beta, 0.5), rho, absolute=1e-3)
        yield close(f"its cost, beta {beta}", float(world.cost), cost, absolute=6e-4)
        yield close(f"variance lost in 2 Euler steps, beta {beta}", 1 - world.euler_variance(2) / 0.25, error, absolute=0.02)
    for beta, rho in ((10, 0.021), (1, 0.251), (0.1, 0.878), (0.01, 0.988)):
        yield close(f"best correlation at a deviation of 0.2, beta {beta}", _best(beta, 0.2), rho, absolute=1e-3)
    lost = 1 - CoupledGaussian.of_correlation(0.5, 0.0).euler_variance(2) / 0.25
    yield control(at_most("variance lost in 2 Euler steps, independent coupling", lost, 0.08))


def encoders() -> Iterator[Check]:
    """Linear encoders trained by gradient descent."""
    for beta in (10, 1, 0.1):
        held, free = _minimum(beta, False), _minimum(beta, True)
        best = _best(beta, 0.5)
        yield close(f"correlation of the trained encoder, beta {beta}", float(held.slope.detach()) * 0.5, best, relative=0.01)
        gained = float((free.cost + beta * free.divergence - held.cost - beta * held.divergence).detach())
        yield at_most(f"objective gained by leaving the prior, beta {beta}", gained, 0.0)
        yield at_most(f"variance of the free encoder's aggregate, beta {beta}", float(free.aggregate_variance.detach()), 1.0)


def trained() -> Iterator[Check]:
    """Two modes in the plane: flows trained with couplings of their own."""
    means = torch.tensor([[-1.5, 0.0], [1.5, 0.0]], dtype=torch.float64)
    law = GaussianMixture(None, means, [SpectralCovariance.isotropic(2, 0.04)] * 2)
    data, fresh = law.sample(4096, 0).float(), law.sample(1000, 1).float()
    start = torch.randn(1000, 2, generator=torch.Generator().manual_seed(2))
    t = (torch.arange(1000, dtype=torch.float64)[torch.randperm(1000, generator=torch.Generator().manual_seed(4))] + 0.5) / 1000
    found, distance, aggregate, matching = {}, {}, {}, {}
    for beta in (None, 0.1, 0.0):
        denoiser = Preconditioned(ResidualMLP((2,), 48, 2, seed=0), FlowMatching(), 1.1)
        encoder = None if beta is None else GaussianEncoder((2,), 48, 2, seed=1)
        fit_coupling(denoiser, encoder, data, FitSettings(500, 128, 3e-3, warmup=0, seed=3), beta or 0.0)
        found[beta] = straightness(denoiser, start[:500], 16).curvature
        with torch.no_grad():
            samples = flow(denoiser, start[:500], 1.0, 1e-3, tolerance=1e-3).end
            matching[beta] = float(coupling_costs(denoiser, encoder, fresh, t, start).matching.mean())
            code = start if encoder is None else encoder.encode(fresh, start)
        distance[beta] = energy_distance(fresh, samples).value
        aggregate[beta] = _from_prior(code)
    yield at_most("curvature, learned coupling over independent", found[0.1] / found[None], 0.5)
    yield at_most("divergence of the aggregate's moments from the prior, beta 0.1, nats", aggregate[0.1], 0.5)
    yield control(at_most("the same, beta 0", aggregate[0.0], 0.5))
    yield at_least("energy distance of samples, beta 0 over beta 0.1", distance[0.0] / distance[0.1], 5)
    yield at_most("matching cost of its own pairs, beta 0 over independent", matching[0.0] / matching[None], 0.1)


def _from_prior(code: Tensor) -> float:
    """`KL` of the Gaussian of the codes' moments from `N(0, I)`: a lower bound on that of their law."""
    mean, covariance = code.mean(0).double(), torch.cov(code.T.double())
    return 0.5 * float(covariance.trace() + mean.square().sum() - len(mean) - torch.logdet(covariance))


def figure(ax: Any) -> None:
    """How one standard deviation of the noise moves to the data: along the exact flow, and in two Euler steps. With the learned coupling
    (beta 0.1) the path is nearly straight and the steps end where it does; with independent pairs it bends and they miss.
    """
    t = torch.linspace(1, 0, 101, dtype=torch.float64)
    for rho, colour, label in ((_best(0.1, 0.5), "C0", "learned coupling"), (0.0, "C1", "independent pairs")):
        exact = torch.sqrt(0.25 * (1 - t) ** 2 + t**2 + rho * t * (1 - t))
        first, second = (1 - CoupledGaussian.of_correlation(0.5, rho).velocity_gain(u) / 2 for u in (1.0, 0.5))
        ax.plot(t.tolist(), exact.tolist(), color=colour, label=f"{label}, flow")
        ax.plot([1, 0.5, 0], [1, first, first * second], "o--", color=colour, label=f"{label}, 2 Euler steps")
    ax.set(xlabel="time, from noise on the left to data", ylabel="standard deviation")
    ax.invert_xaxis()
    ax.legend()


ROW = Row(
    id="038",
    slug="curvature",
    title="Minimizing Trajectory Curvature of ODE-based Generative Models",
    authors="Sangyun Lee, Beomsu Kim, Jong Chul Ye",
    year=2023,
    arxiv="2301.12003",
    claim="Learning which noise belongs to which data makes the generative paths straight, so that a few Euler steps suffice; the "
    "divergence from the prior is what keeps samples right, though at a finite weight the aggregate is not quite the prior.",
    reproduced="yes",
    checks=(closed_form, encoders, trained),
    figure=figure,
)
