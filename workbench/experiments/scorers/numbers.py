"""Scorer of numbers, within a tolerance."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import UsageError
from workbench.experiments.scorers.base import BaseScorer, OnError, ScoreInput, ScoreValue, brief, verdict

# An optional sign, digits with or without thousands separators, a fraction, an exponent. A hyphen after a letter or a
# digit ("2020-21", "gpt-4") is not a sign.
_NUMBER = re.compile(r"(?:(?<![\w.])[-+−])?(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)?(?:\.\d+)?(?:(?<=\d)[eE][-+]?\d+)?")


def read_number(value: Any) -> float | None:
    """The finite number that a value is, or the last one that its text names; None where there is none.

    "about 1,234.5 euros" gives 1234.5. The last is taken because models reason first and answer at the end. Commas
    separate thousands: a decimal comma is not read.
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value) if math.isfinite(value) else None
    if not isinstance(value, str):
        return None
    found = [text for text in _NUMBER.findall(value) if any(char.isdigit() for char in text)]
    if not found:
        return None
    number = float(found[-1].replace(",", "").replace("−", "-"))
    return number if math.isfinite(number) else None


@dataclass(frozen=True, kw_only=True)
class Numeric(BaseScorer):
    type: ClassVar[str] = "numeric"
    name: str = "numeric"
    tolerance: float = 0.0
    relative: float = 1e-9

    def __post_init__(self) -> None:
        super().__post_init__()
        for limit in (self.tolerance, self.relative):
            if not (math.isfinite(limit) and limit >= 0):
                raise UsageError(f"a tolerance must be a number of 0 or more, not {limit}")

    def measure(self, item: ScoreInput) -> ScoreValue:
        wanted = read_number(item.target)
        if wanted is None:
            return ScoreValue(None, explanation=f"the target {brief(item.target)} is no number")
        got = read_number(item.result)
        if got is None:
            return ScoreValue(0.0, explanation=f"no number in {brief(item.result)}")
        near = abs(got - wanted) <= max(self.tolerance, self.relative * abs(wanted))
        return verdict(near, item, label=f"{got:g}", got=got)


def numeric(
    *, tolerance: float = 0.0, relative: float = 1e-9, name: str = "numeric", on_error: OnError = "fail"
) -> Numeric:
    """1 where the answer's number is within `tolerance`, or the share `relative` of the target, whichever is more.

    A number in text is the last one that `read_number` finds. The default allows for rounding of floats only.
    """
    return Numeric(name=name, tolerance=tolerance, relative=relative, on_error=on_error)
