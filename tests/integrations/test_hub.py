"""A shared folder is a whole model, its card is what the hub reads, and nothing but its own files travels either way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sfumato.denoise import Preconditioned, ResidualMLP
from sfumato.errors import ArgumentError, CheckpointError, MissingExtraError
from sfumato.exact import Gaussian, SpectralCovariance
from sfumato.integrations.hub import CARD, FILES, from_pretrained, model_folder, push_to_hub, save_pretrained
from sfumato.learn import save_model
from sfumato.noise import VariancePreserving
from sfumato.sample import Exponential, Linearisation, uniform_log_snr
from sfumato.tune import Recipe

hub = pytest.importorskip("huggingface_hub")
EVENT = (1, 2, 2)


def denoiser():
    out = Preconditioned(ResidualMLP(EVENT, 8, 1), VariancePreserving(), 1.0)
    with torch.no_grad():
        out.network.last.weight.normal_(generator=torch.Generator().manual_seed(0))
    return out


@pytest.fixture
def shared(tmp_path):
    """A model folder with a recipe and with what must not be shared."""
    law = Gaussian(torch.zeros(4, dtype=torch.float64), SpectralCovariance.isotropic(4, 2.0), EVENT)
    process = VariancePreserving()
    program = Exponential(Linearisation.gaussian(law, 0.5), 2).compile(process, uniform_log_snr(process, 4))
    Recipe(EVENT, {4: program}, 4, law, model="../somewhere/else").save(tmp_path / "tuned")
    folder = tmp_path / "model"
    save_pretrained(denoiser(), folder, about={"data": "digits | all"}, recipe=tmp_path / "tuned", licence="apache-2.0")
    (folder / "training.safetensors").write_bytes(b"the state of a run")
    (folder / "secret.py").write_text("raise SystemExit")
    return folder


class Hub:
    """The hub as a folder: patterns are honoured by the library's own filter."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.made, self.sent, self.asked = folder, [], [], []
        monkeypatch.setattr(hub.HfApi, "create_repo", self.create)
        monkeypatch.setattr(hub.HfApi, "upload_folder", self.upload)
        monkeypatch.setattr(hub, "snapshot_download", self.snapshot)

    def create(self, repo_id, *, private, exist_ok):
        self.made.append((repo_id, private, exist_ok))
        return f"https://hub.example/{repo_id}"

    def upload(self, *, repo_id, folder_path, allow_patterns, commit_message):
        names = [p.name for p in Path(folder_path).iterdir()]
        self.sent.append((repo_id, sorted(hub.utils.filter_repo_objects(names, allow_patterns=allow_patterns))))

    def snapshot(self, repo_id, *, allow_patterns, revision=None):
        self.asked.append((repo_id, revision, allow_patterns))
        if repo_id != "me/faces":
            raise hub.errors.LocalEntryNotFoundError("no network\nand more lines")
        return str(self.folder)


@pytest.fixture
def remote(shared, monkeypatch):
    return Hub(shared, monkeypatch)


def front_matter(text):
    """The card as the hub's own library reads it."""
    return hub.ModelCard(text).data.to_dict()


