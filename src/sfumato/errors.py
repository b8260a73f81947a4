"""Errors a user can act on: what was expected, what came, what to do."""

from __future__ import annotations

_LONGEST = 500


def one_line(value: object) -> str:
    """A value as text for a terminal: one line, of bounded length, with whatever cannot be shown spelled out."""
    try:
        text = str(value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text[: 2 * _LONGEST].split()))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


class SfumatoError(Exception):
    """Base of every error that sfumato raises on purpose."""


class ArgumentError(SfumatoError, ValueError):
    """An argument does not mean anything here.

    Arguments:
        name: the argument's name, as the caller wrote it.
        given: what came, already short enough to print.
        expected: what would have been accepted.
        hint: what to do about it, if there is something.
    """

    def __init__(self, name: str, given: object, expected: str, hint: str = "") -> None:
        self.name, self.given, self.expected, self.hint = name, given, expected, hint
        text = f"{one_line(name)}: expected {one_line(expected)}, got {one_line(given)}"
        super().__init__(f"{text}. {one_line(hint)}" if hint else f"{text}.")

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, object, str, str]]:
        # Exceptions are rebuilt from their arguments when they cross a process boundary.
        return type(self), (self.name, self.given, self.expected, self.hint)


class ShapeError(ArgumentError):
    """A tensor has the wrong shape."""


class DataError(ArgumentError):
    """Data cannot be used: NaN, constant, too few, unreadable."""


class RecipeError(ArgumentError):
    """A recipe or program file cannot be used: unknown key or version, another event shape, broken table."""


class CheckpointError(ArgumentError):
    """A checkpoint cannot be used: truncated, altered, of another model."""


class OutputError(SfumatoError, OSError):
    """Nothing can be written where the user asked for it."""


class MissingExtraError(SfumatoError, ImportError):
    """An optional dependency is needed and absent.

    Arguments:
        package: the package's name.
        extra: sfumato's extra that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{package} is needed here and is not installed: pip install 'sfumato[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.package, self.extra)
