r"""What a network resembles while it trains: the share of its score that closed forms explain, by training step and noise level.

The score becomes the Gaussian score of the data first, and leaves it again for finer structure: the Gaussian's share rises, peaks and
falls, while those of a mixture and of the training points go on rising. Source: Wang & Vastola 2024 (arXiv 2412.09726), on training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sfumato.errors import ArgumentError, ShapeError
from sfumato.explain.explanation import Explanation
from sfumato.explain.score.score_probe import ScoreProbe

GAUSSIAN = "gaussian"
_REFERENCES = ("isotropic", GAUSSIAN)
_COLOURS = {GAUSSIAN: "C0", "mixture": "C1", "empirical": "C2"}
_NAMES = {GAUSSIAN: "Gaussian", "mixture": "mixture", "empirical": "training points"}
_FLOOR = -1.0
"""Where pictures end: early shares at low noise can be -50."""


@dataclass(frozen=True)
class LevelLearning:
    """One noise level's history.

    Arguments:
        ratio: the noise-to-signal ratio.
        peak_step, peak: when the Gaussian explained most, and how much.
        drop: how much of that it has lost at the end.
        overtaken: from which step on each finer approximant explains more than the Gaussian, up to the end; None if it does not.
    """

    ratio: float
    peak_step: int
    peak: float
    drop: float
    overtaken: dict[str, int | None]


@dataclass(frozen=True)
class LearningCurve(Explanation):
    """Explained variance of the score during training.

    Arguments:
        steps: the training steps that were looked at.
        ratios: noise-to-signal ratios.
        weights: whether the raw or the averaged weights were looked at; the average lags behind.
        explained: by the name of the approximant, one list over ratios per step.
        levels: what each ratio's curve says.
        twin: the Gaussian's shares for a network that learned samples of the Gaussian itself, at the same ratios, with its steps.
    """

    steps: list[int]
    ratios: list[float]
    weights: str
    explained: dict[str, list[list[float]]]
    levels: list[LevelLearning]
    twin: tuple[list[int], list[list[float]]] | None = None

    def beside(self, gaussian: LearningCurve) -> LearningCurve:
        """The same with the curve of a network that learned `gaussian_twin` data.

        Raises:
            ShapeError: it was probed at other ratios.
        """
        if gaussian.ratios != self.ratios:
            raise ShapeError("gaussian", gaussian.ratios, f"a curve at the ratios {self.ratios}")
        return replace(self, twin=(gaussian.steps, gaussian.explained[GAUSSIAN]))

    def at(self, ratio: float, approximant: str = GAUSSIAN) -> list[float]:
        """One approximant's shares at one of the ratios, over the steps.

        Raises:
            ArgumentError: a ratio or an approximant that was not probed.
        """
        if ratio not in self.ratios or approximant not in self.explained:
            known = f"one of {self.ratios}, and one of {', '.join(self.explained)}"
            raise ArgumentError("ratio, approximant", (ratio, approximant), known)
        column = self.ratios.index(ratio)
        return [row[column] for row in self.explained[approximant]]

    @property
    def headline(self) -> LevelLearning:
        """The noise level at which the Gaussian lost most."""
        return max(self.levels, key=lambda level: level.drop)

    @property
    def numbers(self) -> dict[str, float]:
        """Of the noise level at which the Gaussian lost most."""
        level = self.headline
        out = {"ratio": level.ratio, "peak_step": float(level.peak_step), "peak": level.peak, "drop": level.drop}
        return out | {f"{name}_overtakes": float("nan") if step is None else float(step) for name, step in level.overtaken.items()}

    @property
    def meaning(self) -> str:
        level, total = self.headline, self.steps[-1]
        if level.peak_step == 0 and level.peak > 1 - 1e-6:
            first = f"Your model began as the Gaussian of its data, which its scalings know, and after {total} steps"
        else:
            first = (
                f"At noise-to-signal ratio {level.ratio:.3g} your model was nearest to the Gaussian of its data after {level.peak_step} of"
                f" {total} steps, when that explained {level.peak:.1%} of its score, and at the end"
            )
        later = [f"the {_NAMES.get(name, name)} from step {step} on" for name, step in level.overtaken.items() if step is not None]
        finer = f"more is explained by {' and by '.join(later)}" if later else "nothing finer explains more"
        return f"{first} the Gaussian explains {level.drop:.3f} less than at best; {finer}."

    def plot(self, ax: Any) -> None:
        """The curves at the noise level at which the Gaussian lost most, and the Gaussian's twin."""
        self.plot_level(ax, self.headline.ratio)

    def plot_level(self, ax: Any, ratio: float) -> None:
        """Every approximant's curve at one ratio, and that of a network that had nothing but the Gaussian to learn."""
        for name in self.explained:
            if name in _COLOURS:
                ax.plot(self.steps, self.at(ratio, name), "o-", color=_COLOURS[name], label=_NAMES[name])
        if self.twin is not None:
            steps, rows = self.twin
            shares = [row[self.ratios.index(ratio)] for row in rows]
            ax.plot(steps, shares, "--", color=_COLOURS[GAUSSIAN], label="Gaussian, of a network trained on it")
        ax.set_xscale("symlog", linthresh=1)
        ax.set_ylim(_FLOOR, 1.02)
        ax.set_xlabel("training step")
        ax.set_ylabel(f"explained variance at noise ratio {ratio:g}")
        ax.legend()

    def plot_map(self, ax: Any, approximant: str = GAUSSIAN) -> None:
        """One approximant's share as a map of training step and noise level, with the Gaussian's peaks and where it is overtaken."""
        values = self.explained[approximant]
        mesh = ax.pcolormesh(
            self.steps, self.ratios, list(zip(*values, strict=True)), shading="nearest", vmin=0.0, vmax=1.0, cmap="viridis"
        )
        ax.figure.colorbar(mesh, ax=ax, label=f"explained by the {_NAMES.get(approximant, approximant)}")
        ax.plot([level.peak_step for level in self.levels], self.ratios, "o-", color="C1", label="most Gaussian")
        late = [(level.overtaken.get("mixture"), level.ratio) for level in self.levels]
        crossed = [(step, ratio) for step, ratio in late if step is not None]
        if crossed:
            ax.plot(*zip(*crossed, strict=True), "s--", color="C2", label="mixture explains more from here on")
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(0, self.steps[-1])
        ax.set_yscale("log")
        ax.set_xlabel("training step")
        ax.set_ylabel("noise-to-signal ratio")
        ax.legend()


