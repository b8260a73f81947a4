"""The command line as a user meets it: the main job in small, and one clear line for everything that is wrong."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.cli import main


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "out"
    assert call("tune", "--data", "digits", "--out", out, "--steps", 40, "--quick", "--evaluations", "4,6") == 0
    return out


def test_tune_writes_a_recipe_a_report_and_its_figures(tuned):
    assert {p.name for p in tuned.iterdir()} == {"model", "recipe.json", "statistics.safetensors", "report.html", "tune.json"}
    figures = json.loads((tuned / "tune.json").read_text())
    assert {c["evaluations"] for c in figures["candidates"] if c["family"] == "ours"} == {4, 6}
    assert (tuned / "report.html").read_text().lower().startswith("<!doctype html>")


def test_sample_draws_the_same_numbers_for_the_same_seed_and_a_picture(tuned, tmp_path):
    for name in ("a.npy", "b.npy"):
        assert call("sample", tuned, "-n", 5, "--seed", 3, "--evaluations", 4, "--out", tmp_path / name) == 0
    first, second = (np.load(tmp_path / name) for name in ("a.npy", "b.npy"))
    assert first.shape == (5, 1, 8, 8)
    np.testing.assert_array_equal(first, second)
    assert call("sample", tuned / "recipe.json", "-n", 9, "--out", tmp_path / "grid.png") == 0
    with Image.open(tmp_path / "grid.png") as picture:
        assert min(picture.size) >= 256


def test_tune_again_takes_the_trained_model_and_gives_the_same_recipe(tuned, tmp_path, capsys):
    out = tmp_path / "again"
    assert call("tune", tuned / "model", "--out", out, "--quick", "--evaluations", "4") == 0
    first, second = (json.loads((folder / "recipe.json").read_text()) for folder in (tuned, out))
    assert first["programs"]["4"] == second["programs"]["4"]


def bad_inputs(folder):
    data = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    with_nan = data.copy()
    with_nan[7, 1] = np.nan
    for name, array in (("nan", with_nan), ("constant", np.ones((40, 3), np.float32)), ("one", data[:1])):
        np.save(folder / f"{name}.npy", array)
    (folder / "cut.npy").write_bytes((folder / "nan.npy").read_bytes()[:70])
    (folder / "file").write_text("")
    return folder


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["tune", "--evaluations", "5,many"], "--evaluations"),
        (["tune", "--evaluations", "0"], "evaluations"),
        (["tune", "--tolerance", "-1"], "tolerance"),
        (["tune", "--data", "no-such-set"], "no-such-set"),
        (["tune", "--data", "{}/nan.npy"], "NaN"),
        (["tune", "--data", "{}/constant.npy"], "constant"),
        (["tune", "--data", "{}/one.npy"], "at least 3"),
        (["tune", "--data", "{}/cut.npy"], "cut.npy"),
        (["tune", "{}/no-model"], "no-model"),
        (["tune", "--out", "{}/file/below"], "--out"),
        (["train", "digits", "--steps", "0", "--out", "{}/m"], "steps"),
        (["sample", "{}/nothing"], "nothing"),
        (["sample", "{}/file"], "file"),
        (["no-such-command"], "no-such-command"),
        (["tune", "--no-such-option"], "--no-such-option"),
    ],
)
def test_bad_input_is_one_clear_line_and_no_traceback(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    folder = bad_inputs(tmp_path)
    assert call(*(a.format(folder) for a in arguments)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert named in said
    assert "Traceback" not in said
    assert not (tmp_path / "sfumato-out" / "recipe.json").exists()


def test_a_recipe_for_other_events_than_the_models_is_refused(tuned, tmp_path, capsys):
    data = json.loads((tuned / "recipe.json").read_text())
    data["event_shape"] = [64]
    (tmp_path / "recipe.json").write_text(json.dumps(data))
    (tmp_path / "statistics.safetensors").write_bytes((tuned / "statistics.safetensors").read_bytes())
    assert call("sample", tmp_path, "--model", tuned / "model", "--out", tmp_path / "x.npy") == 2
    assert "event shape" in capsys.readouterr().err
    assert not (tmp_path / "x.npy").exists()


@pytest.mark.parametrize(("option", "value"), [("-n", 0), ("--evaluations", 5), ("--out", "x.gif"), ("--label", 3)])
def test_a_sample_that_cannot_be_drawn_is_refused(tuned, tmp_path, capsys, monkeypatch, option, value):
    monkeypatch.chdir(tmp_path)
    assert call("sample", tuned, option, value) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("error: ")


def test_interrupted_work_says_so_and_leaves_what_was_written(tuned, tmp_path, capsys, monkeypatch):
    before = {p.name: p.read_bytes() for p in tuned.iterdir() if p.is_file()}

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sfumato.tune.search.fit_program", stop)
    assert call("tune", tuned / "model", "--out", tuned, "--quick", "--evaluations", "4,6") == 130
    assert "stopped" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in tuned.iterdir() if p.is_file()} == before


def test_training_says_where_it_goes_on(tmp_path, capsys, monkeypatch):
    """Stopped by the tenth step of a new run, gone on with, and asked for once more."""
    from sfumato.learn.training.run import Run

    step = Run.step

    def stop(run: Run) -> None:
        step(run)
        if run.done == 10:
            signal.raise_signal(signal.SIGINT)

    arguments = ("train", "moons", "--out", tmp_path / "model", "--steps", "40", "--batch", "16")
    monkeypatch.setattr(Run, "step", stop)
    assert call(*arguments) == 130
    assert "goes on" not in capsys.readouterr().err.replace("the same command goes on", "")
    monkeypatch.undo()
    assert call(*arguments) == 0
    assert "goes on after 10 steps" in capsys.readouterr().err
    assert call(*arguments) == 0
    assert "trained before" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
    from sfumato.errors import DataError

    with pytest.raises(DataError):
        main(["tune", "--data", "no-such-set", "--out", str(tmp_path), "--debug"])


def test_a_checkpoint_that_is_a_pickle_is_refused_unread(tuned, tmp_path, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((tuned / "model" / "config.json").read_bytes())
    torch.save({"weights": torch.zeros(3)}, folder / "model.safetensors")
    assert call("tune", folder, "--out", tmp_path / "out") == 2
    assert "safetensors" in capsys.readouterr().err
