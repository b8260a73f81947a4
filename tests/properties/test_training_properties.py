"""Training: examples are functions of the seed and the step, losses have gradients whatever is predicted, checkpoints keep every bit."""

from __future__ import annotations

import tempfile
from typing import get_args

import pytest
import torch
from generated import F64, everyday, examples, numbers, orthogonal, processes, seeds, tensor
from hypothesis import assume, given
from hypothesis import strategies as st

from sfumato.denoise import NETWORKS, ConvNet, GaussianScalings, Isotropic, Preconditioned, ResidualMLP, View, network_from_config
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn import (
    DenoisingLoss,
    EDMWeight,
    LogNormalRatio,
    MinSNRWeight,
    SNRWeight,
    Uniform,
    UniformTime,
    load_model,
    save_model,
)
from sfumato.learn.training.stream import Stream
from sfumato.noise import EDM

CPU = torch.device("cpu")
weights = st.sampled_from([EDMWeight(0.7), SNRWeight(), MinSNRWeight(), Uniform()])
laws_of_time = st.sampled_from([LogNormalRatio(), UniformTime(), UniformTime(stratified=False)])


def fields(batch):
    return [batch.clean, batch.noisy, batch.t, batch.weight, *([] if batch.condition is None else [batch.condition])]


def check_steps(stream, again, steps):
    """Step `i` is the same whatever was asked before."""
    for i in steps:
        for a, b in zip(fields(stream[i]), fields(again[i]), strict=True):
            assert torch.equal(a, b)


@examples(12)
@given(st.integers(2, 9), st.integers(1, 6), seeds, st.booleans(), st.lists(st.integers(0, 150), min_size=1, max_size=3), laws_of_time)
def test_the_examples_of_a_step_are_a_function_of_seed_and_step(n, batch, seed, labelled, steps, times):
    data, labels = tensor((n, 2), seed, torch.float32), torch.arange(n) % 3 if labelled else None

    def stream(other=0):
        return Stream(data, labels, DenoisingLoss(times=times), EDM(10.0), batch, seed + other, CPU)

    check_steps(stream(), stream(), steps)
    check_steps(stream(), _Walked(stream()), sorted(steps))
    assert not torch.equal(stream()[steps[0]].noisy, stream(1)[steps[0]].noisy)
    # every epoch visits all data once
    first = torch.cat([stream()[i].clean for i in range(n)])
    assert torch.equal(first[:n].sort(0).values, data.sort(0).values)


class _Walked:
    """A stream that is read from its first step on, whatever is asked."""

    def __init__(self, stream):
        self.stream, self.at = stream, 0

    def __getitem__(self, step):
        while self.at < step:
            _ = self.stream[self.at]
            self.at += 1
        return self.stream[step]


def test_a_stream_that_counts_its_questions_is_seen():
    """Negative control: one whose step depends on what was asked before."""

    class Counting(Stream):
        asked = 0

        def __getitem__(self, step):
            self.asked += 1
            return super().__getitem__(step + self.asked // 3)

    data = tensor((5, 2), 0, torch.float32)
    one, other = (kind(data, None, DenoisingLoss(), EDM(10.0), 2, 0, CPU) for kind in (Stream, Counting))
    check_steps(one, one, [3, 0, 7, 3])
    with pytest.raises(AssertionError):
        check_steps(one, other, [3, 0, 7, 3])


@examples(60)
@given(
    everyday,
    st.sampled_from(get_args(View)),
    weights,
    st.sampled_from([torch.float32, F64]),
    st.sampled_from([(3,), (1, 4, 4)]),
    st.integers(1, 5),
    seeds,
)
def test_every_view_has_a_finite_loss_with_a_gradient(process, view, weight, dtype, event, n, seed):
    """At the times that the default law draws; the loss is a number a sample, of the state's dtype, and 0 for the right answer."""
    loss = DenoisingLoss(weight, LogNormalRatio(), view)
    batch = loss.examples(process, tensor((n, *event), seed, dtype), torch.Generator().manual_seed(seed))
    gain = torch.full((), 0.5, dtype=dtype, requires_grad=True)
    each = loss(lambda x, t, c: gain * x, process, batch)
    assert (each.shape, each.dtype) == ((n,), dtype)
    each.sum().backward()
    assert bool(torch.isfinite(each).all())
    assert bool(torch.isfinite(gain.grad))
    assert float(gain.grad.abs()) > 0
    assert float(loss(lambda x, t, c: batch.clean, process, batch).abs().max()) == 0


@examples(40)
@given(processes, st.sampled_from([torch.float32, F64, torch.bfloat16]), seeds, numbers(0.1, 2.0))
def test_a_preconditioned_network_is_finite_to_both_ends(process, dtype, seed, scale):
    """Without noise the answer is the state; with nothing but noise it is a number; gradients reach every weight in between."""
    # the gains square the levels in float32, where those of 1e-20 at the noisy end, as strong damping has them, are 0
    assume(float(process.sigma(1.0)) > 1e-12)
    network = ResidualMLP((3,), 8, 1, seed=seed).to(dtype)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1)
    denoiser = Preconditioned(network, process, scale)
    x = tensor((2, 3), seed, dtype)
    torch.testing.assert_close(denoiser.denoise(x, 0.0), x, rtol=0, atol=8 * torch.finfo(dtype).eps * float(1 + x.detach().abs().max()))
    end = denoiser.denoise(x, 1.0)
    assert end.dtype == dtype
    assert bool(torch.isfinite(end).all())
    denoiser.denoise(x, torch.tensor([0.3, 0.6], dtype=F64)).float().square().sum().backward()
    for p in network.parameters():
        assert p.grad is not None
        assert bool(torch.isfinite(p.grad).all())


