"""Models on the hub: a folder that is ready to be shared, with a card that says what it is, and the way there and back.

A shared folder holds `config.json` and `model.safetensors` (see `sfumato.learn.training.checkpoint`), `README.md` (the card) and, if there
is a recipe, `recipe.json` and `statistics.safetensors`. Nothing else goes up or comes down, so nothing that could be run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sfumato.denoise import Preconditioned
from sfumato.errors import ArgumentError, CheckpointError, MissingExtraError
from sfumato.files import write_bytes
from sfumato.integrations.subject import HUB, is_pipeline
from sfumato.learn import about_model, load_model, save_model
from sfumato.learn.training.checkpoint import CONFIG, WEIGHTS
from sfumato.learn.training.files import read_json

CARD = "README.md"
_RECIPE = ("recipe.json", "statistics.safetensors")
FILES = (CONFIG, WEIGHTS, CARD, *_RECIPE)
"""What is shared."""


def save_pretrained(
    denoiser: Preconditioned,
    folder: str | Path,
    *,
    about: dict[str, Any] | None = None,
    recipe: str | Path | None = None,
    licence: str = "unknown",
) -> None:
    """Write a folder that is ready to be shared: model, card and, if given, a recipe's files, which then name this model.

    Arguments:
        denoiser: the model.
        folder: made if need be.
        about: plain data on the model, such as `{"data": "digits"}`; the card shows it.
        recipe: a recipe's folder.
        licence: the hub's name of the licence (`apache-2.0`, ...); the author's to choose.

    Raises:
        ArgumentError: see `sfumato.learn.save_model`.
        CheckpointError: a recipe that cannot be read.
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    save_model(denoiser, folder, about)
    if recipe is not None:
        _copy_recipe(Path(recipe), folder)
    write_bytes(folder / CARD, model_card(folder, licence).encode())


def from_pretrained(where: str | Path, *, revision: str | None = None, device: torch.device | str = "cpu") -> Preconditioned:
    """The model in a folder, or of an id on the hub (`owner/name`), in evaluation mode.

    Raises:
        ArgumentError: neither a folder nor an id that can be reached or has been fetched before.
        CheckpointError: no model of ours in it, or a broken one.
        MissingExtraError: an id, and `huggingface_hub` is not installed.
    """
    path = Path(where).expanduser()
    return load_model(path if path.exists() else fetch(str(where), revision), device)


def fetch(repo: str, revision: str | None = None) -> Path:
    """The folder of a model on the hub, downloaded once; none but the files in `FILES`.

    Raises:
        ArgumentError: no id, or one that cannot be reached and has not been fetched before.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    try:
        return Path(_library().snapshot_download(repo.removeprefix(HUB), revision=revision, allow_patterns=list(FILES)))
    except (OSError, ValueError) as error:
        hint = f"The hub's library says: {_first_line(error)}. Without a network, give a folder."
        raise ArgumentError("model", repo, "a folder, or the id of a model on the hub, owner/name", hint) from error


def is_hub_id(where: str | Path) -> bool:
    """Whether this can only be a name on the hub: no folder, and `owner/name` or marked by a recipe as lying there."""
    return is_pipeline(where) and not Path(where).expanduser().exists()


def model_folder(where: str | Path) -> Path | None:
    """Where a model of ours lies, fetched if need be; None for a pipeline of `diffusers`, and for an id that tells us nothing.

    Raises:
        ArgumentError: neither a folder nor an id as the hub has them.
    """
    if not is_hub_id(where):
        path = Path(where).expanduser()
        if not path.is_dir():
            hint = "There is no such folder." if not path.exists() else "This is a file."
            raise ArgumentError("model", str(where), "the folder of a model or a pipeline, or a hub id, owner/name", hint)
        return None if is_pipeline(path) else path
    try:
        # not the download of one file, which tries for long where there is no network
        config = read_json(Path(_library().snapshot_download(str(where).removeprefix(HUB), allow_patterns=[CONFIG])) / CONFIG)
    except (OSError, ValueError, MissingExtraError):
        # whoever reads pipelines says what is wrong with the id
        return None
    return fetch(str(where)) if config.get("format") == "sfumato-model" else None


def push_to_hub(folder: str | Path, repo: str, *, private: bool = False, message: str = "A denoiser of sfumato") -> str:
    """Share a folder that holds a model: the repository is made if need be, the card too, in which it is then named.

    Who you are the hub's library knows from `hf auth login` or `HF_TOKEN`.

    Arguments:
        folder: from `save_pretrained`, `sfumato train`, ... Files that are not in `FILES`, such as the state of a run, stay here.
        repo: `owner/name`.
        private: whether a repository that is made is private.
        message: of the commit.

    Returns:
        The address of the model.

    Raises:
        CheckpointError: no model in the folder, or a broken one; nothing is sent.
        ArgumentError: the hub refuses, or cannot be reached.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    folder, library = Path(folder), _library()
    load_model(folder)
    card = folder / CARD
    text = card.read_text("utf-8") if card.exists() else model_card(folder)
    write_bytes(card, text.replace(_NAME, repo).encode())
    try:
        api = library.HfApi()
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=str(folder), allow_patterns=list(FILES), commit_message=message)
    except (OSError, ValueError) as error:
        hint = f"The hub's library says: {_first_line(error)}."
        raise ArgumentError("repo", repo, "a name on the hub, owner/name, that you may write to", hint) from error
    return str(address)


