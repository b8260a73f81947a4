"""What of each room the tests run: reads coverage's JSON, prints a table and keeps its figures in benchmarks/results/coverage.json.

`make coverage` calls it after the whole suite. A room's share is of its lines and branches together, as coverage counts them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "coverage.json"
COUNTED = ("covered_lines", "num_statements", "covered_branches", "num_branches")


def room_of(file: str) -> str:
    """The room that a file below `sfumato/` belongs to: its folder, or itself if it lies beside the rooms."""
    inside = file.replace("\\", "/").rpartition("/sfumato/")[2]
    return inside.partition("/")[0]


def summary(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By room, and in all (`total`), what was counted and its share in percent."""
    counts: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(COUNTED, 0))
    for file, found in report["files"].items():
        for room in (room_of(file), "total"):
            for key in COUNTED:
                counts[room][key] += found["summary"][key]
    for room in counts.values():
        all_ = room["num_statements"] + room["num_branches"]
        room["percent"] = round(100 * (room["covered_lines"] + room["covered_branches"]) / all_, 1) if all_ else 100.0
    return {**{room: counts[room] for room in sorted(counts) if room != "total"}, "total": counts["total"]}


def table(rooms: dict[str, dict[str, float]]) -> str:
    """The same, to look at."""
    lines = [f"{'room':18} {'lines':>15} {'branches':>15} {'covered':>8}"]
    for name, room in rooms.items():
        done, branches = (
            f"{room[f'covered_{k}']:.0f} of {room[n]:.0f}" for k, n in (("lines", "num_statements"), ("branches", "num_branches"))
        )
        lines.append(f"{name:18} {done:>15} {branches:>15} {room['percent']:>6.1f} %")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python scripts/coverage_rooms.py", description="Coverage by room.")
    parser.add_argument("report", type=Path, help="what `pytest --cov-report=json` wrote")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures are kept")
    given = parser.parse_args(arguments)
    rooms = summary(json.loads(given.report.read_text(encoding="utf-8")))
    print(table(rooms))
    given.out.write_text(json.dumps(rooms, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
