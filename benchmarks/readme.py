"""Put the table of a tuning run into the README: `python -m benchmarks.readme sfumato-out`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from sfumato.metrics import Estimate

BEGIN, END = "<!-- table: python -m benchmarks.readme sfumato-out -->", "<!-- end of table -->"


def table(figures: dict[str, Any]) -> str:
    """The main table of `tune.json`, in Markdown."""
    lines = [
        "| evaluations | ours | best of `diffusers` | | ours / theirs | distance to held-out data: ours | theirs |",
        "|---:|---:|---:|---|---:|---:|---:|",
    ]
    for n in figures["settings"]["evaluations"]:
        ours = next(c for c in figures["candidates"] if c["name"] == figures["chosen"][str(n)] and c["evaluations"] == n)
        peers = [c for c in figures["candidates"] if c["family"] == "diffusers" and c["evaluations"] <= n]
        peer = min(peers, key=lambda c: c["error"]["value"])
        ratio = ours["error"]["value"] / peer["error"]["value"]
        cells = [
            n,
            _text(ours["error"]),
            _text(peer["error"]),
            peer["name"],
            f"{ratio:.2f}",
            _text(ours["quality"]),
            _text(peer["quality"]),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    floor = ", ".join(f"{name} {_text(value)}" for name, value in figures["floor"].items())
    machine = ", ".join(f"{name} {value}" for name, value in figures["machine"].items())
    seconds = sum(t["seconds"] for t in figures["timings"])
    lines += ["", f"Distances that are no sampler's fault: {floor}. Tuning took {seconds:.0f} s ({machine})."]
    return "\n".join(lines)


def _text(estimate: dict[str, float] | None) -> str:
    return str(Estimate(**estimate)) if estimate else ""


def main() -> None:
    """Rewrite the README's block."""
    readme = Path(__file__).parents[1] / "README.md"
    figures = json.loads((Path(sys.argv[1]) / "tune.json").read_text())
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{table(figures)}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
