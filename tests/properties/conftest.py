"""Profiles of the property tests.

Every day the profile "same" of all tests: the same examples in every run, no deadline. `pytest tests/properties
--hypothesis-profile=thorough` takes ten times as many examples, and others in every run; what it finds is added with `@example`.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "thorough",
    settings.get_profile("same"),
    max_examples=1000,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
