"""The command line: `sfumato tune`, `sfumato explain`, `sfumato sample`, `sfumato train`, `sfumato atlas`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.errors import ArgumentError, OutputError, SfumatoError

if TYPE_CHECKING:
    from sfumato.data import Dataset
    from sfumato.denoise import Preconditioned

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build, sample, speed up, steer and understand diffusion models.",
)

Out = Annotated[Path, typer.Option(help="folder that everything is written to")]
Seed = Annotated[int, typer.Option(help="seed of all noise")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
Model = Annotated[
    str | None,
    typer.Argument(help="folder of a trained model or of a diffusers pipeline, or a hub id; trains one on the data if left out"),
]
Data = Annotated[
    str | None,
    typer.Option(help="bundled set, folder of images, or array file; default: the model's own, a pipeline's own samples, or digits"),
]
Prompted = Annotated[str | None, typer.Option("--prompt", help="what a text-to-image pipeline shall draw")]
Guidance = Annotated[float, typer.Option(help="guidance scale, with a prompt")]


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as e:
        raise ArgumentError("--evaluations", repr(text), "whole numbers with commas between, e.g. 5,8,10") from e


def _writable(folder: Path) -> None:
    """Find out before the work, not after it, that nothing can be written."""
    probe = folder / ".sfumato-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise OutputError(f"--out: expected a folder that can be written, got {folder} ({e.strerror}).") from e


def _train(data: Dataset, out: Path, seed: int, steps: int | None, conditional: bool = False) -> Preconditioned:
    from sfumato.learn import default_denoiser, default_loss, default_settings, fit

    from .console import Console

    if conditional and data.classes is None:
        raise ArgumentError("--conditional", "data without classes", "labelled data, e.g. a folder with one sub-folder a class")
    denoiser = default_denoiser(data, conditional=conditional, seed=seed)
    settings = default_settings(data, seed=seed, steps=steps)
    with Console() as console:
        console.begin(f"training on {data.name}", settings.steps)
        done = 0

        def show(made: int, total: int, loss: float) -> None:
            nonlocal done
            console.advance(made - done)
            done = made
            console.say(f"loss {loss:.4g}")

        fit(denoiser, data, settings, default_loss(data), folder=out, save_every=max(50, settings.steps // 8), progress=show)
    return denoiser


def _model(where: str, prompt: str | None = None, guidance: float = 1.0) -> tuple[Any, dict[str, Any]]:
    """A model of ours or a pipeline's, and what is known of it."""
    from sfumato.integrations.subject import facts, is_pipeline, open_pipeline
    from sfumato.learn import about_model, load_model

    if is_pipeline(where):
        denoiser = open_pipeline(where, prompt, guidance)
        return denoiser, facts(denoiser)
    if prompt is not None or guidance != 1:
        raise ArgumentError("--prompt, --guidance", prompt, "none", "This model reads no prompts.")
    return load_model(where), about_model(where)


def _subject(
    model: str | None,
    data: str | None,
    out: Path,
    seed: int,
    steps: int | None,
    prompt: str | None = None,
    guidance: float = 1.0,
    own: int = 1500,
) -> tuple[Any, Dataset, str, dict[str, Any]]:
    """The model to look at, trained first if none is given; its data; where it lies, seen from `out`; facts about it."""
    from sfumato.data import load
    from sfumato.integrations.subject import HUB, is_pipeline, own_samples, pipeline_data

    from .console import Console

    if model is None:
        dataset = load(data or "digits")
        denoiser, place, about = _train(dataset, out / "model", seed, steps), "model", {"name": f"small denoiser trained on {dataset.name}"}
        return denoiser, dataset, place, {**about, "parameters": sum(p.numel() for p in denoiser.parameters())}
    denoiser, kept = _model(model, prompt, guidance)
    place, name = (str(Path(model).resolve()), Path(model).name) if Path(model).exists() else (HUB + model.removeprefix(HUB), model)
    if is_pipeline(model):
        if data is not None:
            return denoiser, pipeline_data(denoiser, data), place, {"name": name, **kept}
        with Console() as console:
            console.begin(f"{own} samples of the model, as its data", own)
            dataset = own_samples(denoiser, own, seed)
        return denoiser, dataset, place, {"name": name, **kept}
    spec = data or kept.get("data")
    if spec is None:
        raise ArgumentError("--data", None, "the data the model was trained on", "The model does not say what it was.")
    return denoiser, load(spec), place, {"name": name, "parameters": sum(p.numel() for p in denoiser.parameters())}


