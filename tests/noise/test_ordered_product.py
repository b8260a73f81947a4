"""Products of many matrices in a logarithmic number of steps: the order stays, whatever their number."""

from __future__ import annotations

import pytest
import torch

from sfumato.noise.linear_family.flow_factor import ordered_product


@pytest.mark.parametrize("n", range(1, 8))
def test_the_product_of_any_number_of_matrices_is_in_their_order(n):
    factors = torch.randn(n, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    one_by_one = torch.eye(3, dtype=torch.float64)
    for factor in factors:
        one_by_one = factor @ one_by_one
    assert torch.allclose(ordered_product(factors, -3), one_by_one, rtol=1e-12, atol=1e-12)