def test_a_saved_model_is_read_back_bit_for_bit_from_its_folder(shared):
    x = torch.randn(3, *EVENT, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(from_pretrained(shared).denoise(x, 0.5), denoiser().denoise(x, 0.5))


def test_the_card_is_what_the_hub_reads_and_names_the_figures(shared):
    text = (shared / CARD).read_text()
    said = front_matter(text)
    assert said["library_name"] == "sfumato"
    assert said["license"] == "apache-2.0"
    assert {"sfumato", "diffusion"} <= set(said["tags"])
    parameters = sum(p.numel() for p in denoiser().parameters())
    for row in (f"| parameters | {parameters:,} |", "| data | digits \\| all |", "| events | 1 x 2 x 2 |", "| network | ResidualMLP |"):
        assert row in text
    assert "sfumato sample" in text


def test_the_example_of_the_card_runs(shared):
    code = (shared / CARD).read_text().split("```python\n")[1].split("```")[0].replace("OWNER/NAME", str(shared))
    found = {"noisy": torch.zeros(2, *EVENT)}
    exec(code, found)
    assert found["clean"].shape == (2, *EVENT)


def test_without_a_licence_or_a_recipe_the_card_says_neither(tmp_path):
    save_pretrained(denoiser(), tmp_path)
    text = (tmp_path / CARD).read_text()
    assert front_matter(text)["license"] == "unknown"
    assert "sfumato sample" not in text


def test_a_shared_recipe_draws_with_the_model_beside_it(shared):
    recipe = Recipe.load(shared)
    assert recipe.model == "."
    samples = recipe.sampler(from_pretrained(shared / recipe.model)).sample(3, seed=1)
    own = recipe.sampler(denoiser()).sample(3, seed=1)
    assert torch.equal(samples, own)


def test_pushing_sends_the_shared_files_alone_under_the_models_name(shared, remote):
    assert push_to_hub(shared, "me/faces", private=True) == "https://hub.example/me/faces"
    assert remote.made == [("me/faces", True, True)]
    assert remote.sent == [("me/faces", sorted(FILES))]
    assert 'from_pretrained("me/faces")' in (shared / CARD).read_text()


def test_a_trained_folder_without_a_card_gets_one_and_the_authors_own_card_stays(tmp_path, remote):
    save_model(denoiser(), tmp_path / "m", {"data": "digits"})
    push_to_hub(tmp_path / "m", "me/faces")
    assert front_matter((tmp_path / "m" / CARD).read_text())["library_name"] == "sfumato"
    (tmp_path / "m" / CARD).write_text("My own words.\n")
    push_to_hub(tmp_path / "m", "me/faces")
    assert (tmp_path / "m" / CARD).read_text() == "My own words.\n"


def test_nothing_is_sent_of_a_broken_model(shared, remote):
    weights = shared / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError):
        push_to_hub(shared, "me/faces")
    assert remote.made == []
    assert remote.sent == []


def test_a_model_comes_down_by_its_id_with_nothing_that_could_be_run(remote):
    x = torch.ones(1, *EVENT)
    with torch.no_grad():
        assert torch.equal(from_pretrained("me/faces", revision="v1").denoise(x, 0.5), denoiser().denoise(x, 0.5))
    ((repo, revision, patterns),) = remote.asked
    assert (repo, revision) == ("me/faces", "v1")
    assert all(Path(name).suffix in (".json", ".safetensors", ".md") for name in patterns)


def test_the_command_line_draws_with_a_model_on_the_hub(remote, tmp_path):
    from sfumato.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["sample", "me/faces", "-n", "3", "--seed", "1", "--out", str(tmp_path / "x.npy")])
    assert stop.value.code == 0
    assert (tmp_path / "x.npy").exists()


def test_a_pipeline_is_not_taken_for_a_model_of_ours(remote, tmp_path):
    assert model_folder("hub:me/faces") == remote.folder
    assert model_folder("somebody/pipeline") is None
    with pytest.raises(ArgumentError, match="There is no such folder"):
        model_folder(tmp_path / "nothing")
    (tmp_path / "model_index.json").write_text("{}")
    assert model_folder(tmp_path) is None
    (remote.folder / "config.json").write_text(json.dumps({"format": "another"}))
    assert model_folder("me/faces") is None


def test_an_id_that_cannot_be_reached_is_one_clear_line(remote):
    with pytest.raises(ArgumentError, match=r"got me/other\. The hub's library says: no network\. Without .* give a folder\.$"):
        from_pretrained("me/other")


@pytest.mark.parametrize("name", ["a/b/c", "no such folder"])
def test_what_is_neither_a_folder_nor_an_id_is_refused_by_the_library_itself(name):
    """Not monkeypatched: the library refuses such names before it looks for a network."""
    with pytest.raises(ArgumentError, match="owner/name"):
        from_pretrained(name)


def test_without_the_library_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match="huggingface_hub"):
        from_pretrained("me/faces")