@app.command()
def tune(
    model: Model = None,
    data: Data = None,
    evaluations: Annotated[str, typer.Option(help="budgets to find a sampler for")] = "5,8,10,15,20",
    tolerance: Annotated[float, typer.Option(help="relative error at the end that counts as reference quality")] = 0.01,
    out: Out = Path("sfumato-out"),
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(help="training steps, if a model has to be trained")] = None,
    prompt: Prompted = None,
    guidance: Guidance = 1.0,
    quick: Annotated[bool, typer.Option("--quick", help="a tenth of the work, for a first look; the figures are rougher")] = False,
    debug: Debug = False,
) -> None:
    """From a model to the sampler that reaches its reference quality in the fewest evaluations: recipe.json, report.html, tune.json."""
    from dataclasses import replace

    from sfumato.learn.files import write_bytes
    from sfumato.tune import TuneSettings
    from sfumato.tune import tune as tune_denoiser
    from sfumato.tune.report import write_report

    from .console import Console, show_result

    settings = TuneSettings(evaluations=_counts(evaluations), tolerance=tolerance, seed=seed)
    if quick:
        settings = replace(settings, fit=96, judge=32, measure=64, quality=100, steps=48, world_trials=10, network_trials=4)
    _writable(out)
    denoiser, dataset, place, facts = _subject(model, data, out, seed, steps, prompt, guidance, own=300 if quick else 1500)
    with Console() as console:
        recipe, result = tune_denoiser(denoiser, dataset, settings, about=facts, progress=console)
    recipe = replace(recipe, model=place, classes=denoiser.classes)
    path = recipe.save(out)
    write_bytes(out / "tune.json", json.dumps(result.to_dict(), indent=1).encode())
    write_report(result, out / "report.html", recipe.to_dict())
    show_result(result, path, out / "report.html")


@app.command()
def explain(
    model: Model = None,
    data: Data = None,
    only: Annotated[str | None, typer.Option(help="questions to ask, with commas between, e.g. gaussian,trajectory; default: all")] = None,
    out: Out = Path("sfumato-out"),
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(help="training steps, if a model has to be trained")] = None,
    prompt: Prompted = None,
    guidance: Guidance = 1.0,
    debug: Debug = False,
) -> None:
    """What a model has learned, in plain words and pictures: explain.html, explain.json."""
    from sfumato.explain.report import QUESTIONS
    from sfumato.explain.report import explain as explain_denoiser

    from .console import Console, show_panels

    chosen = None if only is None else [name.strip() for name in only.split(",")]
    for name in chosen or []:
        if name not in QUESTIONS:
            raise ArgumentError("--only", repr(name), f"questions among {', '.join(QUESTIONS)}")
    _writable(out)
    denoiser, dataset, _, about = _subject(model, data, out, seed, steps, prompt, guidance)
    with Console() as console:
        panels = explain_denoiser(denoiser, dataset, out, chosen, about=about, seed=seed, progress=console)
    show_panels(panels, out / "explain.html")


@app.command()
def sample(
    recipe: Annotated[Path, typer.Argument(help="a recipe's folder or its recipe.json")],
    n: Annotated[int, typer.Option("-n", help="how many samples")] = 64,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="what to write: .png for a grid of images, .npy or .safetensors for the numbers")] = Path(
        "grid.png"
    ),
    evaluations: Annotated[int | None, typer.Option(help="which of the recipe's budgets; default: its own choice")] = None,
    model: Annotated[str | None, typer.Option(help="folder or hub id of the model; default: the recipe's")] = None,
    prompt: Prompted = None,
    guidance: Guidance = 1.0,
    label: Annotated[int | None, typer.Option(help="class to draw, for a class-conditional model")] = None,
    debug: Debug = False,
) -> None:
    """Draw samples with a recipe."""
    import torch

    from sfumato.data.export import check_suffix, write_samples
    from sfumato.tune import Recipe

    from .console import Console

    check_suffix(out)
    chosen = Recipe.load(recipe)
    home = recipe if recipe.is_dir() else recipe.parent
    if model is None:
        if chosen.model is None:
            raise ArgumentError("--model", None, "the folder of the model", "The recipe does not say where it is.")
        model = chosen.model if chosen.model.startswith("hub:") else str(home / chosen.model)
    denoiser, _ = _model(model, prompt, guidance)
    if denoiser.event_shape not in (None, chosen.event_shape):
        raise ArgumentError("recipe", f"events of shape {chosen.event_shape}", f"the model's event shape {denoiser.event_shape}")
    if label is not None and not (denoiser.classes and 0 <= label < denoiser.classes):
        raise ArgumentError(
            "--label", label, f"a class from 0 to {denoiser.classes - 1}" if denoiser.classes else "none: the model has no classes"
        )
    condition = None if label is None else torch.full((n,), label)
    sampler = chosen.sampler(denoiser, evaluations)
    with Console() as console:
        console.begin(f"{n} samples, {sampler.program.evaluations} evaluations each", n)
        done = 0

        def show(made: int) -> None:
            nonlocal done
            console.advance(made - done)
            done = made

        samples = sampler.sample(n, seed, condition=condition, progress=show)
    write_samples(denoiser.decode(samples) if hasattr(denoiser, "decode") else samples, out)
    typer.echo(f"wrote {out}")


