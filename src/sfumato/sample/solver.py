"""What a compiled solver promises: a name, its claims as data, and a table for any falling times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from sfumato.noise import ScalarProcess
from sfumato.sample.program import Program


class Solver(ABC):
    """A compiler from times to a program; a frozen dataclass of its options."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What its programs are called."""

    @property
    def order(self) -> int:
        """The order of convergence it claims, for smooth beliefs and fine times: 1 unless a solver says more."""
        return 1

    @property
    def deterministic(self) -> bool:
        """Whether it draws no noise on the way."""
        return True

    @abstractmethod
    def compile(self, process: ScalarProcess, times: Sequence[float]) -> Program:
        """The table over `times` `t_0 > t_1 > ... > t_N`, in float64.

        Raises:
            ArgumentError: times that are not a schedule (see `schedules.custom`), or that the solver cannot use.
        """