@st.composite
def networks(draw):
    """Configurations of every kind of network that is small enough to be made many times."""
    kind = draw(st.sampled_from(["residual-mlp", "conv", "state-space", "continuous-unet"]))
    classes = draw(st.none() | st.integers(1, 4))
    small = {
        "residual-mlp": {"event_shape": [2, 3], "width": draw(st.integers(1, 12)), "depth": draw(st.integers(1, 3))},
        "conv": {"event_shape": [2, 4, 4], "width": 8, "depth": draw(st.integers(0, 2))},
        "state-space": {
            "event_shape": [2, 8],
            "width": 8,
            "depth": 1,
            "ratio": 1,
            "modes": draw(st.integers(1, 4)),
            "directions": draw(st.integers(1, 2)),
        },
        "continuous-unet": {"event_shape": [1, 4, 4], "width": 8, "depth": 1, "steps": draw(st.integers(1, 2)), "span": 1, "heads": 0},
    }
    return {"kind": kind, "classes": classes, **small[kind]}


def test_the_kinds_are_registered():
    assert {"residual-mlp", "conv", "state-space", "continuous-unet"} <= set(NETWORKS)


@examples(25)
@given(networks(), processes, st.sampled_from(["number", "mean", "law"]), st.sampled_from([torch.float32, F64, torch.bfloat16]), seeds)
def test_checkpoints_keep_every_bit(config, process, scalings, dtype, seed):
    network = network_from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    network.to(dtype)
    size = network.event_size
    law = Gaussian(
        tensor((size,), seed),
        SpectralCovariance.low_rank(orthogonal(size, seed), torch.rand(size, dtype=F64) + 0.1, 0.0),
        network.event_shape,
    )
    known = {"number": lambda: 0.5, "mean": lambda: Isotropic(0.7, 0.2), "law": lambda: GaussianScalings(law)}[scalings]()
    denoiser = Preconditioned(network, process, known).eval()
    with tempfile.TemporaryDirectory() as folder:
        save_model(denoiser, folder, {"seed": seed})
        again = load_model(folder)
    assert again.process == process
    ours, theirs = denoiser.network.state_dict(), again.network.state_dict()
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name].to(value.dtype))
    if dtype == torch.float32:
        x = tensor((2, *network.event_shape), seed, dtype)
        assert torch.equal(again.denoise(x, 0.5), denoiser.denoise(x, 0.5))


def test_another_bit_is_another_network():
    """Negative control: the equality of answers sees a weight that is off by a millionth."""
    one, other = (ConvNet((1, 4, 4), 8, 1) for _ in range(2))
    with torch.no_grad():
        for network in (one, other):
            for p in network.parameters():
                p.add_(0.1)
        list(other.parameters())[-1].mul_(1 + 1e-6)
    x = tensor((1, 1, 4, 4), 0, torch.float32)
    assert not torch.equal(one(x, torch.zeros(1)), other(x, torch.zeros(1)))
