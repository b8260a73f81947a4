"""Training goes where it should, and a run that was stopped in any way ends with the very weights of one that was not."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.data import Dataset
from sfumato.denoise import GaussianScalings, Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError, CheckpointError, DataError, ShapeError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.learn import DenoisingLoss, EDMWeight, FitSettings, LogNormalRatio, default_loss, fit, load_model
from sfumato.learn.training.run import STATE
from sfumato.learn.training.stream import Stream
from sfumato.noise import EDM, VariancePreserving

SETTINGS = FitSettings(40, 16, learning_rate=3e-3, warmup=5, seed=7)


def data(n=50):
    return torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 0.5])


def denoiser(classes=None):
    return Preconditioned(ResidualMLP((1, 2, 2), 8, 2, classes), VariancePreserving(), 1.0)


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def uninterrupted():
    model = denoiser()
    result = fit(model, data(), SETTINGS)
    return weights(model), result.losses


class Stop(Exception):
    """Something else goes wrong."""


def stop_at(step, error):
    def on_step(done, model, average):
        if done == step:
            raise error

    return on_step


@pytest.mark.parametrize("step", [1, 20, 21, 39])
def test_resumed_after_an_error_it_ends_bit_identical(tmp_path, uninterrupted, step):
    with pytest.raises(Stop):
        fit(denoiser(), data(), SETTINGS, folder=tmp_path, save_every=10, on_step=stop_at(step, Stop()))
    model = denoiser()
    result = fit(model, data(), SETTINGS, folder=tmp_path, save_every=7)
    assert equal(weights(model), uninterrupted[0])
    assert torch.equal(result.losses, uninterrupted[1])
    assert equal(weights(load_model(tmp_path)), uninterrupted[0])


@pytest.mark.parametrize(("clip", "dtype"), [(1e-3, torch.float32), (0.5, torch.float32), (math.inf, torch.float32), (0.5, torch.float64)])
def test_its_steps_are_those_of_a_plain_loop_with_adam_and_clipping(clip, dtype):
    """Against torch's own pieces, unfused: the clipped gradient is what the optimiser sees, and an infinite bound clips nothing."""
    settings, loss = replace(SETTINGS, steps=6, clip=clip, ema_decay=0.0), default_loss(data())
    own, twin = denoiser().to(dtype), denoiser().to(dtype)
    fit(own, data(), settings, loss)
    stream = Stream(data().to(dtype), None, loss, twin.process, settings.batch_size, settings.seed, torch.device("cpu"))
    adam, norms = torch.optim.Adam(twin.parameters(), fused=False), []
    for step in range(settings.steps):
        adam.param_groups[0]["lr"] = settings.rate(step)
        adam.zero_grad()
        loss(twin, twin.process, stream[step]).mean().backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(twin.parameters(), clip)))
        adam.step()
    assert min(norms) > 1e-3
    for name, value in weights(own).items():
        torch.testing.assert_close(value, weights(twin)[name], rtol=1e-4, atol=1e-6)


def test_a_finished_run_is_not_run_again(tmp_path, uninterrupted):
    fit(denoiser(), data(), SETTINGS, folder=tmp_path)
    model, calls = denoiser(), []
    result = fit(model, data(), SETTINGS, folder=tmp_path, on_step=lambda *a: calls.append(a))
    assert not calls
    assert result.examples_per_second == 0
    assert equal(weights(model), uninterrupted[0])
    again = fit(denoiser(), data(), SETTINGS, folder=tmp_path, resume=False, on_step=lambda *a: calls.append(a))
    assert [call[0] for call in calls] == list(range(SETTINGS.steps + 1))
    assert torch.equal(again.losses, uninterrupted[1])