@app.command()
def train(
    data: Annotated[str, typer.Argument(help="bundled set, folder of images, or array file (.npy, .npz, .safetensors)")],
    out: Out = Path("model"),
    steps: Annotated[int | None, typer.Option(help="training steps; default: enough for small data")] = None,
    conditional: Annotated[bool, typer.Option("--conditional", help="learn the data's classes, to be drawn with `sample --label`")] = False,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Train a denoiser; stopped at any moment, the same command goes on where it was."""
    from sfumato.data import load

    dataset = load(data)
    _writable(out)
    _train(dataset, out, seed, steps, conditional)
    typer.echo(f"wrote {out}")


atlas = typer.Typer(no_args_is_help=True, help="One executable row per paper: what it claims, and what we measure.")
app.add_typer(atlas, name="atlas")


@atlas.command("list")
def atlas_list() -> None:
    """Every row: its id, its slug, and whether its claim holds here."""
    from sfumato.atlas import rows

    from .console import show_rows

    show_rows(rows())


@atlas.command("show")
def atlas_show(row: Annotated[str, typer.Argument(help="id or slug, e.g. T3")], debug: Debug = False) -> None:
    """What a paper claims, and the code that measures it."""
    from sfumato.atlas import find

    from .console import show_row

    show_row(find(row))


@atlas.command("run")
def atlas_run(
    row: Annotated[list[str] | None, typer.Argument(help="ids or slugs")] = None,
    every: Annotated[bool, typer.Option("--all", help="run every row")] = False,
    file: Annotated[Path | None, typer.Option("--json", help="write the findings to a file")] = None,
    debug: Debug = False,
) -> int:
    """Run rows; exit code 0 if every check passed and every control failed as it should."""
    from sfumato.atlas import find, rows
    from sfumato.learn.files import write_bytes

    from .console import run_rows

    if every == bool(row):
        raise ArgumentError("ROW", row or None, "rows to run, or --all", "`sfumato atlas list` shows them.")
    chosen = rows() if every else [find(name) for name in row or []]
    if file is not None:
        _writable(file.resolve().parent)
    outcomes = run_rows(chosen)
    if file is not None:
        write_bytes(file, json.dumps([o.to_dict() for o in outcomes], indent=1).encode())
    return 0 if all(o.good for o in outcomes) else 1


_STOPPED = 130
"""The exit code of a command that was interrupted; the command line turns Ctrl-C into it."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command; an error is one line and a non-zero exit code, and a traceback with `--debug`."""
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(_guard(lambda: app(given, standalone_mode=False), "--debug" in given))


def _guard(command: Callable[[], Any], debug: bool) -> int:
    try:
        out = command()
    except (SfumatoError, KeyboardInterrupt) as e:
        if debug:
            raise
        if isinstance(e, KeyboardInterrupt):
            out = _STOPPED
        else:
            typer.echo(f"error: {e}", err=True)
            return 2
    except Exception as e:
        # usage errors of the command line have their own text
        if hasattr(e, "format_message"):
            typer.echo(f"error: {e.format_message()}", err=True)
            return 2
        if debug:
            raise
        typer.echo(f"error: {type(e).__name__}: {e} (run again with --debug for the traceback; this is a bug)", err=True)
        return 1
    code = out if isinstance(out, int) else 0
    if code == _STOPPED:
        typer.echo("\nstopped; the same command goes on from what was saved", err=True)
    return code
