"""069: likelihoods of the probability flow, and four devices that make them better: weights, times, a second-order term, dequantisation."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.atlas.row import Check, Row, at_least, at_most, close, control, within
from sfumato.atlas.solvers.worlds import PROCESS, g4
from sfumato.data import Dequantisation, GaussianDequantisation, TruncatedNormalDequantisation, UniformDequantisation
from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.denoiser import Denoiser
from sfumato.exact import GaussianMixture, SpectralCovariance
from sfumato.learn import DenoisingLoss, EvenTimes, FitSettings, LikelihoodTimes, LikelihoodWeight, SecondOrderLoss, fit
from sfumato.sample import divergence_of, log_likelihood
from sfumato.seeds import noise

_LOW, _HIGH = -2.5, 6.65
"""Half the log-SNR at `gamma = 5` and `gamma = -13.3`."""
_PARTS = ((0.6, -0.5), (0.4, 0.4))
"""Weights and means of two narrow components on a line; the weights are those that give the card's entropy."""
_BITS = 1 / math.log(2)


@functools.cache
def _line() -> GaussianMixture:
    """The law of `_PARTS`, with the variance 0.003."""
    means = torch.tensor([[m] for _, m in _PARTS], dtype=torch.float64)
    return GaussianMixture([w for w, _ in _PARTS], means, [SpectralCovariance.isotropic(1, 0.003)] * 2)


def likelihoods() -> Iterator[Check]:
    """Bits per dimension of G4 by the flow, against its density."""
    t = float(PROCESS.time_of_ratio(1e-2))
    x = float(PROCESS.alpha(t)) * g4().sample(30, 0)
    exact = -float(g4().through(PROCESS, t).log_prob(x).mean()) / 2 * _BITS
    belief = g4().denoiser(PROCESS)
    whole = log_likelihood(belief, x, t).mean_bits_per_dimension().value
    yield at_most("bits per dimension, exact divergence, error", abs(whole - exact), 1e-3)
    probed = log_likelihood(belief, x, t, divergence="rademacher", probes=24, tolerance=1e-4).mean_bits_per_dimension()
    yield at_most("the same with 24 probes, in standard errors", abs(probed.value - exact) / probed.standard_error, 2)
    wrong = log_likelihood(g4().gaussian().denoiser(PROCESS), x, t).mean_bits_per_dimension().value
    yield control(at_most("the same, another law's belief", abs(wrong - exact), 1e-3))


def times() -> Iterator[Check]:
    """The likelihood-weighted velocity loss under uniform `gamma` and under `p ~ alpha^2`."""
    shifted = GaussianMixture(_line().weights, _line().means + 0.02, _line().covariances).denoiser(PROCESS)
    x, found = _line().sample(40_000, 0), []
    for law in (EvenTimes(_LOW, _HIGH, stratified=False), LikelihoodTimes(_LOW, _HIGH, stratified=False)):
        loss = DenoisingLoss(LikelihoodWeight(law), law, "v")
        found.append(loss(shifted.denoise, PROCESS, loss.examples(PROCESS, x, torch.Generator().manual_seed(1))))
    plain, better = found
    error = math.sqrt(float(plain.var() + better.var()) / len(x))
    yield at_most("means apart, in standard errors", abs(float(plain.mean() - better.mean())) / error, 3)
    yield within("the mean, nats", float(better.mean()), 4.2, 4.6)
    yield at_most("variance under p ~ alpha^2 over uniform gamma", float(better.var() / plain.var()), 0.75)
    again = DenoisingLoss(LikelihoodWeight(EvenTimes(_LOW, _HIGH)), LikelihoodTimes(_LOW, _HIGH), "v")
    unweighted = again(shifted.denoise, PROCESS, again.examples(PROCESS, x, torch.Generator().manual_seed(1)))
    apart = abs(float(plain.mean() - unweighted.mean())) / error
    yield control(at_most("means apart, the weight of the wrong law", apart, 3))