@pytest.mark.parametrize("first", ["save_model", "state"])
def test_stopped_between_the_two_files_of_its_last_save_it_still_ends_alike(tmp_path, uninterrupted, monkeypatch, first):
    """Whichever of model and state was written when the process died, the same call leaves the whole result in the folder."""
    from sfumato.learn.training import fit as module
    from sfumato.learn.training.run import Run

    class Killed(BaseException):
        pass

    def save(*args):
        raise Killed

    def at_the_end(done, *_):
        if done == SETTINGS.steps:
            place, name = (module, "save_model") if first == "save_model" else (Run, "save")
            patched.setattr(place, name, save)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        fit(denoiser(), data(), SETTINGS, folder=tmp_path, save_every=10, on_step=at_the_end)
    fit(denoiser(), data(), SETTINGS, folder=tmp_path, save_every=10)
    assert equal(weights(load_model(tmp_path)), uninterrupted[0])


def test_another_seed_is_another_run(uninterrupted):
    """Negative control of bit-identity."""
    model = denoiser()
    fit(model, data(), FitSettings(40, 16, learning_rate=3e-3, warmup=5, seed=8))
    assert not equal(weights(model), uninterrupted[0])


KILLED = """
import os, signal, sys, time, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_fit import SETTINGS, data, denoiser
from sfumato.learn import fit

# steps are waited for, so that the kills fall into the run on a loaded machine too; the delays take them away from a step's end
for steps, delay in ((2, 0.0), (5, 0.002), (4, 0.005), (6, 0.001)):
    begun, begin = os.pipe()
    child = os.fork()
    if child == 0:
        fit(denoiser(), data(), SETTINGS, folder=sys.argv[2], save_every=1, on_step=lambda done, *_: os.write(begin, b"."))
        os._exit(0)
    for _ in range(steps):
        os.read(begun, 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == signal.SIGKILL:
        print("killed")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_again_and_again_it_ends_bit_identical(tmp_path, uninterrupted):
    """SIGKILL at moments that no code has a say in, saving at every step so that most of them fall into a save."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.count("killed") >= 2
    model, calls = denoiser(), []
    fit(model, data(), SETTINGS, folder=tmp_path, on_step=lambda *a: calls.append(a))
    assert 0 < len(calls) < SETTINGS.steps, "the kills fell before the first or after the last save"
    assert equal(weights(model), uninterrupted[0])
    assert equal(weights(load_model(tmp_path)), uninterrupted[0])


def test_ctrl_c_saves_the_state_and_interrupts_between_steps(tmp_path, uninterrupted):
    def interrupt(done, model, average):
        if done == 23:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="23 of 40 steps"):
        fit(denoiser(), data(), SETTINGS, folder=tmp_path, on_step=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    model, calls = denoiser(), []
    fit(model, data(), SETTINGS, folder=tmp_path, on_step=lambda *a: calls.append(a))
    assert len(calls) == 40 - 23
    assert equal(weights(model), uninterrupted[0])


def test_it_runs_outside_the_main_thread_where_there_are_no_signals(uninterrupted):
    model, errors = denoiser(), []
    thread = threading.Thread(target=lambda: errors.append(fit(model, data(), SETTINGS)))
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert equal(weights(model), uninterrupted[0])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": FitSettings(40, 16, learning_rate=2e-3, warmup=5, seed=7)}, "learning_rate"),
        ({"settings": FitSettings(41, 16, learning_rate=3e-3, warmup=5, seed=7)}, "steps"),
        ({"data": data(49)}, "data"),
        ({"loss": DenoisingLoss(EDMWeight(0.7))}, "loss"),
        ({"denoiser": Preconditioned(ResidualMLP((1, 2, 2), 9, 2), VariancePreserving(), 1.0)}, "network"),
        ({"denoiser": Preconditioned(ResidualMLP((1, 2, 2), 8, 2), EDM(), 1.0)}, "process"),
    ],
)
def test_a_run_with_other_settings_is_not_taken_up(tmp_path, change, named):
    first = {"denoiser": denoiser(), "data": data(), "settings": SETTINGS, "folder": tmp_path, "save_every": 1}
    with pytest.raises(Stop):
        fit(**first, on_step=stop_at(2, Stop()))
    with pytest.raises(CheckpointError, match=named):
        fit(**{**first, "denoiser": denoiser(), **change})


