"""A learning curve next to published ones: time is counted in peaks, i.e. in the time at which the Gaussian explains most.

Runs of other data, networks and rates share no clock, so shares are compared at the same noise-to-signal ratio (all data have a standard
deviation of about 1/2) and at the same multiple of the peak's time. The published runs peak at one time for all noise levels; ours has the
time of the level at which the Gaussian loses most.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sfumato.errors import ArgumentError
from sfumato.explain.explanation import Explanation
from sfumato.explain.learning.learning_curve import LearningCurve
from sfumato.explain.learning.learning_tables import PUBLISHED, PublishedCurve


@dataclass(frozen=True)
class ComparedShare:
    """One published share and ours at the same multiple of the peak's time; NaN where our run had ended.

    Arguments:
        run, approximant, ratio: of the published curve.
        time, peaks: the published training time, in its own unit and in multiples of its peak's.
        theirs, ours: explained variances.
        step: the training step of ours.
    """

    run: str
    approximant: str
    ratio: float
    time: int
    peaks: float
    theirs: float
    step: float
    ours: float


@dataclass(frozen=True)
class LearningComparison(Explanation):
    """Published shares and ours, row by row."""

    rows: list[ComparedShare]

    @property
    def numbers(self) -> dict[str, float]:
        """How many shares there are on both sides, and the median of the absolute differences from the peak on."""
        both = [row for row in self.rows if not math.isnan(row.ours)]
        late = sorted(abs(row.ours - row.theirs) for row in both if row.peaks >= 1)
        return {"rows": float(len(self.rows)), "compared": float(len(both)), "median_gap": late[len(late) // 2] if late else math.nan}

    @property
    def meaning(self) -> str:
        n = self.numbers
        return (
            f"Your run reaches {n['compared']:.0f} of {n['rows']:.0f} published points; from the peak on it differs from them by"
            f" {n['median_gap']:.3f} in the median."
        )

    def table(self) -> str:
        """The rows in Markdown."""
        lines = ["| run | approximant | k | time | in peaks | theirs | our step | ours |", "|---|---|---|---|---|---|---|---|"]
        for row in self.rows:
            ours = ("beyond our run", "") if math.isnan(row.ours) else (f"{row.step:.0f}", f"{row.ours:.3f}")
            about = f"{row.run} | {row.approximant} | {row.ratio:g} | {row.time} | {row.peaks:.2f} | {row.theirs:.3f}"
            lines.append(f"| {about} | {ours[0]} | {ours[1]} |")
        return "\n".join(lines)

    def plot(self, ax: Any) -> None:
        """The run with most points: published and ours over the time in peaks, one pair of curves per approximant and ratio."""
        counts = Counter(row.run for row in self.rows)
        longest = [row for row in self.rows if row.run == counts.most_common(1)[0][0]]
        for i, (approximant, ratio) in enumerate(sorted({(row.approximant, row.ratio) for row in longest})):
            rows = [row for row in longest if (row.approximant, row.ratio) == (approximant, ratio)]
            name, peaks, colour = f"{approximant}, k = {ratio:g}", [row.peaks for row in rows], f"C{i}"
            ax.plot(peaks, [row.theirs for row in rows], "x--", color=colour, label=f"{name}: {rows[0].run}")
            ax.plot(peaks, [row.ours for row in rows], "o-", color=colour, label=f"{name}: this run")
        ax.set_xscale("symlog", linthresh=0.3)
        ax.set_ylim(-1.0, 1.02)
        ax.set_xlabel("training time, in multiples of the Gaussian's peak")
        ax.set_ylabel("explained variance")
        ax.legend()


def compare_learning(curve: LearningCurve, published: tuple[PublishedCurve, ...] = PUBLISHED) -> LearningComparison:
    """A learning curve next to the published ones at the ratios it has.

    Arguments:
        curve: ours; its Gaussian has to peak on the way, which is the clock.

    Raises:
        ArgumentError: a curve whose Gaussian is best at the first or the last step, or none published at any ratio of ours.
    """
    clock = curve.headline.peak_step
    if not curve.steps[0] < clock < curve.steps[-1]:
        raise ArgumentError("curve", f"a peak at step {clock} of {curve.steps[-1]}", "a peak on the way", "Train longer, or from scratch.")
    rows = []
    for theirs in published:
        if theirs.ratio not in curve.ratios or theirs.approximant not in curve.explained:
            continue
        ours = curve.at(theirs.ratio, theirs.approximant)
        for time, share in theirs.shares.items():
            step = time / theirs.peak * clock
            mine = _between(curve.steps, ours, step)
            rows.append(ComparedShare(theirs.run, theirs.approximant, theirs.ratio, time, time / theirs.peak, share, step, mine))
    if not rows:
        known = sorted({theirs.ratio for theirs in published})
        raise ArgumentError("curve.ratios", curve.ratios, f"one of {known}")
    return LearningComparison(rows)


def _between(steps: list[int], values: list[float], step: float) -> float:
    """Linear between records; NaN beyond them."""
    if not steps[0] <= step <= steps[-1]:
        return math.nan
    after = bisect_left(steps, step)
    if steps[after] == step:
        return values[after]
    share = (step - steps[after - 1]) / (steps[after] - steps[after - 1])
    return (1 - share) * values[after - 1] + share * values[after]
