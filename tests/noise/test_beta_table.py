"""Tables of betas: those of diffusers, the continuous process that fine ones approach, and what is between their nodes."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.noise import BetaTable, VariancePreserving


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_beta_tables_agree_with_diffusers(schedule):
    """Its products are float32: 1000 roundings of 6e-8 each."""
    diffusers = pytest.importorskip("diffusers")
    first, last = (1e-4, 0.02) if schedule == "linear" else (0.00085, 0.012)
    theirs = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_start=first, beta_end=last, beta_schedule=schedule)
    ours = BetaTable.linear() if schedule == "linear" else BetaTable.scaled_linear()
    nodes = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert float(((ours.alpha(nodes) ** 2 - theirs.alphas_cumprod) / theirs.alphas_cumprod).abs().max()) < 1000 * 6e-8
    torch.testing.assert_close(ours.index(nodes), torch.arange(1000, dtype=torch.float64), rtol=0, atol=1e-9)


def test_fine_beta_tables_are_the_continuous_process():
    """`log alpha` differs by `sum beta_i^2 / 4`, which falls like 1/N: halved at twice the nodes."""
    limit, t = VariancePreserving(0.1, 20.0), torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = []
    for n in (500, 1000, 2000):
        middle = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        table = BetaTable(tuple(((0.1 + 19.9 * middle) / n).tolist()))
        errors.append(float((torch.log(table.alpha(t)) - torch.log(limit.alpha(t))).abs().max()))
    assert errors[-1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.05)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.05)


def test_beta_is_constant_between_the_nodes_of_a_table():
    table = BetaTable((0.1, 0.2, 0.3))
    inside = torch.tensor([0.34, 0.5, 0.66], dtype=torch.float64)
    torch.testing.assert_close(
        table.diffusion_squared(inside), torch.full((3,), -3 * math.log1p(-0.2), dtype=torch.float64), rtol=1e-14, atol=0
    )


def test_a_last_beta_of_one_has_no_signal_after_the_last_node():
    table = BetaTable((0.1, 0.2, 1.0))
    assert float(table.alpha(2 / 3)) == pytest.approx(math.sqrt(0.9 * 0.8), rel=1e-15)
    assert float(table.alpha(1.0)) == 0
    assert float(table.half_log_snr(1.0)) == -math.inf
    whole = table.transition(0.5, 1.0)
    assert (float(whole.phi), float(whole.covariance)) == (0, 1)
