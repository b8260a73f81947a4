"""Where the bounds of arguments lie: the last value with a meaning is taken, the first without one is refused; see `calls_of_*`."""

from __future__ import annotations

import calls_of_compilers
import calls_of_fits
import calls_of_steps
import pytest

from sfumato.errors import SfumatoError

CALLS = calls_of_compilers.CALLS | calls_of_steps.CALLS | calls_of_fits.CALLS
GOOD = [pytest.param(call, id=f"{file}-{i}") for file, (good, _) in CALLS.items() for i, call in enumerate(good)]
BAD = [pytest.param(call, id=f"{file}-{i}") for file, (_, bad) in CALLS.items() for i, call in enumerate(bad)]


@pytest.mark.parametrize("call", GOOD)
def test_the_last_value_with_a_meaning_is_taken(call):
    call()


@pytest.mark.parametrize("call", BAD)
def test_the_first_value_without_one_is_refused(call):
    with pytest.raises(SfumatoError):
        call()