def model_card(folder: str | Path, licence: str = "unknown") -> str:
    """The card of the model in a folder: what the hub wants to know, what it was trained on, and how to use it.

    Raises:
        CheckpointError: no model in the folder, or a broken one.
    """
    folder = Path(folder)
    about, denoiser, config = about_model(folder), load_model(folder), read_json(folder / CONFIG)
    kept: dict[str, Any] = {
        "data": about.get("data", "not said"),
        "events": " x ".join(map(str, denoiser.event_shape or ())) or "any shape",
        "classes": denoiser.classes or "none",
        "network": type(denoiser.network).__name__,
        "parameters": f"{sum(p.numel() for p in denoiser.parameters()):,}",
        "process": config["process"].get("kind", "not said"),
        **{name: value for name, value in about.items() if name != "data"},
    }
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in kept.items())
    return _TEMPLATE.format(licence=licence, table=table, recipe=_WITH_RECIPE if (folder / _RECIPE[0]).exists() else "")


_NAME = "OWNER/NAME"
"""What a card calls a model that has no name on the hub yet."""

_TEMPLATE = """---
library_name: sfumato
license: {licence}  # the author's to choose; "unknown" until then
tags:
- sfumato
- diffusion
- denoiser
---

# A denoiser

It answers what clean data are to be expected behind noisy data, `E[x_0 | x_t]`, for the Python package `sfumato`.

| | |
|---|---|
{table}

```python
from sfumato.integrations.hub import from_pretrained
denoiser = from_pretrained("OWNER/NAME")  # an id on the hub, or a folder
clean = denoiser.denoise(noisy, t=0.5)  # noisy: (batch, *event); t from 0 (clean) to 1 (noise)
```
{recipe}
The weights are safetensors and everything else is JSON: loading runs no code of this repository.
"""

_WITH_RECIPE = """
Beside it lies a recipe, a sampler tuned for this model:

```sh
sfumato sample OWNER/NAME -n 64 --seed 0 --out grid.png
```
"""


def _copy_recipe(source: Path, folder: Path) -> None:
    """The files of a recipe, whose model then is the folder itself."""
    recipe = read_json(source / _RECIPE[0])
    if "programs" not in recipe:
        raise CheckpointError("recipe", str(source), "a recipe's folder")
    write_bytes(folder / _RECIPE[0], (json.dumps({**recipe, "model": "."}, indent=1) + "\n").encode())
    law = source / _RECIPE[1]
    if law.exists():
        try:
            content = law.read_bytes()
        except OSError as error:
            raise CheckpointError("recipe", str(law), "a file that can be read", str(error)) from error
        write_bytes(folder / _RECIPE[1], content)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "diffusers") from error
    return huggingface_hub
