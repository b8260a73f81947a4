"""A recorder sees the weights it says it sees, at the steps it was told, and training does not notice."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError
from sfumato.learn import FitSettings, Recorder, fit, log_steps
from sfumato.noise import EDM

SETTINGS = FitSettings(20, 16, learning_rate=3e-3, warmup=0, seed=7)
WANTED = (0, 1, 7, 20)


def train(on_step=None, **options):
    model = Preconditioned(ResidualMLP((3,), 8, 2), EDM(), 1.0)
    fit(model, torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), SETTINGS, on_step=on_step, **options)
    return model


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("weights", ["raw", "averaged"])
def test_it_sees_the_weights_it_says_and_training_does_not_notice(weights):
    """The averages are formed again here from the raw weights of every step, by the published rule."""
    path = []
    train(lambda done, model, average: path.append(flat(model)))
    average = path[0].clone()
    averages = [average]
    for i, raw in enumerate(path[1:]):
        decay = min(SETTINGS.ema_decay, (1 + i) / (10 + i))
        averages.append(decay * averages[-1] + (1 - decay) * raw)
    recorder = Recorder(flat, WANTED, weights)
    assert torch.equal(flat(train(recorder)), flat(train()))
    assert recorder.steps == list(WANTED)
    for step, seen in zip(recorder.steps, recorder.answers, strict=True):
        torch.testing.assert_close(seen, (path if weights == "raw" else averages)[step], rtol=1e-5, atol=1e-6)
    # control: from the first step on the two are not the same
    assert float((path[7] - averages[7]).abs().max()) > 1e-3


def test_the_probe_sees_evaluation_mode_without_gradients_and_training_mode_comes_back():
    modes = []
    recorder = Recorder(lambda model: (model.training, torch.is_grad_enabled()), WANTED)

    def on_step(done, model, average):
        recorder(done, model, average)
        modes.append(model.training)

    train(on_step)
    assert recorder.answers == [(False, False)] * len(WANTED)
    assert all(modes)


def test_training_mode_comes_back_after_a_probe_that_fails(monkeypatch):
    def fails(model):
        raise ValueError("no")

    seen = []

    def on_step(done, model, average):
        with pytest.raises(ValueError, match="no"):
            Recorder(fails, [0])(done, model, average)
        seen.append(model.training)
        raise KeyError("enough")

    with pytest.raises(KeyError):
        train(on_step)
    assert seen == [True]


def test_a_resumed_run_tells_of_its_own_steps(tmp_path):
    class Stop(Exception):
        pass

    def stop(done, model, average):
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        train(stop, folder=tmp_path, save_every=5)
    recorder = Recorder(flat, WANTED)
    train(recorder, folder=tmp_path)
    whole = Recorder(flat, WANTED)
    train(whole)
    assert recorder.steps[-1] == 20
    assert set(recorder.steps) <= set(WANTED)
    assert torch.equal(recorder.answers[-1], whole.answers[-1])


@pytest.mark.parametrize(("total", "records"), [(1, 2), (10, 100), (1600, 12), (100_000, 26)])
def test_log_steps_hold_both_ends_and_rise_evenly(total, records):
    steps = log_steps(total, records)
    assert (steps[0], steps[-1]) == (0, total)
    assert len(steps) <= records
    assert all(a < b for a, b in pairwise(steps))
    # where integers do not bind, successive ratios of 1 + step are equal
    late = [(1 + b) / (1 + a) for a, b in pairwise(steps) if a > 200]
    assert not late or max(late) / min(late) < 1.01


def test_bad_input_is_refused():
    for wrong in (lambda: Recorder(flat, []), lambda: Recorder(flat, [-1]), lambda: log_steps(0, 5), lambda: log_steps(5, 1)):
        with pytest.raises(ArgumentError):
            wrong()
