from __future__ import annotations

import pickle

import pytest

from sfumato import errors

ARGUMENT_ERRORS = [
    errors.ArgumentError,
    errors.ShapeError,
    errors.DataError,
    errors.RecipeError,
    errors.CheckpointError,
]


@pytest.mark.parametrize("kind", ARGUMENT_ERRORS)
def test_an_argument_error_says_what_was_expected_and_what_came(kind):
    error = kind("steps", 0, "an order from 1 to 6", "Take 2.")
    assert str(error) == "steps: expected an order from 1 to 6, got 0. Take 2."
    assert (error.name, error.given, error.expected, error.hint) == ("steps", 0, "an order from 1 to 6", "Take 2.")
    assert isinstance(error, ValueError)
    assert isinstance(error, errors.SfumatoError)


@pytest.mark.parametrize(
    "error",
    [
        *(kind("times", [0.1, 0.5], "times that fall", "Turn them round.") for kind in ARGUMENT_ERRORS),
        errors.OutputError("cannot write here"),
        errors.MissingExtraError("diffusers", "diffusers"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_every_error_survives_the_way_between_processes(error):
    """Data loaders and process pools pickle what their workers raise."""
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert {k: v for k, v in vars(back).items() if not k.startswith("_")} == {k: v for k, v in vars(error).items() if not k.startswith("_")}


def test_a_missing_extra_is_an_import_error_that_says_what_to_install():
    error = errors.MissingExtraError("ot", "ot")
    assert isinstance(error, ImportError)
    assert "pip install 'sfumato[ot]'" in str(error)


def test_output_errors_are_os_errors():
    assert issubclass(errors.OutputError, OSError)
    assert issubclass(errors.OutputError, errors.SfumatoError)