def test_a_broken_state_is_refused(tmp_path):
    with pytest.raises(Stop):
        fit(denoiser(), data(), SETTINGS, folder=tmp_path, save_every=1, on_step=stop_at(3, Stop()))
    state = tmp_path / STATE
    whole = state.read_bytes()
    for cut in range(0, len(whole), len(whole) // 25):
        state.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            fit(denoiser(), data(), SETTINGS, folder=tmp_path)
    state.write_bytes((tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="state of a training run"):
        fit(denoiser(), data(), SETTINGS, folder=tmp_path)


def test_data_with_nan_are_refused_before_anything_is_written(tmp_path):
    bad = data()
    bad[3, 0, 1, 1] = torch.nan
    with pytest.raises(DataError, match=r"\(3, 0, 1, 1\)"):
        fit(denoiser(), bad, SETTINGS, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_longer_finite_stops_the_run_and_leaves_the_last_good_state(tmp_path, uninterrupted):
    def poison(done, model, average):
        if done == 30:
            with torch.no_grad():
                model.network.last.weight.fill_(torch.nan)

    with pytest.raises(ArgumentError, match="at step 30"):
        fit(denoiser(), data(), SETTINGS, folder=tmp_path, save_every=29, on_step=poison)
    model = denoiser()
    fit(model, data(), SETTINGS, folder=tmp_path)
    assert equal(weights(model), uninterrupted[0])


def test_wrong_data_are_refused():
    with pytest.raises(ShapeError, match=r"\(1, 2, 2\)"):
        fit(denoiser(), torch.zeros(5, 1, 3, 3), SETTINGS)
    with pytest.raises(DataError):
        fit(denoiser(), torch.zeros(5, 1, 2, 2, dtype=torch.long), SETTINGS)
    labels = torch.arange(50) % 3
    three = Dataset("three", data(), data(3), labels, labels[:3], 3)
    with pytest.raises(ArgumentError, match="3 classes"):
        fit(denoiser(classes=2), three, SETTINGS)


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"clip": 0.0}, {"warmup": -1}])
def test_meaningless_settings_are_refused(change):
    with pytest.raises(ArgumentError, match=next(iter(change))):
        FitSettings(**{"steps": 10, **change})


def test_rate_rises_linearly_and_falls_to_nothing():
    settings = FitSettings(100, learning_rate=1.0, warmup=9, schedule="cosine")
    rates = [settings.rate(i) for i in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1, abs=0.03)
    assert rates[99] < 0.001
    assert FitSettings(100, learning_rate=1.0, warmup=0, schedule="constant").rate(99) == 1.0
    assert FitSettings(100, learning_rate=1.0, warmup=0).rate(75) == pytest.approx(0.25)


def stream(batch_size=16):
    return Stream(data(), torch.arange(50), DenoisingLoss(label_dropout=0.0), VariancePreserving(), batch_size, 7, torch.device("cpu"))


def test_examples_of_a_step_do_not_depend_on_which_were_asked_before():
    one, other = stream(), stream()
    in_order = [one[i] for i in range(130)]
    for i in (129, 3, 64, 63, 0):
        again = other[i]
        assert torch.equal(again.noisy, in_order[i].noisy)
        assert torch.equal(again.t, in_order[i].t)
        assert torch.equal(again.condition, in_order[i].condition)
    assert not torch.equal(in_order[0].noisy, in_order[64].noisy)


def test_every_epoch_visits_all_data_once_in_an_order_of_its_own():
    examples, whole = stream(), data()
    rows = torch.cat([examples[i].condition for i in range(25)])
    clean = torch.cat([examples[i].clean for i in range(25)])
    assert torch.equal(clean, whole[rows])
    epochs = rows.reshape(8, 50)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(50).expand(8, 50))
    assert not torch.equal(epochs[0], epochs[1])


