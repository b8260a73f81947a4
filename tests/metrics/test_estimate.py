"""Estimate: the printed digits are those the standard error leaves standing."""

import pytest

from sfumato.metrics import Estimate


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.12345, 0.0042, "0.123 ± 0.004"),
        (0.12345, 0.0096, "0.12 ± 0.01"),
        (-1.5, 0.02, "-1.50 ± 0.02"),
        (12.34, 3.2, "12 ± 3"),
        (1234.5, 56.0, "(1.23 ± 0.06)e+03"),
        (1.204e-7, 3e-9, "(1.20 ± 0.03)e-07"),
        (0.0, 2e-8, "(0 ± 2)e-08"),
        (3.0, 450.0, "(0 ± 4)e+02"),
        (0.5, 0.0, "0.5 ± 0"),
        (0.5, float("nan"), "0.5 ± nan"),
    ],
)
def test_the_value_is_rounded_to_the_place_of_its_standard_error(value, error, text):
    assert str(Estimate(value, error)) == text


def test_as_plain_data():
    assert Estimate(1.5, 0.25).to_dict() == {"value": 1.5, "standard_error": 0.25}


def test_a_value_that_rounds_to_zero_has_no_sign():
    assert str(Estimate(-0.004, 0.3)) == "0.0 ± 0.3"
    assert str(Estimate(-0.06, 0.3)) == "-0.1 ± 0.3"
