"""Dynamic blocks: the integrator has its order, the adjoint's gradient is backpropagation's, and the embedding decays as said."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.denoise.networks.dynamical_system import ContinuousUNet, DynamicBlock, integrate
from sfumato.errors import ArgumentError

F64 = torch.float64


def _block(steps, method="midpoint", adjoint=False):
    torch.manual_seed(0)
    return DynamicBlock(8, 4, steps, method, adjoint=adjoint).double()


def _inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 8, 4, 4, generator=generator, dtype=F64), torch.randn(2, 4, generator=generator, dtype=F64)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_methods_have_their_orders_on_an_oscillator(method, order):
    """x'' = -x from (1, 0) to s = 1: cos 1 and -sin 1."""

    def error(steps):
        start = (torch.ones((), dtype=F64), torch.zeros((), dtype=F64))
        x, v = integrate(lambda y, s: (y[1], -y[0]), start, 0.0, 1.0, steps, method)
        return math.hypot(float(x) - math.cos(1), float(v) + math.sin(1))

    assert math.log2(error(32) / error(64)) == pytest.approx(order, abs=0.1)


def test_the_adjoint_gradient_is_backpropagations():
    """To 1e-4 of their size with fine steps, for input, embedding and weights; coarse steps show that they are not one code."""

    def gradients(steps, adjoint):
        block = _block(steps, "rk4", adjoint)
        h, e = (z.requires_grad_() for z in _inputs())
        block(h, e).square().sum().backward()
        return [h.grad, e.grad, *(p.grad for p in block.parameters())]

    def gap(steps):
        pairs = zip(gradients(steps, True), gradients(steps, False), strict=True)
        return max(float((a - b).norm() / b.norm()) for a, b in pairs)

    assert gap(16) < 1e-4
    assert gap(1) > 10 * gap(16)


def test_the_adjoint_keeps_only_the_answer():
    """What autograd saves does not grow with the steps."""

    def saved(steps, adjoint):
        count = 0

        def pack(z):
            nonlocal count
            count += z.numel()
            return z

        block, (h, e) = _block(steps, "euler", adjoint), _inputs()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda z: z):
            block(h, e)
        return count

    assert saved(8, True) == saved(2, True)
    assert saved(8, False) > 2 * saved(2, False)


def test_finer_steps_change_the_answer_less_and_less():
    h, e = _inputs()
    with torch.no_grad():
        exact = _block(64, "rk4")(h, e)
        gaps = [float((_block(n)(h, e) - exact).norm()) for n in (2, 4, 8)]
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2]


def test_the_embedding_is_a_force_that_decays_over_the_integration():
    """Without the convolution x'' = e^{a s} c, so x(1) = h + g(h) + c (e^a - 1 - a) / a^2."""
    block = _block(32, "rk4")
    a = -1.5
    with torch.no_grad():
        for z in (block.force.weight, block.force.bias):
            z.zero_()
        block.decay.fill_(a)
        h, e = _inputs()
        moved = block(h, e) - h - block.speed(h)
        expected = block.push(e) * (math.exp(a) - 1 - a) / a**2
    torch.testing.assert_close(moved, expected[:, :, None, None].expand_as(moved), atol=1e-8, rtol=0)


def test_a_network_without_span_ignores_the_noise_level_and_others_do_not():
    x, c = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor([-1.0, 1.0])
    for span in (0, 1):
        net = ContinuousUNet((1, 8, 8), 8, 2, span=span, heads=2, classes=2)
        torch.nn.init.normal_(net.last.weight)
        same = torch.allclose(net(x, c), net(x, -c), atol=1e-5)
        assert same == (span == 0)


def test_bad_sizes_are_refused():
    for make in (
        lambda: DynamicBlock(12, 4),
        lambda: DynamicBlock(8, 4, 0),
        lambda: ContinuousUNet((1, 6, 6), 8, 2),
        lambda: ContinuousUNet((1, 8, 8), 8, heads=3),
    ):
        with pytest.raises(ArgumentError):
            make()
