"""The law beside a recipe: two files, of which at every moment one pair fits together.

`recipe.json` carries the checksum of its `statistics.safetensors`. While both are replaced the law that was there before is kept aside, for
as long as the recipe that needs it is in its place.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfumato.errors import RecipeError
from sfumato.exact import Gaussian
from sfumato.files import write_bytes
from sfumato.learn.training.law_file import law_mark, read_law, write_law

STATISTICS, MARK = "statistics.safetensors", "statistics"
_ASIDE = f".{STATISTICS}.before"


def write_pair(folder: Path, recipe: dict[str, Any], law: Gaussian | None) -> None:
    """Put a recipe's plain data and its law into a folder, of which the new pair or the one before can be read at every moment.

    Raises:
        OutputError: the folder cannot be written. What was there before stays.
    """
    mark, old = None, folder / STATISTICS
    if law is not None:
        if old.exists() and law_mark(old) == _marked(folder / "recipe.json"):
            write_bytes(folder / _ASIDE, old.read_bytes())
        mark = write_law(old, law)
    write_bytes(folder / "recipe.json", json.dumps({**recipe, MARK: mark}, indent=1).encode())
    (folder / _ASIDE).unlink(missing_ok=True)


def read_pair(folder: Path, recipe: Any) -> Gaussian | None:
    """The law of the recipe whose plain data were read in a folder; None if it has none.

    Raises:
        RecipeError: a law that is truncated, altered or another recipe's.
    """
    law = folder / STATISTICS
    if not isinstance(recipe, dict) or MARK not in recipe or not law.exists():
        # written before laws were marked, or no recipe at all
        return read_law(law)
    mark = recipe[MARK]
    if mark is None:
        return None
    for path in (law, folder / _ASIDE):
        if law_mark(path) == mark:
            return read_law(path)
    if law_mark(law) is not None:
        raise RecipeError(STATISTICS, str(law), "the statistics of this recipe", "They are another recipe's: keep both files together.")
    return read_law(law)


def _marked(recipe: Path) -> Any:
    try:
        return json.loads(recipe.read_bytes()).get(MARK)
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
