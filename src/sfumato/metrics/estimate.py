"""A number that was measured, and how far it may be off."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Estimate:
    """A measured value and its standard error; what varies is said by the function that made it."""

    value: float
    standard_error: float

    def __str__(self) -> str:
        """`0.123 ± 0.004`: the standard error to one digit and the value to the same place."""
        if not (math.isfinite(self.value) and math.isfinite(self.standard_error)) or self.standard_error == 0:
            return f"{self.value:.6g} ± {self.standard_error:.1g}"
        # formatting first: 0.0096 is 0.01 to one digit, and sets the place of 0.01
        place = int(f"{self.standard_error:.0e}".split("e")[1])
        scale = 0 if -5 < place < 1 else max(place, math.floor(math.log10(abs(self.value) or self.standard_error)))
        digits = max(0, scale - place)
        # adding 0.0 takes the sign off a value that is 0 to these digits
        value, error = round(self.value / 10.0**scale, digits) + 0.0, self.standard_error / 10.0**scale
        return f"{value:.{digits}f} ± {error:.{digits}f}" if scale == 0 else f"({value:.{digits}f} ± {error:.{digits}f})e{scale:+03d}"

    def to_dict(self) -> dict[str, float]:
        """`{"value": ..., "standard_error": ...}`."""
        return asdict(self)