def test_training_finds_the_posterior_mean_of_a_gaussian():
    """From scalings that know neither mean nor correlation. The bound is a tenth of what the untrained network is away."""
    law = Gaussian(torch.tensor([0.5, -0.5]), SpectralCovariance.from_dense(torch.tensor([[1.0, 0.8], [0.8, 1.0]])))
    model = Preconditioned(ResidualMLP((2,), 32, 2), VariancePreserving(), 1.0)
    ratios = (0.3, 1.0, 3.0)

    @torch.no_grad()
    def away(k):
        t = model.process.time_of_ratio(k)
        noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
        x = model.process.sample(law.sample(500, seed=9), t, noise)
        return float((model.denoise(x, t) - law.posterior_mean(x, model.process, t)).square().mean())

    before = [away(k) for k in ratios]
    settings = FitSettings(200, 256, learning_rate=5e-3, warmup=10)
    fit(model, law.sample(4000, seed=3), settings, DenoisingLoss(EDMWeight(1.0), LogNormalRatio(0.0, 1.2)))
    assert all(away(k) < 0.1 * b for k, b in zip(ratios, before, strict=True))


def test_classes_are_learned_and_so_is_having_none():
    """Two classes at -1 and 1: with a label the answer at high noise is the class, without it is the mean 0."""
    labels = torch.arange(200) % 2
    clean = (2.0 * labels - 1)[:, None] + 0.05 * torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    two = Dataset("two", clean, clean[:4], labels, labels[:4], 2)
    model = Preconditioned(ResidualMLP((1,), 16, 1, classes=2), EDM(), 1.0)
    fit(
        model,
        two,
        FitSettings(250, 128, learning_rate=1e-2, warmup=10),
        DenoisingLoss(EDMWeight(1.0), LogNormalRatio(1.0, 1.0), label_dropout=0.3),
    )
    x, t = torch.zeros(3, 1), EDM().time_of_ratio(5.0)
    with torch.no_grad():
        got = model.denoise(x, t, torch.tensor([0, 1, -1])).flatten().tolist()
        assert got == pytest.approx([-1, 1, 0], abs=0.15)
        assert model.denoise(x, t)[0].item() == pytest.approx(got[2], abs=1e-5)


def test_data_set_without_labels_trains_the_null_class_of_a_conditional_network():
    plain = Dataset("plain", data(), data(3))
    model, twin = denoiser(classes=2), denoiser(classes=2)
    fit(model, plain, SETTINGS)
    fit(twin, data(), SETTINGS)
    assert equal(weights(model), weights(twin))


def test_progress_and_average_are_handed_out():
    seen, probes = [], []

    def on_step(done, model, average):
        raw = model.network.last.weight.clone()
        with average.applied(model):
            probes.append(float((model.network.last.weight - raw).abs().max().detach()))

    model = Preconditioned(
        ResidualMLP((1, 2, 2), 8, 2),
        VariancePreserving(),
        GaussianScalings(Gaussian(torch.zeros(4), SpectralCovariance.isotropic(4, 2.0, dtype=torch.float32), (1, 2, 2))),
    )
    result = fit(model, data(), SETTINGS, on_step=on_step, progress=lambda done, total, loss: seen.append((done, total, loss)))
    assert [s[:2] for s in seen] == [(25, 40), (40, 40)]
    assert seen[0][2] == pytest.approx(float(result.losses[:25].mean()))
    assert len(probes) == 41  # the untrained network too, which is its own average
    assert probes[30] > 0
    assert result.examples_per_second == pytest.approx(40 * 16 / result.seconds)


def test_mixed_precision_trains_and_resumes_bit_identically(tmp_path):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # accelerate keeps one precision per process
    AcceleratorState._reset_state(reset_partial_state=True)
    half = Accelerator(mixed_precision="bf16", cpu=True)
    try:
        whole, model = denoiser(), denoiser()
        first = fit(whole, data(), SETTINGS, accelerator=half)
        with pytest.raises(Stop):
            fit(denoiser(), data(), SETTINGS, accelerator=half, folder=tmp_path, save_every=10, on_step=stop_at(25, Stop()))
        fit(model, data(), SETTINGS, accelerator=half, folder=tmp_path)
        assert equal(weights(model), weights(whole))
        assert next(model.parameters()).dtype == torch.float32
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    # the same call in full precision is another run
    with pytest.raises(CheckpointError, match="precision"):
        fit(denoiser(), data(), SETTINGS, folder=tmp_path)
    assert not torch.equal(first.losses, fit(denoiser(), data(), SETTINGS).losses)
