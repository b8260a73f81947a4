"""What a campaign found: the share killed per room and file with its interval, and the survivors, explained or not."""

from __future__ import annotations

import fnmatch
import math
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

EXPLAINED = Path(__file__).parent / "survivors.toml"
Verdict = dict[str, Any]


def wilson(killed: int, tried: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share that `killed` of `tried` allow at 95 % (E. B. Wilson, 1927).

    Its ends are the shares `p` with `(killed - tried p)^2 = z^2 tried p (1 - p)`.
    """
    if not tried:
        return 0.0, 1.0
    share, w = killed / tried, z * z / tried
    half = math.sqrt(w * (share * (1 - share) + w / 4))
    return (share + w / 2 - half) / (1 + w), (share + w / 2 + half) / (1 + w)


def reasons(path: Path = EXPLAINED) -> dict[str, str]:
    """Why a survivor is kept, by its identity; `*` in one stands for anything."""
    return tomllib.loads(path.read_text()) if path.exists() else {}


_OPERATOR = 2
"""The place of the operator in `file::function::operator::number`."""


def reason(identity: str, known: dict[str, str]) -> str | None:
    """The reason that holds for a mutant, if any."""
    exact = known.get(identity)
    return exact if exact is not None else next((why for name, why in known.items() if "*" in name and _like(identity, name)), None)


def _like(identity: str, pattern: str) -> bool:
    """Field by field; an operator such as `* to /` holds stars of its own, so its field is literal unless it is a lone `*` or has a `?`."""
    fields, wanted = identity.split("::"), pattern.split("::")
    if wanted[-1] == "*" and len(wanted) < len(fields):
        fields = [*fields[: len(wanted) - 1], "::".join(fields[len(wanted) - 1 :])]
    if len(fields) != len(wanted):
        return False
    return all(
        fnmatch.fnmatchcase(field, want.replace("[", "[[]")) if i != _OPERATOR or want == "*" or "?" in want else field == want
        for i, (field, want) in enumerate(zip(fields, wanted, strict=True))
    )


def summary(verdicts: dict[str, Verdict], known: dict[str, str]) -> dict[str, Any]:
    """Counts by room and by file, and the survivors.

    An equivalent mutant is no chance that the tests missed: `share` is of all that were tried, `of_distinct` of those killed or without a
    reason.
    """
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for name, verdict in sorted(verdicts.items()):
        file = name.partition("::")[0]
        for group in (file.partition("/")[0], file):
            groups[group].append(verdict | {"identity": name, "reason": reason(name, known)})
    alive = [v for group, vs in groups.items() if "/" in group for v in vs if v["status"] != "killed"]
    return {
        "rooms": {group: _counts(vs) for group, vs in groups.items() if "/" not in group},
        "files": {group: _counts(vs) for group, vs in groups.items() if "/" in group},
        "survivors": [{key: v.get(key) for key in ("identity", "difference", "line", "status", "reason")} for v in alive],
    }


def _counts(verdicts: list[Verdict]) -> dict[str, Any]:
    killed = sum(v["status"] == "killed" for v in verdicts)
    explained = sum(v["status"] != "killed" and v["reason"] is not None for v in verdicts)
    low, high = wilson(killed, len(verdicts))
    distinct = len(verdicts) - explained
    return {
        "tried": len(verdicts),
        "killed": killed,
        "share": round(killed / len(verdicts), 4),
        "interval": [round(low, 4), round(high, 4)],
        "explained": explained,
        "of_distinct": round(killed / distinct, 4) if distinct else 1.0,
        "interval_of_distinct": [round(end, 4) for end in wilson(killed, distinct)],
    }
