"""What a kind of fault came to: trials, and what went wrong in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from benchmarks.figure import Row

_SHOWN = 3


@dataclass
class Tally:
    """Trials of one kind of fault.

    Arguments:
        name: which fault, done to what.
        trials: how often.
        failures: what went wrong, a line each.
        notes: what else happened, counted by name.
    """

    name: str
    trials: int = 0
    failures: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def trial(self, *wrong: str | None) -> None:
        """One more trial, with what went wrong in it, if anything did."""
        self.trials += 1
        said = [w for w in wrong if w]
        if said:
            self.failures.append("; ".join(said))

    def note(self, what: str) -> None:
        """Count something that happened."""
        self.notes[what] += 1

    def row(self) -> Row:
        """`value` failures, of which none is allowed; None if nothing could be tried here."""
        told = [f"{self.trials:,} trials", *(f"{n:,} {what}" for what, n in sorted(self.notes.items())), *self.failures[:_SHOWN]]
        if not self.trials:
            return Row(self.name, None, "<= 0", None, "; ".join(told))
        return Row(self.name, len(self.failures), "<= 0", not self.failures, "; ".join(told))
