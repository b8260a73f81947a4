"""The mean error of a denoiser is found, and taking it out does to the loss exactly what theory says."""

from __future__ import annotations

import pytest
import torch

from sfumato.denoise import Calibrated, MeanError, Preconditioned, ResidualMLP, TimeBias
from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, CheckpointError, DataError, ShapeError
from sfumato.learn import DenoisingLoss, FitSettings, fit, load_mean_error, mean_error, save_mean_error
from sfumato.noise import EDM, FlowMatching, VariancePreserving
from sfumato.seeds import noise

F64 = torch.float64


class Biased(Denoiser):
    """A belief that is off by a constant times the noise's share, and by another for each class."""

    def __init__(self, inner, shift, by_class=None):
        self.inner, self.process, self.shift, self.by_class = inner, inner.process, torch.tensor(shift, dtype=F64), by_class

    def denoise(self, x, t, condition=None):
        alpha, sigma = self.process.levels(t)
        out = self.inner.denoise(x, t) + float(sigma / torch.hypot(alpha, sigma)) * self.shift.to(x.dtype)
        return out if condition is None else out + self.by_class[condition]


@pytest.mark.parametrize("process", [EDM(), VariancePreserving(), FlowMatching()], ids=lambda p: p.kind)
def test_a_constant_error_is_found_within_its_standard_error_and_taken_out(g4, process):
    data, shift = g4.sample(4000, 0), [0.2, -0.1]
    belief = g4.denoiser(process)
    found = mean_error(Biased(belief, shift), data, (0.05, 0.5, 5.0), seed=1)
    wrong = (found.values[:, 0] - torch.tensor(shift, dtype=F64)).norm(dim=1)
    assert bool((wrong < 4 * found.floor[:, 0].sqrt()).all())
    x = process.sample(data[:50], process.time_of_ratio(0.5), noise(5, 50, (2,), dtype=F64).draw(0))
    for k in (0.02, 0.1, 0.5, 2.0):  # below, between and on the levels of the table
        t = process.time_of_ratio(k)
        left = (Calibrated(Biased(belief, shift), found).denoise(x, t) - belief.denoise(x, t)).abs().max()
        assert float(left) < 0.03
    assert torch.equal(Calibrated(belief, found).denoise(x, 0.0), belief.denoise(x, 0.0))  # nothing is moved at the clean end


def test_on_the_draws_it_was_measured_with_the_loss_falls_by_exactly_the_squared_mean(g4):
    """mean |D - b - x_0|^2 = mean |D - x_0|^2 - |b|^2, to rounding."""
    process, data, k = VariancePreserving(), g4.sample(300, 2), 0.7
    biased = Biased(g4.denoiser(process), [0.3, 0.1])
    found, t = mean_error(biased, data, (k,), seed=3), float(process.time_of_ratio(k))
    x = process.sample(data, t, noise(3, 300, (2,), dtype=F64).draw(2))
    before, after = ((d.denoise(x, t) - data).square().sum(1).mean() for d in (biased, Calibrated(biased, found)))
    assert float(before - after) == pytest.approx(float(found.squared()[0, 0]) * float(process.sigma(t)) ** 2, rel=1e-9)


def test_comparing_with_the_own_clean_sample_is_the_surer_estimate(g4):
    """At a ratio of 0.1 the plain mean of the predicted noise has a variance of d/n; the paired one a small part of it (control: d/n)."""
    process, n = EDM(), 3000
    found = mean_error(g4.denoiser(process), g4.sample(n, 0), (0.02, 60.0))
    in_noise = found.floor[:, 0] * torch.sigmoid(2 * found.half_log_snr)
    assert float(in_noise[0]) < 0.02 * 2 / n
    assert float(in_noise[1]) < 1.01 * 2 / n


def test_every_class_and_no_class_have_their_own(g4):
    process, data = EDM(), g4.sample(3000, 4)
    labels = torch.arange(3000) % 2
    by_class = torch.tensor([[0.5, 0.0], [0.0, -0.5]], dtype=F64)
    model = Biased(g4.denoiser(process), [0.0, 0.0], by_class)
    found = mean_error(model, data, (1.0,), labels=labels)
    x = data[:3] + 1.0
    t = process.time_of_ratio(1.0)
    exact = g4.denoiser(process).denoise(x, t)
    out = Calibrated(model, found).denoise(x, t, torch.tensor([0, 1, 0]))
    assert float((out - exact).abs().max()) < 0.06
    assert float((Calibrated(model, found).denoise(x, t) - exact).abs().max()) < 0.06
    with pytest.raises(ArgumentError, match="condition"):
        Calibrated(model, found).denoise(x, t, torch.tensor([0, 1, 2]))


class Offset(torch.nn.Module):
    """A network that is right but for a constant: 0 is the best linear answer, and the data are Gaussian."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor([0.5, -0.3]))

    def forward(self, x, c_noise, condition=None):
        return self.value.expand_as(x)


def test_a_bias_network_trained_behind_a_frozen_one_calibrates_it_and_leaves_it_alone():
    inner = Offset()
    model = Preconditioned(TimeBias(inner, 16, frozen=True), EDM(), 1.0)
    data = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    fit(model, data, FitSettings(120, 128, 2e-2, warmup=0), DenoisingLoss())
    assert inner.value.detach().tolist() == pytest.approx([0.5, -0.3])
    x = torch.zeros(4, 2)
    left = model.network(x, torch.tensor([-0.6, -0.3, 0.0, 0.2]))
    assert float(left.detach().abs().max()) < 0.12  # from 0.5
    assert TimeBias(ResidualMLP((2,), 4, 1))(x, torch.zeros(4)).abs().max() == 0


def test_it_is_kept_as_a_file(tmp_path, g4):
    found = mean_error(g4.denoiser(EDM()), g4.sample(50, 0), (0.1, 1.0))
    save_mean_error(found, tmp_path / "mean.safetensors")
    again = load_mean_error(tmp_path / "mean.safetensors")
    assert all(torch.equal(getattr(again, f), getattr(found, f)) for f in ("half_log_snr", "values", "floor", "norm"))
    (tmp_path / "mean.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="file"):
        load_mean_error(tmp_path / "mean.safetensors")


def test_bad_input(g4):
    belief, data = g4.denoiser(EDM()), g4.sample(20, 0)
    for ratios, draws in (((), 1), ((1.0, 1.0), 1), ((-1.0,), 1), ((1.0,), 0)):
        with pytest.raises(ArgumentError, match="ratios, draws"):
            mean_error(belief, data, ratios, draws=draws)
    with pytest.raises(DataError, match="at least two"):
        mean_error(belief, data, (1.0,), labels=torch.tensor([0] * 19 + [1]))
    with pytest.raises(DataError, match="finite"):
        mean_error(belief, data / 0, (1.0,))
    found = mean_error(belief, data, (0.1, 1.0))
    with pytest.raises(ShapeError, match="events"):
        Calibrated(belief, found).denoise(torch.zeros(3, 4, dtype=F64), 0.5)
    with pytest.raises(ArgumentError, match="rise"):
        MeanError(found.half_log_snr.flip(0), found.values, found.floor, found.norm)
    with pytest.raises(ArgumentError, match="finite"):
        MeanError(found.half_log_snr, found.values / 0, found.floor, found.norm)
    with pytest.raises(ArgumentError, match="event_shape"):
        TimeBias(torch.nn.Linear(2, 2))
