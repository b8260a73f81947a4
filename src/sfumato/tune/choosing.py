"""Which program a budget gets: the best of all that was fitted and of the closed forms, on starts that none was made on.

The closed forms are many and are tried on the mixture world, where trying costs no network call; the few best of them go to the network.
So do the fits: the least-squares table whose nodes were searched, the decisions searched on the mixture world, and the fits of few numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sfumato.sample import Program
from sfumato.tune.candidates import Calibration, Paths, Proposals, Ranked, best, fitted, shortlist
from sfumato.tune.result import Family

ON_THE_WORLD = ("search", "bespoke")
"""Fits that ask too often to be made on the network: they are made on the mixture world, and judged on the network."""

_KEPT = 3
"""How many closed forms go to the network."""


@dataclass(frozen=True)
class Choice:
    """What was chosen for a budget, on the network's judging starts.

    Arguments:
        chosen: the best of all.
        fitted, unfitted: the best of each kind; None if none was tried.
        skipped: what was not tried or refused, by name, with its reason.
    """

    chosen: Ranked
    fitted: Ranked | None
    unfitted: Ranked | None
    skipped: dict[str, str]

    @property
    def programs(self) -> list[Program]:
        """The chosen one first, then the best of each kind."""
        shown = [self.chosen, *(r for r in (self.fitted, self.unfitted) if r is not None)]
        return list({r.program.name: r.program for r in shown}.values())

    @property
    def contest(self) -> dict[str, str]:
        """The names of the best of each kind."""
        kinds = {"fitted": self.fitted, "unfitted": self.unfitted}
        return {kind: r.program.name for kind, r in kinds.items() if r is not None}


@dataclass(frozen=True)
class Contest:
    """Who is tried, and on what.

    Arguments:
        network, world: what fits are made on: the network's trajectories, and those of the mixture world.
        judge, screen: the network's starts to choose on, and the world's to shorten the list of closed forms on.
        closed_forms: how many closed forms a budget may try on the world.
        fits: names of `FITS` to try besides the table that is given.
    """

    network: Calibration
    world: Calibration
    judge: Paths
    screen: Paths
    closed_forms: int
    fits: Sequence[str]

    def choose(self, n: int, table: Proposals, usual: Sequence[Program], advance: Callable[[int], None]) -> Choice:
        """The program for `n` evaluations.

        Arguments:
            table: the least-squares table found for it.
            usual: closed forms that go to the network in any case, if any do: what is best on the mixture world need not be there.
            advance: told of what was tried.
        """
        ground, denoise = self.network.ground, self.network.denoiser.denoise
        listed: list[Ranked] = []
        skipped: dict[str, str] = {}
        if self.closed_forms:
            listed, skipped = shortlist(ground, n, self.world.denoiser.denoise, self.screen, self.network.top, self.closed_forms, advance)
        closed = Proposals((*(r.program for r in listed[:_KEPT]), *(usual if listed else ())), skipped)
        made = table
        for where, here in ((self.world, True), (self.network, False)):
            made += fitted(where, n, methods=[m for m in self.fits if (m in ON_THE_WORLD) == here], advance=advance)
        ranked, plain = (best(proposals, denoise, self.judge) for proposals in (made, closed))
        both = sorted([*ranked, *plain], key=lambda r: r.error.value)
        return Choice(both[0], ranked[0], plain[0] if plain else None, made.skipped | closed.skipped)


def family_of(program: Program) -> Family:
    """Whose a program is: a table over a law's modes is ours, and so is a fitted one."""
    return "ours" if program.space is not None or program.name.startswith("fitted") else "classic"