def identity() -> Iterator[Check]:
    """`sigma tr grad F* = alpha d - alpha E[|F - F*|^2 | x_t]`, in bins of `x_t`."""
    law, t, n = _line(), float(PROCESS.time(1.0)), 60_000
    x0, eps = law.sample(n, 0), noise(1, n, (1,), dtype=torch.float64).draw(0)
    x, (alpha, sigma) = PROCESS.sample(x0, t, eps), (float(v) for v in PROCESS.levels(t))
    for name, belief in (("the exact velocity", law.denoiser(PROCESS)), ("the velocity of its Gaussian", law.gaussian().denoiser(PROCESS))):
        said = belief.denoise(x, t)
        # v = (alpha x - D)/sigma, so alpha d - sigma tr dv/dx = tr dD/dx
        gap = (divergence_of(belief, x, t) - alpha * ((x0 - said) / sigma).square()[:, 0])[x[:, 0].argsort()].reshape(20, -1)
        worst = float((gap.mean(1).abs() / (gap.std(1) / math.sqrt(gap.shape[1]))).max())
        check = at_most(f"identity in 20 bins, {name}, standard errors", worst, 3.5)
        yield check if belief.law is law else control(check)


def _bound(noise_law: Dequantisation, alpha: float, sigma: float, levels: Tensor, masses: Tensor, flat: bool = False) -> float:
    """The bound in bits under the exact law of noisy levels: 64 draws a level, every level as often as it is likely."""
    seen = masses > 1e-9
    drawn = noise_law.draw((alpha if flat else 1.0) * levels[seen].repeat_interleave(64)[:, None], 1)
    parts = masses.log() - 0.5 * ((drawn.values - alpha * levels) / sigma) ** 2
    density = torch.logsumexp(parts, 1) - math.log(sigma * math.sqrt(2 * math.pi))
    return float(masses[seen] @ (drawn.log_density - density).reshape(-1, 64).mean(1)) * _BITS


def dequantisation() -> Iterator[Check]:
    """256 levels whose law is known: bounds in bits, against the entropy."""
    edges = torch.linspace(-1, 1, 257, dtype=torch.float64)
    spread = math.sqrt(0.003)
    cumulative = sum(w * torch.special.ndtr((edges - m) / spread) for w, m in _PARTS)
    masses = torch.diff(torch.as_tensor(cumulative)).clamp(min=1e-300)
    masses, levels = masses / masses.sum(), (edges[1:] + edges[:-1]) / 2
    entropy = -float((masses * masses.log()).sum()) * _BITS
    yield close("entropy, bits", entropy, 5.828, absolute=1e-3)
    for gamma, known in ((-13.3, 5.833), (-12, 5.855), (-11, 5.842), (-10, 5.830)):
        alpha, sigma = (math.sqrt(1 / (1 + math.exp(sign * gamma))) for sign in (1, -1))
        width = 2 / 256
        truncated = _bound(TruncatedNormalDequantisation(width, alpha, sigma), alpha, sigma, levels, masses)
        yield within(f"truncated normal less entropy, gamma {gamma}", truncated - entropy, -0.03, 0.05)
        yield close(f"truncated normal, gamma {gamma}", truncated, known, absolute=0.01)
        if gamma == -13.3:
            uniform = _bound(UniformDequantisation(width * alpha), alpha, sigma, levels, masses, flat=True)
            yield at_least("uniform at the same level less entropy", uniform - entropy, 0.3)
            decoded = _bound(GaussianDequantisation(tuple(levels.tolist()), alpha, sigma), alpha, sigma, levels, masses)
            yield close("Gaussian with decoder", decoded, 5.823, absolute=0.01)
        if gamma == -12:
            bare = GaussianDequantisation(tuple(levels.tolist()), alpha, sigma, decoder=False)
            yield control(at_least("Gaussian without decoder, not truncated", _bound(bare, alpha, sigma, levels, masses) - entropy, -0.03))


def _flaws(belief: Denoiser, law: GaussianMixture) -> tuple[float, float]:
    """The root mean square error of the divergence of the learned `v`, and the flow's negative log-likelihood in nats."""
    x0, exact, errors = law.sample(600, 5).float(), law.denoiser(PROCESS), []
    for level in (-1.0, 0.0, 1.0, 2.0):
        t = float(PROCESS.time(level))
        x = PROCESS.sample(x0, t, noise(6, len(x0), (1,)).draw(0))
        apart = divergence_of(belief, x, t) - divergence_of(exact, x, t)
        errors.append((apart / float(PROCESS.sigma(t))).square().mean())
    t = float(PROCESS.time_of_ratio(0.05))
    found = log_likelihood(belief, float(PROCESS.alpha(t)) * law.sample(100, 7).float(), t, tolerance=1e-3)
    return math.sqrt(float(torch.stack(errors).mean())), -float(found.log_prob.mean())


