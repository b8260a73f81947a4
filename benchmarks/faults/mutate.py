"""Ways to spoil a file: its bytes, or the values of the JSON in it."""

from __future__ import annotations

import copy
import random
from typing import Any

_HOSTILE: list[Any] = [
    float("nan"),
    float("inf"),
    -float("inf"),
    0,
    -1,
    1,
    2**31,
    2**63,
    10**400,
    1e308,
    -1e308,
    5e-324,
    0.5,
    True,
    None,
    "",
    "x",
    "../../../etc/passwd",
    "/dev/zero",
    "hub:../..",
    "\ud800",
    "a\nb\x1b[31m",
    "9" * 5000,
    "x" * 100_000,
    [],
    {},
    [[]],
    {"": {}},
    [None],
    ["a", 1, {}],
    [0] * 1000,
    {"kind": "x"},
    {"__class__": "os.system"},
]
_DEEP = 300


def spoil_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content cut, flipped, stretched or stirred."""
    out = bytearray(content)
    at, other = (rng.randrange(len(out)) for _ in range(2))
    low, high = min(at, other), max(at, other)
    match rng.randrange(7):
        case 0:
            del out[at:]
        case 1:
            for _ in range(rng.randrange(1, 5)):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        case 2:
            out[at:at] = rng.randbytes(rng.randrange(1, 30))
        case 3:
            del out[low : min(high, low + rng.randrange(1, 40))]
        case 4:
            out[at:at] = out[low : min(high, low + 200)]
        case 5:
            out[low:high] = bytes(high - low)
        case _:
            out[at] = rng.randrange(256)
    return bytes(out)


def spoil_values(value: Any, rng: random.Random) -> Any:
    """Plain data with one to three of its values replaced, removed, doubled or buried."""
    out = [copy.deepcopy(value)]
    for _ in range(rng.randrange(1, 4)):
        places = list(_places(out))
        holder, key = rng.choice(places[1:] if len(places) > 1 and rng.random() < 0.95 else places)
        match rng.randrange(8):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(["surprise", "kind", "0", "-1", "99999", "٣", "9" * 5000, "\ud800", "a\nb"])] = copy.deepcopy(holder[key])
            case 2 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 3 if isinstance(holder, list):
                del holder[key]
            case 4:
                deep: Any = holder[key]
                for _ in range(_DEEP):
                    deep = [deep] if rng.random() < 0.5 else {"a": deep}
                holder[key] = deep
            case 5 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                holder[key] = holder[key] * rng.choice([-1, 0, 2, 1e10, 1e-10, 10**30])
            case _:
                holder[key] = copy.deepcopy(rng.choice(_HOSTILE))
        if not out:
            return None
    return out[0]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every holder and key below a value, the shallow ones first."""
    out: list[tuple[Any, Any]] = []
    row = [value]
    while row and len(out) < 4000:
        found = [(h, k) for h in row for k in (list(h) if isinstance(h, dict) else range(len(h)))]
        out += found
        row = [h[k] for h, k in found if isinstance(h[k], dict | list)]
    return out
