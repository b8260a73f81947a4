"""One training run: its state, one step of it, and the file from which it can be taken up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from sfumato.denoise import Preconditioned
from sfumato.errors import ArgumentError, CheckpointError
from sfumato.learn.losses.loss import DenoisingLoss
from sfumato.learn.training.average import Average
from sfumato.learn.training.files import read_tensors, write_tensors
from sfumato.learn.training.settings import FitSettings
from sfumato.learn.training.stream import Stream

STATE = "training.safetensors"
VERSION = 1
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_HINT = "Lower the learning rate, or check the scale of the data; the last state that was saved is kept."


class Run:
    """Weights, their average, the optimiser's moments and the losses so far; step `i` is a function of them and of `i`.

    Arguments:
        denoiser: is moved to the accelerator's device and trained in place.
        stream: the examples by step.
        settings, loss: what to do with them.
        accelerator: the devices and the precision.
    """

    def __init__(
        self, denoiser: Preconditioned, stream: Stream, settings: FitSettings, loss: DenoisingLoss, accelerator: Accelerator
    ) -> None:
        self.denoiser, self.stream, self.settings, self.loss, self.accelerator = denoiser, stream, settings, loss, accelerator
        self.model = accelerator.prepare(denoiser)
        self.parameters = list(denoiser.parameters())
        # accelerate's own optimiser and clipping serve loss scales and sharding, which are not used here, at some percent of a small step
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.learning_rate, fused=True)
        self.average = Average(denoiser, settings.ema_decay)
        self.losses: list[float] = []
        self._pending: list[Tensor] = []
        share, place = settings.batch_size // accelerator.num_processes, accelerator.process_index
        self._share = slice(place * share, (place + 1) * share) if accelerator.num_processes > 1 else None

    @property
    def done(self) -> int:
        """How many steps have been made."""
        return len(self.losses) + len(self._pending)

    def step(self) -> None:
        """The next step. Its loss is not looked at yet, so that an accelerator need not be waited for."""
        number = self.done
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(number)
        examples = self.stream[number] if self._share is None else self.stream[number][self._share]
        loss = self.loss(self.model, self.denoiser.process, examples).mean()
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        # clipping without a pass of its own: the fused optimiser divides by this as it reads the gradients
        self.optimizer.grad_scale = (norm / self.settings.clip).clamp(min=1.0).to(torch.float32)  # type: ignore[attr-defined]
        self.optimizer.step()
        self.average.update(self.parameters, number)
        self._pending.append(torch.stack([loss.detach(), norm.to(loss.dtype)]))

    def look(self) -> float:
        """Look at the losses of the steps since the last look; their mean.

        Raises:
            ArgumentError: a loss or a gradient that is not finite.
        """
        if not self._pending:
            return self.losses[-1] if self.losses else math.nan
        values = self.accelerator.reduce(torch.stack(self._pending), "mean").tolist()
        self._pending.clear()
        for loss, norm in values:
            if not (math.isfinite(loss) and math.isfinite(norm)):
                given = f"a loss of {loss:.4g} with a gradient of norm {norm:.4g} at step {len(self.losses)}"
                raise ArgumentError("fit", given, "a run that stays finite", _HINT)
            self.losses.append(loss)
        return sum(loss for loss, _ in values) / len(values)

    def tensors(self) -> dict[str, Tensor]:
        """The state. To be called after `look`.

        Raises:
            ArgumentError: weights or moments that are not finite, which the loss of the next step would show.
        """
        named = [name for name, _ in self.denoiser.named_parameters()]
        moments = self.optimizer.state_dict()["state"]
        tensors = {f"weights.{name}": value for name, value in self.denoiser.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.tensors.items()}
        tensors |= {f"{key}.{name}": moments[i][key] for i, name in enumerate(named) for key in _MOMENTS}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
            raise ArgumentError("fit", f"weights that are not finite after step {self.done - 1}", "a run that stays finite", _HINT)
        return tensors

    def save(self, folder: Path, identity: dict[str, Any]) -> None:
        """Write the state, atomically; `identity` says which run it is of.

        Raises:
            ArgumentError: see `tensors`; nothing is written.
            OutputError: the folder cannot be written.
        """
        write_tensors(folder / STATE, self.tensors(), {"format": "sfumato-training", "version": VERSION, "run": identity})

    def restore(self, folder: Path, identity: dict[str, Any]) -> None:
        """Take up the state in the folder.

        Raises:
            CheckpointError: it is truncated, altered, or of a run with another `identity`.
        """
        tensors, record = read_tensors(folder / STATE)
        if record.get("format") != "sfumato-training" or record.get("version") != VERSION:
            raise CheckpointError("folder", str(folder), f"the state of a training run, version {VERSION}")
        _check_same(record.get("run"), identity, folder)
        self._check_tensors(tensors, folder)
        self.denoiser.load_state_dict({name: tensors[f"weights.{name}"] for name in self.denoiser.state_dict()})
        for name, value in self.average.tensors.items():
            value.copy_(tensors[f"average.{name}"])
        named = [name for name, _ in self.denoiser.named_parameters()]
        moments = {i: {key: tensors[f"{key}.{name}"] for key in _MOMENTS} for i, name in enumerate(named)}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.losses = tensors["losses"].tolist()

    def _check_tensors(self, tensors: dict[str, Tensor], folder: Path) -> None:
        """The tensors are those of this run's state, in name, shape and kind, and all their numbers finite."""
        due: dict[str, Tensor] = {f"weights.{name}": value for name, value in self.denoiser.state_dict().items()}
        due |= {f"average.{name}": value for name, value in self.average.tensors.items()}
        for name, weight in self.denoiser.named_parameters():
            due |= {f"{key}.{name}": torch.zeros(()) if key == "step" else weight for key in _MOMENTS}
        due["losses"] = torch.zeros(min(tensors.get("losses", torch.zeros(0)).numel(), self.settings.steps), dtype=torch.float64)
        for name, value in due.items():
            found = tensors.get(name)
            if found is None or found.shape != value.shape or found.dtype != value.dtype or not bool(torch.isfinite(found).all()):
                given = "none" if found is None else f"{found.dtype} of shape {tuple(found.shape)}"
                wanted = f"finite {value.dtype} of shape {tuple(value.shape)}"
                raise CheckpointError(f"{name} in {folder / STATE}", given, wanted, "The file was altered.")


def _check_same(saved: Any, given: dict[str, Any], folder: Path) -> None:
    if not isinstance(saved, dict):
        raise CheckpointError("folder", str(folder), "a state that says which run it is of")
    different = sorted(key for key in saved.keys() | given.keys() if saved.get(key) != given.get(key))
    if not different:
        return
    key = different[0]
    was, now = saved.get(key), given.get(key)
    if isinstance(was, dict) and isinstance(now, dict):
        inner = sorted(k for k in was.keys() | now.keys() if was.get(k) != now.get(k))
        key, was, now = f"{key}.{inner[0]}", was.get(inner[0]), now.get(inner[0])
    raise CheckpointError(
        key,
        str(now)[:120],
        f"{str(was)[:120]}, as in the unfinished run in {folder}",
        "Use another folder, or start over: empty it, or resume=False.",
    )
