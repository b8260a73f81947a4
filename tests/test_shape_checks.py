"""The suite checks shapes and types of the first calls of a test, and only of those."""

from __future__ import annotations

import os

import pytest
import torch
from jaxtyping import TypeCheckError

from checked_calls import CHECKED_CALLS
from sfumato.metrics import endpoint_error
from sfumato.metrics.samples import as_matrix

pytestmark = pytest.mark.skipif(os.environ.get("JAXTYPING_DISABLE") == "1", reason="checks are switched off")


def test_a_wrong_shape_is_seen():
    with pytest.raises(TypeCheckError):
        endpoint_error(torch.zeros(3, 2), 5)


def test_after_so_many_calls_it_is_not():
    """What jaxtyping looks at is its own affair: should it look elsewhere, the suite takes twice as long, and this test says why."""
    for _ in range(CHECKED_CALLS):
        as_matrix(torch.zeros(3, 2), "x", 2)
    with pytest.raises(AttributeError):
        endpoint_error(torch.zeros(3, 2), 5)


def test_the_next_test_is_checked_again():
    test_a_wrong_shape_is_seen()