def finetuning() -> Iterator[Check]:
    """A small network on two modes of a line, finetuned with the second-order term and without."""
    means = torch.tensor([[-1.0], [0.8]], dtype=torch.float64)
    world = GaussianMixture([0.6, 0.4], means, [SpectralCovariance.isotropic(1, 0.05)] * 2)
    times = LikelihoodTimes(-4.0, 4.0)
    plain, data = DenoisingLoss(LikelihoodWeight(times), times, "v"), world.sample(4096, 0).float()
    network = Preconditioned(ResidualMLP((1,), 32, 2, seed=0), PROCESS, 0.9)
    fit(network, data, FitSettings(300, 128, 3e-3, warmup=0), plain)
    before, found = _flaws(network, world), {}
    for name, loss in (("with", SecondOrderLoss(weight=plain.weight, times=times, view="v", second=1.0)), ("without", plain)):
        tuned = copy.deepcopy(network)
        fit(tuned, data, FitSettings(300, 128, 1e-3, warmup=0, seed=1), loss)
        found[name] = _flaws(tuned, world)
    yield at_most("error of the divergence, finetuned over before", found["with"][0] / before[0], 0.7)
    yield control(at_most("the same, finetuned without the term", found["without"][0] / before[0], 0.7))
    yield at_most("negative log-likelihood, with the term less without, nats", found["with"][1] - found["without"][1], 0.0)


_GAMMAS = [-14.0, -13.0, -12.0, -11.0, -10.0]


@functools.cache
def _bits() -> tuple[float, dict[str, list[float]]]:
    """The entropy of 256 levels, and bounds by gamma with two laws of added noise."""
    edges, width = torch.linspace(-1, 1, 257, dtype=torch.float64), 2 / 256
    cumulative = torch.stack([w * torch.special.ndtr((edges - m) / math.sqrt(0.003)) for w, m in _PARTS]).sum(0)
    masses, levels = cumulative.diff().clamp(min=1e-300), (edges[1:] + edges[:-1]) / 2
    found: dict[str, list[float]] = {"truncated normal": [], "uniform": []}
    for gamma in _GAMMAS:
        alpha, sigma = (math.sqrt(1 / (1 + math.exp(sign * gamma))) for sign in (1, -1))
        truncated, even = TruncatedNormalDequantisation(width, alpha, sigma), UniformDequantisation(width * alpha)
        found["truncated normal"].append(_bound(truncated, alpha, sigma, levels, masses))
        found["uniform"].append(_bound(even, alpha, sigma, levels, masses, flat=True))
    return -float((masses * masses.log()).sum()) * _BITS, found


def figure(ax: Any) -> None:
    """The bound on the bits of data with 256 levels, by the least noise of the process: with truncated normal noise it is nearly
    the entropy, whatever that level is, and with uniform noise only where the level is high.
    """
    entropy, found = _bits()
    for i, (name, values) in enumerate(found.items()):
        ax.plot(_GAMMAS, values, "o-", color=f"C{i}", label=f"bound, {name} noise")
    ax.axhline(entropy, color="C2", linestyle="--", label="entropy")
    ax.set(xlabel="gamma, minus the log-SNR at the end", ylabel="bits")
    ax.legend()


ROW = Row(
    id="069",
    slug="i-dode",
    title="Improved Techniques for Maximum Likelihood Estimation for Diffusion ODEs",
    authors="Kaiwen Zheng, Cheng Lu, Jianfei Chen, Jun Zhu",
    year=2023,
    arxiv="2305.03935",
    claim="Velocity errors under times of density alpha^2 estimate the likelihood bound with less variance, truncated normal noise makes "
    "the flow's density a tight bound for discrete data, and a second-order term trains its divergence.",
    reproduced="yes",
    checks=(likelihoods, times, identity, dequantisation, finetuning),
    figure=figure,
)
