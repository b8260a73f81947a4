"""What tuning found, as plain records: `TuneResult.to_dict()` is `tune.json`, and the report is drawn from the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor

from sfumato.explain import ScoreProbe
from sfumato.metrics import Estimate

Family = Literal["ours", "classic", "diffusers"]
"""`ours`: spectral and fitted programs, and whatever was chosen; `classic`: published solvers in our tables; `diffusers`: its schedulers,
run beside."""


@dataclass(frozen=True)
class Teleport:
    """The latest noise level to which the closed form may carry a sample, and what that is predicted to cost.

    `predicted[i]` is the relative error at the end if one teleports to `ratios[i]`; `ratio` is the smallest whose prediction is within
    `tolerance`.
    """

    tolerance: float
    ratio: float
    ratios: list[float]
    predicted: list[float]


@dataclass(frozen=True)
class Candidate:
    """One sampler at one budget: its error against the reference from the same noise, and its samples' distance to held-out data."""

    name: str
    family: Family
    evaluations: int
    error: Estimate
    quality: Estimate | None = None
    seconds: float | None = None
    ratios: list[float] | None = None


@dataclass(frozen=True)
class TuneResult:
    """Everything that tuning measured.

    Arguments:
        model, data, settings, machine: facts to show, plain values.
        diagnosis, teleport: steps 2 and 3.
        reference: `evaluations`, `self_error` (against a reference of half its steps), `samples` used for the figures.
        candidates: what was measured on the network, on noise that no choice saw.
        world: what was measured on the mixture world, for the search.
        chosen: for each budget, the name of our program in the recipe.
        floor: the distances that are no sampler's fault: of the reference's samples, and of training data, to held-out data.
        timings: seconds of each step, in order.
        pictures: events from the same noise, by the name of what drew them; first `data`, then `reference`.
        contest: for each budget, the names of the best `fitted` and the best `unfitted` program, as far as any was tried.
        skipped: for each budget, what was refused or not tried, by name, with its reason.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    machine: dict[str, Any]
    diagnosis: ScoreProbe
    teleport: Teleport
    reference: dict[str, float]
    candidates: list[Candidate]
    world: list[Candidate]
    chosen: dict[int, str]
    floor: dict[str, Estimate]
    timings: list[tuple[str, float]]
    pictures: dict[str, Tensor] = field(default_factory=dict)
    contest: dict[int, dict[str, str]] = field(default_factory=dict)
    skipped: dict[int, dict[str, str]] = field(default_factory=dict)

    def best(self, evaluations: int, family: Family) -> Candidate | None:
        """See `best_of`."""
        return best_of(self.candidates, evaluations, family)

    def ours(self, evaluations: int) -> Candidate:
        """The program chosen for a budget (`KeyError` for another budget)."""
        return self._named(self.chosen[evaluations], evaluations)

    def contestant(self, evaluations: int, kind: Literal["fitted", "unfitted"]) -> Candidate | None:
        """The best of a kind at a budget, or None if none was tried."""
        name = self.contest.get(evaluations, {}).get(kind)
        return self._named(name, evaluations) if name is not None else None

    def _named(self, name: str, evaluations: int) -> Candidate:
        return next(c for c in self.candidates if c.name == name and c.evaluations == evaluations)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the pictures."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "pictures"}
        plain["diagnosis"], plain["teleport"] = self.diagnosis.to_dict(), asdict(self.teleport)
        plain["candidates"], plain["world"] = [asdict(c) for c in self.candidates], [asdict(c) for c in self.world]
        plain["contest"], plain["skipped"] = ({str(n): v for n, v in named.items()} for named in (self.contest, self.skipped))
        plain["chosen"] = {str(n): name for n, name in self.chosen.items()}
        plain["floor"] = {name: asdict(e) for name, e in self.floor.items()}
        plain["timings"] = [{"step": step, "seconds": seconds} for step, seconds in self.timings]
        return plain


def best_of(candidates: Sequence[Candidate], evaluations: int, family: Family) -> Candidate | None:
    """The smallest error of a family at a budget; a family may use fewer evaluations than the budget, never more."""
    rivals = [c for c in candidates if c.family == family and c.evaluations <= evaluations and math.isfinite(c.error.value)]
    return min(rivals, key=lambda c: c.error.value, default=None)
