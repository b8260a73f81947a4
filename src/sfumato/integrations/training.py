r"""What a network of `diffusers` was trained on, read from its scheduler: a process, how it counts time, and what it predicts.

| `prediction_type` | what the network answers | process | its time |
|---|---|---|---|
| `epsilon`, `sample`, `v_prediction` | noise, clean data, `alpha eps - sigma x_0` | the table of `N` betas | `N t - 1` |
| `flow_prediction` | the velocity `eps - x_0` | `x = (1 - sigma) x_0 + sigma eps` | `N sigma` |
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sfumato.denoiser import View
from sfumato.errors import ArgumentError, RecipeError
from sfumato.noise import BetaTable, FlowMatching, ScalarProcess

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]

VIEWS: dict[str, View] = {"epsilon": "noise", "sample": "data", "v_prediction": "v", "flow_prediction": "velocity"}
"""`prediction_type` to our name of it."""


@dataclass(frozen=True)
class Training:
    """A process, the number of training times, and the view that is predicted."""

    process: ScalarProcess
    steps: int
    view: View

    @classmethod
    def of(cls, scheduler: Any) -> Training:
        """Of a pipeline's scheduler.

        Raises:
            ArgumentError: see `settings_of`.
        """
        settings = settings_of(scheduler)
        kind, steps = settings["prediction_type"], settings["num_train_timesteps"]
        flow = kind == "flow_prediction"
        return cls(FlowMatching() if flow else BetaTable(tuple(settings["trained_betas"])), steps, VIEWS[kind])

    def index(self, t: Tensor) -> Tensor:
        """The network's times of ours, float64 of the same shape; below the table's first entry, where no training was, that entry."""
        return self.process.index(t).clamp(min=0) if isinstance(self.process, BetaTable) else self.steps * self.process.sigma(t)

    @property
    def least_ratio(self) -> float:
        """The least noise-to-signal ratio at which the network should be asked: 0.01, or that of the table's first entry."""
        first = float(self.process.ratio(1 / self.steps)) if isinstance(self.process, BetaTable) else 0.0
        return max(0.01, first)

    def time(self, index: float) -> float:
        """Our time of one of the network's."""
        if isinstance(self.process, BetaTable):
            return min(max((index + 1) / self.steps, 0.0), 1.0)
        return self.time_of_sigma(index / self.steps)

    def time_of_sigma(self, sigma: float) -> float:
        """Our time of a noise-to-signal ratio, or of flow matching's `sigma`, as schedulers' `sigmas` have them."""
        if isinstance(self.process, FlowMatching):
            return float(self.process.time(math.log((1 - sigma) / sigma))) if 0 < sigma < 1 else float(sigma)
        return float(self.process.time(-math.log(sigma)))

    def sigmas(self, t: Tensor) -> Tensor:
        """The inverse of `time_of_sigma`, float64."""
        return self.process.sigma(t) if isinstance(self.process, FlowMatching) else self.process.ratio(t)


def settings_of(scheduler: Any) -> dict[str, Any]:
    """The arguments of a scheduler that say what the network was trained on, read from one that a pipeline came with.

    Raises:
        ArgumentError: a scheduler of another kind of process, or a prediction type that we do not know.
    """
    config = dict(scheduler.config)
    if "FlowMatch" in type(scheduler).__name__ or config.get("prediction_type") == "flow_prediction":
        return {"num_train_timesteps": config["num_train_timesteps"], "prediction_type": "flow_prediction"}
    if not hasattr(scheduler, "betas") or "sigma_data" in config:
        raise ArgumentError("scheduler", type(scheduler).__name__, "a scheduler with a table of betas, or of flow matching")
    betas = [float(b) for b in scheduler.betas]
    return {
        "num_train_timesteps": len(betas),
        "trained_betas": betas,
        "prediction_type": one_of("prediction_type", config.get("prediction_type", "epsilon"), VIEWS),
        "variance_type": config.get("variance_type"),
    }


def settings_for(process: ScalarProcess) -> dict[str, Any]:
    """The same of a process, for a network that predicts noise, or velocity for flow matching.

    Raises:
        RecipeError: a process that no scheduler has.
    """
    if isinstance(process, BetaTable):
        return {"num_train_timesteps": process.steps, "trained_betas": list(process.betas)}
    if isinstance(process, FlowMatching):
        return {"prediction_type": "flow_prediction"}
    raise RecipeError(
        "programs", process.kind, "programs of a table of betas or of flow matching", "Give the pipeline's scheduler as well."
    )


def beta_table(n: int, start: float, end: float, schedule: str, trained: Any) -> BetaTable:
    """The table of betas of a configuration, as `diffusers` computes it.

    Raises:
        ArgumentError: an unknown schedule.
    """
    if trained is not None:
        return BetaTable(tuple(float(b) for b in trained))
    one_of("beta_schedule", schedule, get_args(BetaSchedule))
    if schedule == "linear":
        return BetaTable.linear(n, start, end)
    if schedule == "scaled_linear":
        return BetaTable.scaled_linear(n, start, end)
    kept = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
    return BetaTable(tuple(min(1 - kept[i + 1] / kept[i], 0.999) for i in range(n)))


def same_process(one: ScalarProcess, other: ScalarProcess) -> bool:
    """Whether two processes have the same levels; tables that went through single precision differ in the last digits."""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(one.levels(t), other.levels(t), strict=True))


def one_of(name: str, given: str, known: Iterable[str]) -> str:
    """`given`, if it is known.

    Raises:
        ArgumentError: it is not.
    """
    if given not in known:
        raise ArgumentError(name, repr(given), f"one of {', '.join(known)}")
    return given
