"""Who speaks when a launcher runs the same command in several processes: the first one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


def launched() -> tuple[int, int]:
    """`(rank, count)` as `accelerate launch` or `torchrun` have set them; `(0, 1)` without a launcher."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def one_voice() -> Iterator[None]:
    """Inside, what other ranks than the first print is lost."""
    if launched()[0] == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def complain(text: str, alone: bool = False) -> None:
    """Say what is wrong, on standard error: once a machine, since another machine may lack a file that the first one has.

    Arguments:
        text: a line.
        alone: whether it may be wrong with this rank alone; then it is said in any case.
    """
    rank, _ = launched()
    if rank == 0:
        print(text, file=sys.stderr)
    elif alone or os.environ.get("LOCAL_RANK") == "0":
        print(f"rank {rank}: {text}", file=sys.__stderr__)
