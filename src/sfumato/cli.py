"""The command line: `sfumato tune`, `sfumato explain`, `sfumato sample`, `sfumato train`, `sfumato convert`, `sfumato atlas`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import sfumato
from sfumato.atlas_commands import atlas
from sfumato.errors import ArgumentError, SfumatoError, one_line
from sfumato.stopping import LATEST, TOLD
from sfumato.voice import complain, launched, one_voice

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build, sample, speed up, steer and understand diffusion models.",
)
app.add_typer(atlas, name="atlas")

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


def _tell_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"sfumato {sfumato.__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="show the version and exit")] = False,
) -> None:
    pass


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as e:
        raise ArgumentError("--evaluations", repr(text), "whole numbers with commas between, e.g. 5,8,10") from e


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

    from sfumato.denoise.spread import lead
    from sfumato.files import write_bytes
    from sfumato.ranks import join
    from sfumato.tune import TuneSettings
    from sfumato.tune import tune as tune_denoiser
    from sfumato.tune.report import write_report

    from .console import Console, show_result
    from .subjects import alone, subject_of

    settings = TuneSettings(evaluations=_counts(evaluations), tolerance=tolerance, seed=seed)
    if quick:
        settings = replace(settings, fit=96, judge=32, measure=64, quality=100, steps=48)
        settings = replace(settings, world_trials=10, network_trials=4, closed_forms=12, fits=("distilled",))
    ranks = join()
    with alone(out, ranks):
        subject = subject_of(model, data, out, ranks, seed, steps, prompt, guidance, own=300 if quick else 1500)
        with Console() as console, lead(subject.denoiser, ranks) as asked:
            if asked is None or subject.data is None:
                return
            recipe, result = tune_denoiser(asked, subject.data, settings, about=subject.about, progress=console)
        recipe = replace(recipe, model=subject.place, classes=subject.denoiser.classes)
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
    from sfumato.denoise import Preconditioned
    from sfumato.denoise.spread import lead
    from sfumato.explain.report import QUESTIONS
    from sfumato.explain.report import explain as explain_denoiser
    from sfumato.ranks import Ranks, join

    from .console import Console, show_panels
    from .subjects import alone, subject_of

    ranks = join()
    # a question that trains is one for a single process
    known = [name for name in QUESTIONS if ranks.count == 1 or name != "learning"]
    chosen = known if only is None else [name.strip() for name in only.split(",")]
    for name in chosen:
        if name not in known:
            hint = "This one is asked in a single process." if name in QUESTIONS else ""
            raise ArgumentError("--only", repr(name), f"questions among {', '.join(known)}", hint)
    with alone(out, ranks):
        subject = subject_of(model, data, out, ranks, seed, steps, prompt, guidance)
        denoiser = subject.denoiser
        if ranks.count == 1 and isinstance(denoiser, Preconditioned) and "learning" in chosen:
            # its network is built again and trained, so it is looked at as it is
            denoiser, ranks = denoiser.cpu(), Ranks()
        with Console() as console, lead(denoiser, ranks) as asked:
            if asked is None or subject.data is None:
                return
            panels = explain_denoiser(asked, subject.data, out, chosen, about=subject.about, seed=seed, progress=console)
    show_panels(panels, out / "explain.html")


@app.command()
def sample(
    recipe: Annotated[str, typer.Argument(help="a recipe's folder or its recipe.json, or the hub id of a model with a recipe")],
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
    chunk: Annotated[int, typer.Option(help="samples computed together; several processes share whole chunks")] = 256,
    debug: Debug = False,
) -> None:
    """Draw samples with a recipe."""
    import torch

    from sfumato.data.export import check_suffix, write_samples
    from sfumato.denoise.spread import move
    from sfumato.integrations.hub import fetch, is_hub_id
    from sfumato.ranks import join
    from sfumato.tune import Recipe

    from .console import Console
    from .subjects import open_model

    check_suffix(out)
    ranks = join()
    path = fetch(recipe) if is_hub_id(recipe) else Path(recipe)
    chosen = Recipe.load(path)
    home = path if path.is_dir() else path.parent
    if model is None:
        if chosen.model is None:
            raise ArgumentError("--model", None, "the folder of the model", "The recipe does not say where it is.")
        model = chosen.model if chosen.model.startswith("hub:") else str(home / chosen.model)
    denoiser, _ = open_model(model, prompt, guidance)
    if denoiser.event_shape not in (None, chosen.event_shape):
        raise ArgumentError("recipe", f"events of shape {chosen.event_shape}", f"the model's event shape {denoiser.event_shape}")
    if label is not None and not (denoiser.classes and 0 <= label < denoiser.classes):
        raise ArgumentError(
            "--label", label, f"a class from 0 to {denoiser.classes - 1}" if denoiser.classes else "none: the model has no classes"
        )
    sampler = chosen.sampler(denoiser, evaluations, device=ranks.device)
    _, mine = ranks.share(n, chunk)
    move(denoiser, ranks.device)
    with Console() as console:
        console.begin(f"{n} samples, {sampler.program.evaluations} evaluations each{_shared(ranks.count)}", mine)
        done = 0

        def show(made: int) -> None:
            nonlocal done
            console.advance(made - done)
            done = made

        def draw(first: int, rows: int) -> torch.Tensor:
            condition = None if label is None else torch.full((rows,), label)
            return sampler.sample(rows, seed, condition=condition, first=first, chunk=min(chunk, n), progress=show)

        samples = ranks.rows(draw, n, chunk).cpu()
    if not ranks.first:
        return
    write_samples(denoiser.decode(samples) if hasattr(denoiser, "decode") else samples, out)
    typer.echo(f"wrote {out}")


def _shared(count: int) -> str:
    return f", {count} processes" if count > 1 else ""


@app.command()
def train(
    data: Annotated[str, typer.Argument(help="bundled set, folder of images, or array file (.npy, .npz, .safetensors)")],
    out: Out = Path("model"),
    steps: Annotated[int | None, typer.Option(help="training steps; default: enough for small data")] = None,
    conditional: Annotated[bool, typer.Option("--conditional", help="learn the data's classes, to be drawn with `sample --label`")] = False,
    batch: Annotated[int | None, typer.Option(help="examples a step, over all processes together; default: set by the data")] = None,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Train a denoiser; stopped at any moment, the same command goes on where it was."""
    from sfumato.data import load
    from sfumato.ranks import join

    from .subjects import train_on, writable

    ranks, dataset = join(), load(data)
    writable(out, ranks)
    train_on(dataset, out, ranks, seed, steps, conditional, batch)
    typer.echo(f"wrote {out}")


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="checkpoint of EDM (network-snapshot-*.pkl); no code that it holds is run")],
    out: Out = Path("model"),
    debug: Debug = False,
) -> None:
    """From a checkpoint of EDM to a model that the other commands take: config.json and model.safetensors."""
    from sfumato.integrations.edm_checkpoint import convert as convert_edm

    denoiser = convert_edm(file, out)
    typer.echo(f"wrote {out}: {sum(p.numel() for p in denoiser.parameters()):,} parameters, events of shape {denoiser.event_shape}")


