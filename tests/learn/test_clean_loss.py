"""The loss on the exact target: the same draws and minimiser as the usual loss, and no target noise."""

from __future__ import annotations

import torch

from sfumato.exact import Empirical
from sfumato.learn.losses.loss import CleanLoss, DenoisingLoss
from sfumato.learn.losses.times import UniformLogSNR
from sfumato.learn.losses.weights import Uniform
from sfumato.noise import EDM, FlowMatching


def test_exact_denoiser_has_loss_zero_and_the_usual_loss_of_any_other_is_larger_by_the_posterior_variance():
    """E|D - x_0|^2 = E|D - D*|^2 + E Cov[x_0|x]: on the same 20,000 examples, the cross term within 5 standard errors."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    law, process, n = Empirical(points), FlowMatching(), 20000
    times = UniformLogSNR(-2.0, 3.0)
    clean, usual = CleanLoss(weight=Uniform(), times=times, exact=law.denoiser(EDM())), DenoisingLoss(Uniform(), times)
    data = points[torch.randint(6, (n,), generator=generator)]
    exact, noisy = (loss.examples(process, data, torch.Generator().manual_seed(1)) for loss in (clean, usual))
    assert torch.equal(exact.noisy, noisy.noisy)
    assert torch.equal(noisy.clean, data)

    def best(x, t, c):
        return law.posterior_mean(x, process, t)

    def other(x, t, c):
        return 0.7 * x

    assert float(clean(best, process, exact).max()) < 1e-15
    cross = usual(other, process, noisy) - clean(other, process, exact) - usual(best, process, noisy)
    assert abs(float(cross.mean())) < 5 * float(cross.std()) / n**0.5
    assert "CleanLoss" in repr(clean)
