"""Several processes give what one gives: the same noise and samples bit for bit, the same training to rounding, and one voice.

Every world of 2 and 3 processes is started once, on gloo and the CPU, and does all its work in one go (`work`); one process is this one.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EVENT, N, CHUNK, SEED = (1, 2, 2), 22, 4, 5
BATCH, STEPS = 12, 20


def model(trained=True):
    from sfumato.denoise import Preconditioned, ResidualMLP
    from sfumato.noise import VariancePreserving

    out = Preconditioned(ResidualMLP(EVENT, 8, 2, seed=3), VariancePreserving(), 1.0)
    if trained:
        with torch.no_grad():
            # an untrained network says nothing
            out.network.last.weight.normal_(generator=torch.Generator().manual_seed(1))
    return out


def sampler():
    from sfumato.sample import Sampler, uniform_log_snr
    from sfumato.sample.compilers.ancestral import Ancestral

    own = model()
    return Sampler(own, Ancestral().compile(own.process, uniform_log_snr(own.process, 4)), EVENT)


def drawn(ranks, n, chunk):
    own = sampler()
    return ranks.rows(lambda first, rows: own.sample(rows, SEED, first=first, chunk=min(chunk, n)), n, chunk)


def noise_of(ranks):
    from sfumato.seeds import noise

    return ranks.rows(lambda first, rows: noise(SEED, rows, EVENT, first=first).draw(2), N, CHUNK)


def questions():
    """What a denoiser is asked: rows that ranks cannot share equally, a time for all, a time for each, fewer rows than ranks."""
    x = torch.randn(7, *EVENT, generator=torch.Generator().manual_seed(2))
    return [(x, 0.4), (x, torch.linspace(0.1, 0.9, 7, dtype=torch.float64)), (x, torch.tensor([0.3])), (x[:1], 0.7)]


def trained(batch=BATCH, folder=None):
    from sfumato.learn import FitSettings, fit

    own = model(trained=False)
    data = torch.randn(50, *EVENT, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 0.5])
    result = fit(own, data, FitSettings(STEPS, batch, learning_rate=3e-3, warmup=5, seed=7), folder=folder, save_every=8)
    return {"losses": result.losses, **{name: p.detach() for name, p in own.named_parameters()}}


def work(folder):
    """The work of one rank: what it has found goes into a file of its own, so that all ranks can be looked at."""
    from sfumato.cli import main
    from sfumato.denoise.spread import lead
    from sfumato.ranks import join

    ranks = join()
    found = {"noise": noise_of(ranks), "samples": drawn(ranks, N, CHUNK), "few": drawn(ranks, 3, 256)}
    with lead(model(), ranks) as asked:
        for i, (x, t) in enumerate(questions() if asked is not None else []):
            found[f"answer {i}"] = asked.denoise(x, t).detach()
        if asked is not None:
            x = questions()[0][0].requires_grad_()
            found["gradient"] = torch.autograd.grad(asked.denoise(x, 0.4).square().sum(), x)[0]
    found |= {f"fit {name}": value for name, value in trained(folder=folder / "run").items()}
    torch.save({"count": ranks.count, **found}, folder / f"rank{ranks.index}.pt")
    command = json.loads((folder / "command.json").read_text())
    main(command)


def start(folder, count, command):
    """Processes as a launcher starts them; their outputs and exit codes."""
    folder.mkdir()
    (folder / "command.json").write_text(json.dumps(command))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_ranks as t; t.work(t.Path(sys.argv[2]))"
    arguments = [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent), str(folder)]
    return [
        subprocess.Popen(
            arguments, env={**env, "RANK": str(i), "LOCAL_RANK": str(i)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for i in range(count)
    ]


def finish(processes):
    try:
        said = [p.communicate(timeout=120) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(p.returncode, out, err) for p, (out, err) in zip(processes, said, strict=True)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe for a small model, so that the command line has something to draw from."""
    from sfumato.learn import save_model
    from sfumato.tune import Recipe

    folder = tmp_path_factory.mktemp("recipe")
    save_model(model(), folder / "model")
    Recipe(EVENT, {4: sampler().program}, 4, model="model").save(folder)
    return folder


