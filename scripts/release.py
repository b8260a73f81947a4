"""Makes a release: `make release` looks at everything and leaves no trace, `make release TAG=1` sets the tag, too.

It asks that the tree is clean, that package, changelog and citation name one version and one day, and that no tag has it yet; runs the
tests and lint; builds the source archive and the wheel; installs the wheel into an empty environment and uses it there. Pushing is left
to a person.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUICK_ROW = "hidden-linear-structure"
"""A row of the atlas that needs neither training nor an extra."""


class Refused(Exception):
    """No release can be made of this tree; the text says why and what to do."""


@dataclass(frozen=True)
class Stated:
    """What one file says of the release: its version and, where it has one, its day."""

    file: str
    version: str
    day: str | None = None


def _found(root: Path, file: str, pattern: str) -> re.Match[str]:
    path = root / file
    if not path.is_file():
        raise Refused(f"{file} is not there.")
    match = re.search(pattern, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if match is None:
        raise Refused(f"{file}: expected a line like {pattern}.")
    return match


def stated(root: Path) -> list[Stated]:
    """What package, changelog (its first heading) and citation say.

    Raises:
        Refused: a file is not there or has no version.
    """
    package = _found(root, "src/sfumato/__init__.py", r'^__version__ = "(.+)"$')
    heading = _found(root, "CHANGELOG.md", r"^## (\S+) \((.+)\)$")
    citation = _found(root, "CITATION.cff", r'^version: "?([^"\s]+)"?$')
    day = re.search(r"^date-released: \"?([^\"\s]+)\"?$", (root / "CITATION.cff").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [
        Stated("src/sfumato/__init__.py", package[1]),
        Stated("CHANGELOG.md", heading[1], heading[2]),
        Stated("CITATION.cff", citation[1], day and day[1]),
    ]


def disagreements(root: Path) -> list[str]:
    """Why the files do not state one version and one day, a sentence each; empty if they do.

    Raises:
        Refused: a file is not there or has no version.
    """
    package, changelog, citation = stated(root)
    out = [
        f"{other.file} is at version {other.version}, {package.file} at {package.version}: write the same into both."
        for other in (changelog, citation)
        if other.version != package.version
    ]
    if re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", package.version) is None:
        out.append(f"{package.file}: {package.version} is no version of the form 1.2.3 or 1.2.3rc1.")
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", changelog.day or "") is None:
        out.append(f"CHANGELOG.md: the first heading says ({changelog.day}): put the day of the release there, as (2026-01-31).")
    elif changelog.day != citation.day:
        out.append(f"CITATION.cff: date-released is {citation.day}, the day in CHANGELOG.md {changelog.day}: write the same into both.")
    return out


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def unready(root: Path) -> list[str]:
    """Everything that stands against a release of this tree, a sentence each.

    Raises:
        Refused: a file that states the version is not there, or does not.
    """
    out = disagreements(root)
    if changed := _git(root, "status", "--porcelain").splitlines():
        out.append(f"{len(changed)} files are changed or unknown to git, the first {changed[0][3:]}: commit or remove them.")
    tag = f"v{stated(root)[0].version}"
    if _git(root, "tag", "--list", tag):
        out.append(f"the tag {tag} is there already: raise the version.")
    return out


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("+", *command, flush=True)
    if code := subprocess.run([*map(str, command)], cwd=cwd).returncode:
        raise Refused(f"{' '.join(map(str, command))} ended with {code}.")


def build(out: Path) -> Path:
    """The source archive and the wheel, built from the archive; returns the wheel."""
    _run(sys.executable, "-m", "build", "--outdir", out, ROOT)
    return next(out.glob("*.whl"))


def try_wheel(wheel: Path, folder: Path) -> None:
    """The wheel installed into an empty environment, and used from a folder that is not the repository."""
    venv.create(folder / "env", with_pip=True)
    bin_, away = folder / "env" / "bin", folder / "away"
    away.mkdir()
    _run(bin_ / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", f"{wheel}[data]", cwd=away)
    _run(bin_ / "sfumato", "--help", cwd=away)
    _run(bin_ / "sfumato", "atlas", "run", QUICK_ROW, cwd=away)
    _run(bin_ / "sfumato", "explain", "--only", "gaussian", "--steps", "20", cwd=away)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """The command line; 0 if the release is ready (or tagged), 1 if something stands against it."""
    parser = argparse.ArgumentParser(prog="python scripts/release.py", description="Check, build, try and tag a release.")
    parser.add_argument("--tag", action="store_true", help="set the tag at the end; without it nothing is left but dist/")
    parser.add_argument("--only-check", action="store_true", help="look at versions, day, tree and tag, and stop")
    given = parser.parse_args(arguments)
    try:
        against = unready(root)
        for sentence in against:
            print(f"not ready: {sentence}", file=sys.stderr)
        if given.only_check or (given.tag and against):
            return int(bool(against))
        _run("make", "test", "lint")
        with tempfile.TemporaryDirectory() as folder:
            try_wheel(build(ROOT / "dist"), Path(folder))
        tag = f"v{stated(root)[0].version}"
        if given.tag:
            _git(root, "tag", "--annotate", tag, "--message", f"sfumato {tag[1:]}")
            print(f"{tag} is set. Push it and upload dist/ when you are sure.")
        else:
            print(f"Everything else is as it should be for {tag}." if against else f"Ready: `make release TAG=1` sets {tag}.")
        return int(bool(against))
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
