"""A recipe: the programs that tuning chose, as plain data that executes nothing.

A recipe is a folder: `recipe.json` (format, process, event shape, one program per budget, the evidence, where the model is) and
`statistics.safetensors` (the Gaussian law over whose modes the programs run). They are replaced together, see `recipe_statistics`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato.denoiser import Denoiser
from sfumato.errors import ArgumentError, MissingExtraError, RecipeError
from sfumato.exact import Gaussian
from sfumato.sample import Program, Sampler
from sfumato.tune.recipe_statistics import MARK, STATISTICS, read_pair, write_pair

FORMAT = 1
_KEYS = {"format", "sfumato", "event_shape", "model", "classes", "default", "programs", "evidence"}


@dataclass(frozen=True)
class Recipe:
    """Programs by budget for events of one shape.

    Arguments:
        event_shape: the shape of one sample.
        programs: by number of evaluations.
        default: the budget to use if none is asked for.
        law: the Gaussian whose modes the spectral programs run over; None if all are scalar.
        model: where the model is, relative to the recipe's folder or absolute; None if the user brings it.
        classes: how many classes the model is conditioned on, or None.
        evidence: by budget, the measured `error` and its `standard_error`.

    Example:
        >>> import tempfile
        >>> from sfumato.noise import VariancePreserving
        >>> from sfumato.sample import PRESETS, uniform_log_snr
        >>> from sfumato.tune import Recipe
        >>> process = VariancePreserving()
        >>> programs = {n: PRESETS["unipc-2-bh2"].compile(process, uniform_log_snr(process, n)) for n in (5, 8)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Recipe((1, 8, 8), programs, default=8).save(folder)
        ...     again = Recipe.load(folder)
        >>> again.default, again.program(5).evaluations
        (8, 5)
    """

    event_shape: tuple[int, ...]
    programs: dict[int, Program]
    default: int
    law: Gaussian | None = None
    model: str | None = None
    classes: int | None = None
    evidence: dict[int, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.default not in self.programs:
            raise RecipeError("default", self.default, f"one of the budgets {sorted(self.programs)}")
        if self.law is not None and self.law.dim != math.prod(self.event_shape):
            raise RecipeError("event_shape", self.event_shape, f"a shape of {self.law.dim} numbers, as the statistics")

    def program(self, evaluations: int | None = None) -> Program:
        """The program of a budget; the default one for None.

        Raises:
            ArgumentError: a budget the recipe has no program for.
        """
        n = self.default if evaluations is None else evaluations
        if n not in self.programs:
            raise ArgumentError("evaluations", n, f"one of the recipe's budgets, {', '.join(map(str, sorted(self.programs)))}")
        return self.programs[n]

    def sampler(self, denoiser: Denoiser, evaluations: int | None = None, **options: Any) -> Sampler:
        """A sampler for a denoiser; `options` are those of `Sampler` (dtype, device)."""
        return Sampler(denoiser, self.program(evaluations), self.event_shape, **options)

    def scheduler(self, pipeline: Any = None) -> Any:
        """The recipe as a scheduler of `diffusers`: `pipe.scheduler = Recipe.load("tuned").scheduler(pipe)`.

        `num_inference_steps` then are evaluations, one of the recipe's budgets. Pipelines that do not call `scale_model_input` (DDPM's,
        Stable Diffusion 3's) spend one more where the program teleports.

        Arguments:
            pipeline: says what its network was trained on; see `ProgramScheduler.of`.

        Raises:
            RecipeError: a recipe for another process than the pipeline's.
            MissingExtraError: `diffusers` is not installed.
        """
        try:
            from sfumato.integrations.diffusers import ProgramScheduler
        except ImportError as error:
            raise MissingExtraError("diffusers", "diffusers") from error
        return ProgramScheduler.of(self.programs, pipeline)

    def to_dict(self) -> dict[str, Any]:
        """What `recipe.json` holds."""
        from sfumato import __version__

        return {
            "format": FORMAT,
            "sfumato": __version__,
            "event_shape": list(self.event_shape),
            "model": self.model,
            "classes": self.classes,
            "default": self.default,
            "programs": {str(n): {"spectral": p.space is not None, **p.to_dict()} for n, p in sorted(self.programs.items())},
            "evidence": {str(n): e for n, e in sorted(self.evidence.items())},
        }

    def save(self, folder: str | Path) -> Path:
        """Write the recipe into a folder, which is made if need be; returns the path of `recipe.json`.

        Raises:
            OutputError: the folder cannot be written. What was there before stays.
        """
        folder = Path(folder)
        write_pair(folder, self.to_dict(), self.law)
        return folder / "recipe.json"

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe from its folder or its `recipe.json`.

        Raises:
            RecipeError: no recipe there, or one that is truncated, altered, of an unknown format, or has unknown keys.
        """
        given = Path(path)
        path = given / "recipe.json" if given.is_dir() else given
        try:
            data = json.loads(path.read_bytes())
        except OSError as e:
            model = (given / "config.json").exists() and not path.exists()
            hint = f"This is a model; `sfumato tune {given}` makes a recipe for it." if model else f"It cannot be read: {e.strerror}."
            raise RecipeError("recipe", str(path), "a recipe's folder or its recipe.json", hint) from e
        except (ValueError, RecursionError) as e:
            raise RecipeError("recipe", str(path), "JSON", "The file is truncated or was altered.") from e
        return cls.from_dict(data, read_pair(path.parent, data))

    @classmethod
    def from_dict(cls, data: Any, law: Gaussian | None) -> Recipe:
        """The recipe that `to_dict` wrote down, over its law.

        Raises:
            RecipeError: see `load`.
        """
        if not isinstance(data, dict):
            raise RecipeError("recipe", type(data).__name__, "an object")
        if data.get("format") != FORMAT:
            raise RecipeError("recipe.format", data.get("format"), f"format {FORMAT}", "It was written by another version of sfumato.")
        if set(data) - {MARK} != _KEYS:
            raise RecipeError("recipe", f"the keys {sorted(data)}", f"exactly the keys {sorted(_KEYS)}")
        shape, programs, evidence = data["event_shape"], data["programs"], data["evidence"]
        if not isinstance(shape, list) or not shape or not all(_is_count(n) for n in shape):
            raise RecipeError("recipe.event_shape", shape, "a list of positive sizes")
        for name, value in (("programs", programs), ("evidence", evidence)):
            if not isinstance(value, dict) or not all(_is_budget(str(n)) and isinstance(v, dict) for n, v in value.items()):
                raise RecipeError(f"recipe.{name}", type(value).__name__, "an object by number of evaluations")
        if not all(_is_number(v) for e in evidence.values() for v in e.values()):
            raise RecipeError("recipe.evidence", "other values", "plain numbers")
        model, classes = data["model"], data["classes"]
        if not (model is None or isinstance(model, str)) or not (classes is None or _is_count(classes)) or not _is_count(data["default"]):
            raise RecipeError(
                "recipe.model, classes, default", (model, classes, data["default"]), "a path or null, a count or null, a count"
            )
        read: dict[int, Program] = {}
        for n, program in programs.items():
            if not isinstance(program.get("spectral"), bool):
                raise RecipeError(f"programs.{n}.spectral", program.get("spectral"), "true or false")
            if program["spectral"] and law is None:
                raise RecipeError(STATISTICS, "nothing", "the law of a spectral program", "Keep it beside recipe.json.")
            table = {key: value for key, value in program.items() if key != "spectral"}
            read[int(n)] = Program.from_dict(table, law if program["spectral"] else None)
        return cls(tuple(shape), read, data["default"], law, model, classes, {int(n): e for n, e in evidence.items()})


def _is_budget(key: str) -> bool:
    # int() refuses thousands of digits with an error of its own, and reads "02" and "2" as one budget
    return key.isascii() and key.isdecimal() and len(key) < 20 and key[0] != "0"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
