"""The paper of a row: all that can be said of it without running anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Reproduced = Literal["yes", "partly", "no"]


@dataclass(frozen=True)
class Paper:
    """A paper of the atlas, and where its row lies.

    Arguments:
        id, slug: how the card names it, e.g. `T3` and `gaussian-score-teleport`.
        title, authors, year, arxiv: the paper; authors with commas between, `et al.` for those left out.
        claim: the claim in one sentence; where it does not hold here, with the measured evidence.
        reproduced: whether the paper's claim holds at our scale.
        module: the module of the row; a `Row` knows its own.
    """

    id: str
    slug: str
    title: str
    authors: str
    year: int
    arxiv: str
    claim: str
    reproduced: Reproduced
    module: str = field(default="", kw_only=True)

    @property
    def family(self) -> str:
        """The folder that the row lies in: theory, solvers, processes, ..."""
        return self.module.rpartition(".")[0].rpartition(".")[2]

    @property
    def order(self) -> tuple[bool, str, int]:
        """Where it stands among others: ids of letters first, each family in the order of its numbers."""
        letters = self.id.rstrip("0123456789")
        return self.id[0].isdigit(), letters, int("0" + self.id[len(letters) :])
