"""What a command works on: a model that is given, or trained on the spot; its data; a place to write to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.errors import ArgumentError, OutputError
from sfumato.holding import held

if TYPE_CHECKING:
    from sfumato.data import Dataset
    from sfumato.denoise import Preconditioned
    from sfumato.ranks import Ranks


@dataclass(frozen=True)
class Subject:
    """A model and its data.

    Arguments:
        denoiser: the model.
        data: its data; None on ranks that only answer for it.
        place: where it lies, seen from the folder that is written to.
        about: facts about it.
    """

    denoiser: Any
    data: Dataset | None
    place: str
    about: dict[str, Any]


def writable(folder: Path, ranks: Ranks) -> None:
    """Find out before the work, not after it, that nothing can be written."""
    if not ranks.first:
        return
    probe = folder / ".sfumato-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise OutputError(f"--out: expected a folder that can be written, got {folder} ({e.strerror}).") from e


@contextmanager
def alone(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Inside, no other command writes to the folder.

    Raises:
        OutputError: another one does, or nothing can be written.
    """
    writable(folder, ranks)
    with held(folder) if ranks.first else nullcontext():
        yield


def train_on(
    data: Dataset, out: Path, ranks: Ranks, seed: int, steps: int | None, conditional: bool = False, batch: int | None = None
) -> Preconditioned:
    """Train the default denoiser, on all ranks together; the default batch is raised to a number that they can share."""
    from sfumato.learn import default_denoiser, default_loss, default_settings, fit

    from .console import Console

    if conditional and data.classes is None:
        raise ArgumentError("--conditional", "data without classes", "labelled data, e.g. a folder with one sub-folder a class")
    denoiser = default_denoiser(data, conditional=conditional, seed=seed)
    settings = default_settings(data, seed=seed, steps=steps)
    shared = -(-settings.batch_size // ranks.count) * ranks.count
    settings = replace(settings, batch_size=shared if batch is None else batch)
    with Console() as console:
        console.begin(f"training on {data.name}", settings.steps)
        done: int | None = None

        def begin(made: int, *_: object) -> None:
            nonlocal done
            if done is None:
                done = max(0, made - 1)
                if done:
                    console.note(f"goes on after {done} steps that were saved in {out}")
                    console.advance(done)

        def show(made: int, total: int, loss: float) -> None:
            nonlocal done
            console.advance(made - (done or 0))
            done = made
            console.say(f"loss {loss:.4g}")

        every = max(50, settings.steps // 8)
        fit(denoiser, data, settings, default_loss(data), folder=out, save_every=every, on_step=begin, progress=show)
        if done is None:
            console.note(f"trained before: {out}")
    return denoiser


def open_model(where: str, prompt: str | None = None, guidance: float = 1.0) -> tuple[Any, dict[str, Any]]:
    """A model of ours or a pipeline's, in a folder or on the hub, and what is known of it."""
    from sfumato.integrations.hub import model_folder
    from sfumato.integrations.subject import facts, open_pipeline
    from sfumato.learn import about_model, load_model

    folder = model_folder(where)
    if folder is None:
        denoiser = open_pipeline(where, prompt, guidance)
        return denoiser, facts(denoiser)
    if prompt is not None or guidance != 1:
        raise ArgumentError("--prompt, --guidance", prompt, "none", "This model reads no prompts.")
    return load_model(folder), about_model(folder)


def subject_of(
    model: str | None,
    data: str | None,
    out: Path,
    ranks: Ranks,
    seed: int,
    steps: int | None,
    prompt: str | None = None,
    guidance: float = 1.0,
    own: int = 1500,
) -> Subject:
    """The model to look at, trained first if none is given; a pipeline without data is shown `own` samples of itself."""
    from sfumato.data import load
    from sfumato.integrations.pipeline import Given, PipelineDenoiser
    from sfumato.integrations.subject import HUB, pipeline_data

    if model is None:
        dataset = load(data or "digits")
        denoiser = train_on(dataset, out / "model", ranks, seed, steps)
        return Subject(denoiser, dataset, "model", {"name": f"small denoiser trained on {dataset.name}", "parameters": _size(denoiser)})
    denoiser, kept = open_model(model, prompt, guidance)
    place, name = (str(Path(model).resolve()), Path(model).name) if Path(model).exists() else (HUB + model.removeprefix(HUB), model)
    if isinstance(denoiser, PipelineDenoiser | Given):
        drawn = _own_samples(denoiser, own, ranks, seed) if data is None else pipeline_data(denoiser, data)
        return Subject(denoiser, drawn, place, {"name": name, **kept})
    spec = data or kept.get("data")
    if spec is None:
        raise ArgumentError("--data", None, "the data the model was trained on", "The model does not say what it was.")
    dataset = load(spec)
    if denoiser.event_shape not in (None, dataset.event_shape):
        raise ArgumentError("--data", f"events of shape {dataset.event_shape}", f"events of the model's shape, {denoiser.event_shape}")
    return Subject(denoiser, dataset, place, {"name": name, "parameters": _size(denoiser)})


def _own_samples(denoiser: Any, n: int, ranks: Ranks, seed: int) -> Dataset | None:
    """What the model itself draws; None on other ranks than the first, which have helped."""
    from sfumato.denoise.spread import lead
    from sfumato.integrations.subject import own_samples

    from .console import Console

    asked: Any
    with Console() as console, lead(denoiser, ranks) as asked:
        if asked is None:
            return None
        console.begin(f"{n} samples of the model, as its data", n)
        done = 0

        def show(made: int) -> None:
            nonlocal done
            console.advance(made - done)
            done = made

        return own_samples(asked, n, seed, show)


def _size(denoiser: Any) -> int:
    return sum(p.numel() for p in denoiser.parameters())
