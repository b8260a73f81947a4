"""What the properties are checked on: processes, falling times, shapes, laws and tensors that hypothesis makes up."""

from __future__ import annotations

import math

import torch
from hypothesis import settings
from hypothesis import strategies as st

from sfumato.exact import Gaussian, GaussianMixture, SpectralCovariance
from sfumato.noise import (
    EDM,
    BetaTable,
    Cosine,
    FlowMatching,
    MomentumDecay,
    SubVariancePreserving,
    Trigonometric,
    VarianceExploding,
    VariancePreserving,
)

F64 = torch.float64


def examples(count):
    """So many examples in the everyday profile, in proportion in others."""
    return settings(max_examples=max(1, count * settings().max_examples // 100))


def numbers(low, high):
    """Floats in `[low, high]` that no test needs to know more closely than to 9 digits."""
    return st.floats(low, high, allow_nan=False, allow_infinity=False).map(lambda v: min(max(float(f"{v:.9g}"), low), high))


def _table(betas, ends):
    return BetaTable((*betas, 1.0) if ends else tuple(betas))


def _vp(kind):
    return st.tuples(numbers(0.05, 1.0), numbers(1.0, 25.0)).map(lambda p: kind(*p))


PROCESS_STRATEGIES = {
    "variance-preserving": _vp(VariancePreserving),
    "sub-variance-preserving": _vp(SubVariancePreserving),
    "cosine": st.builds(Cosine, numbers(0.001, 0.5)),
    "variance-exploding": st.builds(VarianceExploding, numbers(0.001, 0.1), numbers(1.0, 200.0)),
    "edm": st.builds(EDM, numbers(0.5, 200.0)),
    "flow-matching": st.builds(FlowMatching, numbers(0.2, 6.0)),
    "trigonometric": st.builds(Trigonometric),
    "momentum-decay": st.builds(MomentumDecay, numbers(0.5, 100.0), numbers(0.5, 10.0), numbers(1.0, 10.0), numbers(0.05, 1.0)),
    "beta-table": st.builds(_table, st.lists(numbers(1e-4, 0.5), min_size=1, max_size=30), st.booleans()),
}
"""Kind to members with any parameters."""

processes = st.one_of(*PROCESS_STRATEGIES.values())
everyday = st.sampled_from([VariancePreserving(), Cosine(), EDM(80.0), FlowMatching(), FlowMatching(3.0), Trigonometric()])
"""Members whose tables stay of moderate size, for what loses digits otherwise."""

events = st.sampled_from([(), (1,), (5,), (2, 3), (2, 1, 3), (3, 2, 2)])
batches = st.sampled_from([0, 1, 2, 5])


@st.composite
def grids(draw, most=12, start=None, end=None, spread=1e-3):
    """Falling times of any spacing, `most` steps or fewer; the ends are exactly 1 and 0 half of the time."""
    n = draw(st.integers(1, most))
    top = draw(st.sampled_from([1.0]) | numbers(0.6, 0.999)) if start is None else start
    low = draw(st.sampled_from([0.0]) | numbers(1e-3, 0.4)) if end is None else end
    gaps = torch.tensor(draw(st.lists(numbers(spread, 1.0), min_size=n, max_size=n)), dtype=F64)
    inner = top - (top - low) * torch.cumsum(gaps, 0)[:-1] / gaps.sum()
    return (top, *inner.tolist(), low)


def tensor(shape, seed, dtype=F64, scale=1.0):
    """Normal numbers, a function of `seed`."""
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)).to(dtype)


seeds = st.integers(0, 2**16)


def orthogonal(dim, seed):
    """An orthogonal matrix."""
    return torch.linalg.qr(tensor((dim, dim), seed))[0]


@st.composite
def covariances(draw, dim, singular=False):
    """Covariances of every structure: dense, low rank with a rest, diagonal, isotropic; variances in [0.05, 4], or 0 if `singular`."""
    seed, kind = draw(seeds), draw(st.sampled_from(["dense", "low rank", "diagonal", "isotropic"]))
    variances = torch.exp(tensor((dim,), seed)).clamp(0.05, 4.0)
    if singular and draw(st.booleans()):
        variances[-1] = 0.0
    if kind == "isotropic":
        return SpectralCovariance.isotropic(dim, float(variances[0]))
    if kind == "diagonal":
        return SpectralCovariance.diagonal(variances)
    turn = orthogonal(dim, seed + 1)
    if kind == "dense":
        return SpectralCovariance.low_rank(turn, variances, 0.0)
    rank = draw(st.integers(0, dim))
    return SpectralCovariance.low_rank(turn[:, :rank], variances[:rank], float(variances[-1]))


@st.composite
def gaussians(draw, event, singular=False):
    """Gaussian laws on events of a shape."""
    dim = math.prod(event)
    return Gaussian(tensor((dim,), draw(seeds)), draw(covariances(dim, singular)), event)


@st.composite
def mixtures(draw, event):
    """Mixtures of up to four components of any structure."""
    dim, k = math.prod(event), draw(st.integers(1, 4))
    weights = draw(st.lists(numbers(0.05, 1.0), min_size=k, max_size=k))
    return GaussianMixture(weights, tensor((k, dim), draw(seeds), scale=1.5), [draw(covariances(dim)) for _ in range(k)], event)
