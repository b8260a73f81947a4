"""How often a test's calls of our functions have their shapes and types checked."""

from __future__ import annotations

import jaxtyping

CHECKED_CALLS = 2000
"""How many calls of our functions in a test have the shapes and types of what they are given and return checked."""


class _CallsLeft:
    """jaxtyping's switch, that throws itself: long loops make the same calls again and again, and checks were half of the suite's time."""

    calls = CHECKED_CALLS

    def __get__(self, config, owner):
        self.calls -= 1
        return self.calls < 0 or vars(config)["jaxtyping_disable"]

    def __set__(self, config, value):
        vars(config)["jaxtyping_disable"] = value


type(jaxtyping.config).jaxtyping_disable = LEFT = _CallsLeft()
