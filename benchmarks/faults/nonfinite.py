"""Numbers that are not finite: in the data, in the loss, in the weights, in what a model answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults.child import Surroundings, call
from benchmarks.faults.folders import broken, leftovers, other, result
from benchmarks.faults.subject import SAMPLE, TRAIN, TUNE, folder_with_data, undisturbed
from benchmarks.faults.tally import Tally

_QUESTIONS = "gaussian,linear,trajectory,emergence,response,landscape,manifold,memory,symmetry"


def run(quick: bool, home: Path) -> list[Tally]:
    """Training that breaks at a step, then models that break at a noise level."""
    whole = undisturbed(home, "whole", TUNE)
    return [_training(home, quick), _answers(whole, quick)]


def _training(home: Path, quick: bool) -> Tally:
    """The step is named, what was saved before stays, and the command goes on from it."""
    tally = Tally("not finite: training")
    wanted = result(undisturbed(home, "trained", TRAIN) / "out")
    for how in (poison_weights, poison_loss, poison_rate):
        for step in (60, 99, 120) if not quick else (60,):
            folder = folder_with_data(home, f"{how.__name__}-{step}")
            end = call(TRAIN, Surroundings(folder, before=partial(how, step)))
            wrong = [end.expect(2, "error:", "step"), broken(folder / "out"), leftovers(folder / "out")]
            if not (folder / "out" / "training.safetensors").exists():
                wrong.append("the last good state is gone")
            tally.trial(*wrong, call(TRAIN, Surroundings(folder)).expect(0), other(folder / "out", wanted))
    return tally


def _answers(whole: Path, quick: bool) -> Tally:
    """A model that answers NaN or infinities, from the start or near the end of a path only: an error, and nothing written over."""
    tally, wanted = Tally("not finite: answers"), result(whole / "out")
    model = ("out/model", "--data", "data.npy", "--out", "out")
    commands = [("tune", *model, "--quick", "--evaluations", "3"), SAMPLE, ("explain", *model, "--only", _QUESTIONS)]
    for command in commands[1:2] if quick else commands:
        for below in (2.0, 0.4, 0.1):
            for value in (float("nan"), float("inf")):
                end = call(command, Surroundings(whole, before=partial(poison_answers, below, value)))
                tally.trial(end.expect((0, 2) if below < 0.2 else 2, "error:" if end.code else "", "finite" if end.code else ""))
                tally.trial(other(whole / "out", wanted) if end.code else None, broken(whole / "out"))
    return tally


def poison_weights(step: int) -> None:
    """From the given step on, a weight is NaN after the step, whose own loss is still good."""

    def spoil(run: Any) -> None:
        with torch.no_grad():
            run.parameters[0].view(-1)[0] = torch.nan

    _after(step, spoil)


def poison_loss(step: int) -> None:
    """The loss that was noted at the step is NaN."""

    def spoil(run: Any) -> None:
        run._pending[-1] = run._pending[-1] * torch.nan

    _after(step, spoil)


def poison_rate(step: int) -> None:
    """Weights as a learning rate without bounds makes them."""

    def spoil(run: Any) -> None:
        with torch.no_grad():
            for p in run.parameters:
                p.mul_(1e30)

    _after(step, spoil)


def _after(step: int, spoil: Callable[[Any], None]) -> None:
    from sfumato.learn.training.run import Run

    whole = Run.step

    def broken_step(self: Run) -> None:
        whole(self)
        if self.done == step:
            spoil(self)

    Run.step = broken_step  # type: ignore[method-assign]


def poison_answers(below: float, value: float) -> None:
    """The model's answers are not finite at diffusion times below the given one."""
    from sfumato.denoise import Preconditioned

    whole = Preconditioned.denoise

    def denoise(self: Preconditioned, x: torch.Tensor, t: Any, *more: Any, **named: Any) -> torch.Tensor:
        answer = whole(self, x, t, *more, **named)
        return answer * value if float(torch.as_tensor(t).min()) < below else answer

    Preconditioned.denoise = denoise  # type: ignore[method-assign]