@pytest.fixture(scope="module")
def worlds(tmp_path_factory, recipe):
    """By count: what every rank found, what it said, and its folder."""
    base = tmp_path_factory.mktemp("worlds")
    draw = ["sample", str(recipe), "-n", str(N), "--chunk", str(CHUNK), "--seed", str(SEED), "--out"]
    commands = {2: [*draw, str(base / "drawn.npy")], 3: [*draw, str(base / "x.npy"), "--label", "3"]}
    started = {count: start(base / str(count), count, command) for count, command in commands.items()}
    said = {count: finish(processes) for count, processes in started.items()}
    for count, outcomes in said.items():
        for i, (_, _, err) in enumerate(outcomes):
            assert (base / str(count) / f"rank{i}.pt").exists(), err
    found = {c: [torch.load(base / str(c) / f"rank{i}.pt") for i in range(c)] for c in commands}
    return {c: (found[c], said[c], base) for c in commands}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_noise_and_samples_are_those_of_one_process_bit_for_bit_on_every_rank(worlds, count):
    from sfumato.ranks import Ranks
    from sfumato.seeds import noise

    own = sampler()
    expected = {
        "noise": noise(SEED, N, EVENT).draw(2),
        "samples": own.sample(N, SEED, chunk=CHUNK),
        "few": own.sample(3, SEED),
    }
    assert torch.equal(drawn(Ranks(), N, CHUNK), expected["samples"])
    assert torch.equal(noise_of(Ranks()), expected["noise"])
    for found in worlds[count][0]:
        assert found["count"] == count
        for name, value in expected.items():
            assert torch.equal(found[name], value), name
    # negative control: samples of other numbers are others
    assert not torch.equal(own.sample(N, SEED, first=1, chunk=CHUNK), expected["samples"])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_a_denoiser_that_ranks_answer_for_says_the_same_to_rounding(worlds, count):
    own, (first, *others) = model(), worlds[count][0]
    for i, (x, t) in enumerate(questions()):
        torch.testing.assert_close(first[f"answer {i}"], own.denoise(x, t).detach(), rtol=1e-6, atol=1e-6)
    x = questions()[0][0].requires_grad_()
    expected = torch.autograd.grad(own.denoise(x, 0.4).square().sum(), x)[0]
    torch.testing.assert_close(first["gradient"], expected, rtol=1e-6, atol=1e-6)
    assert not any("gradient" in found for found in others)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_training_on_ranks_is_training_on_one_with_the_batch_of_all(worlds, count):
    """The batch is that of all ranks together, so two ranks of 6 are one of 12; a half batch on one rank is far off."""
    from sfumato.learn import load_model

    expected, half = trained(), trained(BATCH // 2)
    for found in worlds[count][0]:
        for name, value in expected.items():
            torch.testing.assert_close(found[f"fit {name}"], value, rtol=0, atol=1e-5)
    assert float((half["network.last.weight"] - expected["network.last.weight"]).abs().max()) > 1e-3
    # what was kept is what every rank has
    kept = load_model(worlds[count][2] / str(count) / "run")
    for name, value in kept.named_parameters():
        assert torch.equal(value, worlds[count][0][-1][f"fit {name}"])


@pytest.mark.slow
def test_a_run_of_two_ranks_is_taken_up_by_one(worlds, tmp_path):
    """Its state says nothing of ranks: one process finds the run of two finished, and has its weights without a step."""
    shutil.copytree(worlds[2][2] / "2" / "run", tmp_path / "run")
    taken = trained(folder=tmp_path / "run")
    for name, value in taken.items():
        assert torch.equal(value, worlds[2][0][0][f"fit {name}"])


@pytest.mark.slow
def test_the_command_line_writes_and_speaks_once(worlds):
    """Two ranks draw with a recipe: one file, the numbers of one process, and a word from the first rank alone."""
    _, said, base = worlds[2]
    assert [code for code, _, _ in said] == [0, 0]
    assert said[0][1].strip() == f"wrote {base / 'drawn.npy'}"
    assert said[1][1] == ""
    assert said[1][2] == ""
    np.testing.assert_array_equal(np.load(base / "drawn.npy"), sampler().sample(N, SEED, chunk=CHUNK).numpy())


@pytest.mark.slow
def test_what_is_wrong_is_said_once(worlds):
    """Three ranks are asked for a class that the model has not."""
    _, said, base = worlds[3]
    assert [code for code, _, _ in said] == [2, 2, 2]
    assert said[0][2].strip().splitlines()[-1].startswith("error: --label")
    assert [err for _, _, err in said[1:]] == ["", ""]
    assert not (base / "x.npy").exists()


@pytest.mark.parametrize("n", [1, 3, 4, 9, 22])
@pytest.mark.parametrize("chunk", [1, 4, 256])
def test_shares_are_whole_chunks_that_follow_on_one_another_and_the_first_is_never_empty(n, chunk):
    from sfumato.ranks import Ranks

    size = min(n, chunk)
    for count in (1, 2, 3, 8):
        shares = [Ranks(i, count).share(n, chunk) for i in range(count)]
        assert shares[0][1] > 0
        assert all(rows % size == 0 for _, rows in shares)
        ends = [start + rows for start, rows in shares]
        assert [start for start, _ in shares] == [0, *ends[:-1]]
        assert n <= ends[-1] < n + size
        assert max(rows for _, rows in shares) - min(rows for _, rows in shares) <= size


def test_ranks_that_mean_nothing_are_refused():
    from sfumato.errors import ArgumentError
    from sfumato.ranks import Ranks

    with pytest.raises(ArgumentError, match="index, count"):
        Ranks(2, 2)
    for n, chunk in ((0, 4), (4, 0)):
        with pytest.raises(ArgumentError, match="n, chunk"):
            Ranks().share(n, chunk)


def test_without_a_launcher_there_is_one_process_and_the_denoiser_itself(monkeypatch):
    from sfumato.denoise.spread import lead
    from sfumato.ranks import Ranks, join

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert join().count == 1
    own = model()
    with lead(own, Ranks()) as asked:
        assert asked is own
    assert Ranks().agree("a") == "a"


@pytest.mark.parametrize(("count", "batch", "used"), [(1, None, 256), (2, None, 256), (3, None, 258), (2, 100, 100)])
def test_the_default_batch_is_raised_to_one_that_ranks_can_share(monkeypatch, tmp_path, count, batch, used):
    from sfumato.data import digits
    from sfumato.ranks import Ranks
    from sfumato.subjects import train_on

    seen = []
    monkeypatch.setattr("sfumato.learn.fit", lambda denoiser, data, settings, *_, **__: seen.append(settings.batch_size))
    train_on(digits(), tmp_path, Ranks(0, count), 0, 5, batch=batch)
    assert seen == [used]


def test_the_question_that_trains_is_refused_to_several_ranks(monkeypatch, tmp_path, capsys):
    from sfumato.cli import main
    from sfumato.ranks import Ranks

    monkeypatch.setattr("sfumato.ranks.join", lambda: Ranks(0, 2))
    with pytest.raises(SystemExit) as stop:
        main(["explain", "--only", "learning", "--out", str(tmp_path / "page")])
    assert stop.value.code == 2
    assert "single process" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_errors_of_another_machine_are_said_with_their_rank(monkeypatch, capfd):
    from sfumato.voice import complain

    cases = [("0", "0", False, "no"), ("8", "0", False, "rank 8: no"), ("9", "1", False, ""), ("9", "1", True, "rank 9: no")]
    for rank, local, alone, said in cases:
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", local)
        complain("no", alone)
        assert capfd.readouterr().err.strip() == said
