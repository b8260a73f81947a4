"""Training a denoiser: on one machine or, under `accelerate launch`, on many; to be stopped and taken up at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from sfumato.data import Dataset, check_finite
from sfumato.denoise import Preconditioned
from sfumato.errors import ArgumentError, DataError, ShapeError
from sfumato.holding import held
from sfumato.learn.losses.loss import DenoisingLoss
from sfumato.learn.training.average import Average
from sfumato.learn.training.checkpoint import model_config, save_model
from sfumato.learn.training.files import digest
from sfumato.learn.training.presets import default_loss
from sfumato.learn.training.run import STATE, Run
from sfumato.learn.training.settings import FitSettings
from sfumato.learn.training.stream import Stream
from sfumato.stopping import interruption

OnStep = Callable[[int, Preconditioned, Average], None]
"""Called before the first step of a new run and after every step, with the number of steps made, the denoiser with its raw weights, and
their average (`average.applied`); see `sfumato.learn.Recorder`."""

Progress = Callable[[int, int, float], None]
"""Called now and then with the steps made, the steps in all, and the mean loss of the latest ones."""

_LOOK = 25
"""Steps between two looks at the losses: looking makes an accelerator wait."""


@dataclass(frozen=True)
class FitResult:
    """What a run was like.

    Arguments:
        losses: the loss of every step, float64 `(steps,)`, those before a resumption included.
        seconds, examples_per_second: of this call alone.
    """

    losses: Tensor
    seconds: float
    examples_per_second: float


def fit(
    denoiser: Preconditioned,
    data: Dataset | Tensor,
    settings: FitSettings,
    loss: DenoisingLoss | None = None,
    *,
    folder: str | Path | None = None,
    save_every: int = 1000,
    resume: bool = True,
    on_step: OnStep | None = None,
    progress: Progress | None = None,
    accelerator: Accelerator | None = None,
) -> FitResult:
    """Train a denoiser in place, with Adam; on return it has the averaged weights, and is in evaluation mode.

    The order of the data, the times and the noise of step `i` depend on `(settings.seed, i)` alone. A run with a `folder` that was
    stopped, by Ctrl-C, by an error or by force, goes on with the same call from its last saved state, and on one CPU ends with the very
    weights that it would have had.

    Arguments:
        denoiser: a preconditioned network. If the network has classes and the data have labels, they are its condition.
        data: a data set, of which the training part is used, or `(n, *event)`.
        settings: steps, batch, rate, ...
        loss: default: `default_loss(data)`.
        folder: where the model (`load_model`) and the state of the run are kept; nowhere if not given.
        save_every: steps between two saves.
        resume: whether to go on from a state in the folder; otherwise it is written over.
        on_step, progress: see `OnStep` and `Progress`.
        accelerator: one's own, for mixed precision or a choice of devices; default: `Accelerator()`, which is the best device in full
            precision unless `accelerate` has been configured otherwise.

    Raises:
        DataError: NaN in the data, no data.
        ShapeError: data of another event shape than the denoiser's.
        ArgumentError: a loss that is no longer finite (the last saved state stays), labels that the network does not know, a batch that
            the processes cannot share equally, half precision that needs loss scaling.
        CheckpointError: the folder's state is broken, or of a run with other settings or data.
        OutputError: the folder cannot be written, or another process is writing to it.
        KeyboardInterrupt: Ctrl-C; the state has been saved, if there is a folder.

    Example:
        >>> from sfumato.data import moons
        >>> from sfumato.learn import FitSettings, default_denoiser, fit
        >>> data = moons()
        >>> denoiser = default_denoiser(data)
        >>> result = fit(denoiser, data, FitSettings(steps=5, batch_size=32))
        >>> len(result.losses)
        5
    """
    accelerator = accelerator or Accelerator()
    if save_every < 1:
        raise ArgumentError("save_every", save_every, "at least 1 step")
    if settings.batch_size % accelerator.num_processes:
        raise ArgumentError("batch_size", settings.batch_size, f"a multiple of the {accelerator.num_processes} processes")
    if accelerator.mixed_precision == "fp16":
        raise ArgumentError("mixed_precision", "fp16", "'no' or 'bf16'", "A loss scale would make a run depend on where it was stopped.")
    clean, labels, about = _examples(denoiser, data)
    loss = loss or default_loss(clean)
    place = None
    if folder is not None:
        place = _Place(Path(folder), about, _identity(denoiser, clean, labels, settings, loss, accelerator))
    stream = Stream(clean, labels, loss, denoiser.process, settings.batch_size, settings.seed, accelerator.device)
    run = Run(denoiser.train(), stream, settings, loss, accelerator)
    with held(place.folder) if place is not None and accelerator.is_main_process else nullcontext():
        if place is not None and resume and (place.folder / STATE).exists():
            run.restore(place.folder, place.identity)
        first, start = run.done, time.perf_counter()
        try:
            _loop(run, place, save_every, on_step, progress)
        finally:
            accelerator.unwrap_model(run.model, keep_fp32_wrapper=False)
            denoiser.eval()
    seconds = time.perf_counter() - start
    run.average.copy_to(denoiser)
    made = run.done - first
    return FitResult(torch.tensor(run.losses, dtype=torch.float64), seconds, made * settings.batch_size / seconds if made else 0.0)


@dataclass(frozen=True)
class _Place:
    """Where a run is kept, and as what."""

    folder: Path
    about: dict[str, Any]
    identity: dict[str, Any]

    def save(self, run: Run) -> None:
        if run.accelerator.is_main_process:
            run.tensors()  # refused before anything is written
            # the state last: a run that is killed between the two goes on from the state before, and writes the model again
            with run.average.applied(run.denoiser):
                save_model(run.denoiser, self.folder, self.about)
            run.save(self.folder, self.identity)
        run.accelerator.wait_for_everyone()


def _loop(run: Run, place: _Place | None, save_every: int, on_step: OnStep | None, progress: Progress | None) -> None:
    total = run.settings.steps
    with interruption() as stop:
        if on_step is not None and run.done == 0:
            on_step(0, run.denoiser, run.average)
        while run.done < total:
            run.step()
            done = run.done
            if on_step is not None:
                on_step(done, run.denoiser, run.average)
            looking = done % _LOOK == 0 or done % save_every == 0 or done == total
            stopping = _agreed(run, stop.requested, looking)
            if looking or stopping:
                recent = run.look()
                if progress is not None:
                    progress(done, total, recent)
            if place is not None and (done % save_every == 0 or done == total or stopping):
                place.save(run)
            if stopping and done < total:
                kept = (
                    f"the same call goes on from there, its state is in {place.folder}"
                    if place
                    else "nothing was kept, for want of a folder"
                )
                raise KeyboardInterrupt(f"stopped after {done} of {total} steps; {kept}")


def _agreed(run: Run, asked: bool, looking: bool) -> bool:
    """Whether to stop after this step: as soon as it is asked, but of several processes all together, where they wait to look anyway."""
    accelerator = run.accelerator
    if accelerator.num_processes == 1:
        return asked
    return looking and bool(accelerator.reduce(torch.tensor(float(asked), device=accelerator.device), "sum") > 0)


def _examples(denoiser: Preconditioned, data: Dataset | Tensor) -> tuple[Tensor, Tensor | None, dict[str, Any]]:
    """The clean events in the denoiser's dtype, their labels if it takes any, and what to note about them."""
    parameter = next(denoiser.parameters(), None)
    if parameter is None:
        raise ArgumentError("denoiser", "a network without parameters", "something to train")
    if isinstance(data, Dataset):
        clean, about = data.train, {"data": data.name}
        labels = data.train_labels if denoiser.classes is not None else None
        if denoiser.classes is not None and (data.classes or 0) > denoiser.classes:
            raise ArgumentError("denoiser.classes", denoiser.classes, f"the {data.classes} classes of {data.name}")
    else:
        clean, labels, about = data, None, {}
        if clean.ndim < 2 or clean.shape[0] < 1 or not clean.is_floating_point():
            raise DataError("data", f"{clean.dtype} of shape {tuple(clean.shape)}", "floating point samples (n, *event)")
        check_finite(clean, "data")
    if denoiser.event_shape is not None and tuple(clean.shape[1:]) != denoiser.event_shape:
        raise ShapeError("data", tuple(clean.shape), f"events of the denoiser's shape {denoiser.event_shape}")
    return clean.to(parameter.dtype), labels, about


def _identity(
    denoiser: Preconditioned,
    clean: Tensor,
    labels: Tensor | None,
    settings: FitSettings,
    loss: DenoisingLoss,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """What must be the same for a run to be taken up."""
    scalings = denoiser.scalings.tensors()
    return {
        "settings": {**asdict(settings), "clip": str(settings.clip)},
        "loss": repr(loss),
        "model": model_config(denoiser),
        "scalings": digest(scalings),
        "data": digest({"clean": clean} if labels is None else {"clean": clean, "labels": labels}),
        "precision": accelerator.mixed_precision,
    }