def learning_curve(steps: Sequence[int], probes: Sequence[ScoreProbe], weights: str) -> LearningCurve:
    """Read the course of learning off score probes.

    Arguments:
        steps: the training steps that were looked at, rising.
        probes: what `score_probe` found at each of them, all at the same ratios, with the Gaussian under the name "gaussian".
        weights: whether the raw or the averaged weights were probed.

    Raises:
        ArgumentError: not one probe per step, no step, probes of different ratios or approximants, none of the Gaussian.
    """
    if len(steps) != len(probes) or not steps:
        raise ArgumentError("steps, probes", (len(steps), len(probes)), "as many probes as steps, at least one")
    first = probes[0]
    if any(p.ratios != first.ratios or p.explained.keys() != first.explained.keys() for p in probes) or GAUSSIAN not in first.explained:
        raise ArgumentError("probes", f"{len(probes)} probes that differ", f"the same ratios and approximants, {GAUSSIAN} among them")
    explained = {name: [list(p.explained[name][0]) for p in probes] for name in first.explained}
    finer = [name for name in explained if name not in _REFERENCES]
    levels = []
    for column, ratio in enumerate(first.ratios):
        gaussian = [row[column] for row in explained[GAUSSIAN]]
        best = max(range(len(steps)), key=gaussian.__getitem__)
        overtaken = {name: _from(steps, gaussian, [row[column] for row in explained[name]]) for name in finer}
        levels.append(LevelLearning(ratio, steps[best], gaussian[best], gaussian[best] - gaussian[-1], overtaken))
    return LearningCurve(list(steps), list(first.ratios), weights, explained, levels)


def _from(steps: Sequence[int], coarse: Sequence[float], fine: Sequence[float]) -> int | None:
    """The first step of the last stretch of records, up to the end, on which `fine` is above `coarse`."""
    out = None
    for step, low, high in zip(reversed(steps), reversed(coarse), reversed(fine), strict=True):
        if not high > low:
            break
        out = step
    return out