_STOPPED = 130
"""The exit code of a command that was interrupted; the command line turns Ctrl-C into it."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command; an error is one line and a non-zero exit code, and a traceback with `--debug`."""
    given = sys.argv[1:] if arguments is None else arguments
    with one_voice():
        code = _guard(lambda: app(given, standalone_mode=False), "--debug" in given)
    if code == 0 and launched()[1] > 1:
        from sfumato.ranks import leave

        leave()
    sys.exit(code)


def _guard(command: Callable[[], Any], debug: bool) -> int:
    try:
        out = command()
    except (SfumatoError, KeyboardInterrupt) as e:
        if debug:
            raise
        if isinstance(e, KeyboardInterrupt):
            out = _STOPPED
        else:
            complain(f"error: {one_line(e)}")
            return 2
    except Exception as e:
        # usage errors of the command line have their own text
        if hasattr(e, "format_message"):
            # without arguments the help is the answer, and the error has no text
            if e.format_message():
                complain(f"error: {one_line(e.format_message())}")
            return 2
        if debug:
            raise
        if isinstance(e, PermissionError):
            complain(f"error: {one_line(e.filename)}: expected a file or folder that one may use, got: {e.strerror}.")
            return 2
        complain(f"error: {type(e).__name__}: {one_line(e)} (run again with --debug for the traceback; this is a bug)", alone=True)
        return 1
    code = out if isinstance(out, int) else 0
    if code == _STOPPED:
        complain(f"\n{TOLD}")
        return LATEST.code
    return code
