"""The average is the recursion it says it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.errors import ArgumentError
from sfumato.learn import Average


def test_average_is_the_recursion_with_its_warm_start():
    layer = nn.Linear(3, 2).double()
    generator = torch.Generator().manual_seed(0)
    average = Average(layer, decay=0.6)
    expected = {name: p.detach().clone() for name, p in layer.named_parameters()}
    for i in range(12):
        with torch.no_grad():
            for p in layer.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        average.update(list(layer.parameters()), i)
        d = min(0.6, (1 + i) / (10 + i))
        expected = {name: d * expected[name] + (1 - d) * p.detach() for name, p in layer.named_parameters()}
    for name, value in expected.items():
        torch.testing.assert_close(average.tensors[name], value, rtol=1e-14, atol=1e-14)


def test_applied_is_undone_also_by_an_error():
    layer = nn.Linear(2, 2)
    average = Average(layer)
    with torch.no_grad():
        layer.weight.add_(1)
    before = layer.weight.detach().clone()

    def fail():
        with average.applied(layer):
            assert torch.equal(layer.weight, average.tensors["weight"])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert torch.equal(layer.weight, before)


def test_a_decay_of_one_is_refused():
    with pytest.raises(ArgumentError, match="decay"):
        Average(nn.Linear(1, 1), decay=1.0)
