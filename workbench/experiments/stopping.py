"""Early stopping: in which order rows are asked, and when the differences so far are enough to decide."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from workbench.errors import UsageError
from workbench.experiments import sequential

if TYPE_CHECKING:
    from workbench.experiments.scorers.base import Scorer

Named = TypeVar("Named")


class EarlyStopping(BaseModel):
    """The rule by which a run may stop before its last row; part of the run's manifest.

    Rows are asked in an order drawn from `seed`, `every` rows of every variant at a time. After each of these looks the
    run stops when every variant is decided against the baseline on the primary scorer: better, worse, or (with a
    `margin`) equivalent. The test holds whenever it is looked at (see `sequential`), so that looking costs no validity.

    Attributes:
        level: of the decision; Bonferroni over the variants and the quality scorers, which Holm's procedure never exceeds.
        margin: the largest difference that does not matter, in the primary scorer's unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: float = Field(default=0.95, gt=0.5, lt=1.0)
    every: int = Field(default=32, ge=1)
    margin: float | None = Field(default=None, gt=0)
    seed: int = 0

    def order(self, row_ids: Iterable[str]) -> list[str]:
        """The ids in the order in which their rows are asked: the same for the same seed, whatever order they come in."""
        return sorted(row_ids, key=lambda row_id: hashlib.sha256(f"{self.seed}:{row_id}".encode()).digest())


class Watch:
    """The primary scores of a run as they come in, and whether they are enough.

    Args:
        bounds: the least and the largest value of the primary scorer.
        comparisons: how many claims are judged together.
    """

    def __init__(
        self,
        rule: EarlyStopping,
        variants: Sequence[str],
        scorer: Scorer,
        bounds: tuple[float, float],
        comparisons: int,
    ) -> None:
        self.rule = rule
        self.baseline, *self.others = variants
        self.scorer = scorer
        self.bound = bounds[1] - bounds[0]
        self.comparisons = comparisons
        self._values: dict[tuple[str, str], dict[int, float | None]] = {}

    def add(self, variant: str, row_id: str, repeat: int, value: float | None) -> None:
        self._values.setdefault((variant, row_id), {})[repeat] = value

    def decided(self, row_ids: Sequence[str]) -> bool:
        """Whether every variant is decided on these rows, which are in the order of asking."""
        return all(self.look(variant, row_ids).verdict is not None for variant in self.others)

    def look(self, variant: str, row_ids: Sequence[str]) -> sequential.Look:
        """What the rows so far say of one variant."""
        pairs = ((self._mean(variant, row_id), self._mean(self.baseline, row_id)) for row_id in row_ids)
        diffs = np.array([new - old for new, old in pairs if new is not None and old is not None], dtype=np.float64)
        return sequential.stopping_look(
            diffs,
            level=self.rule.level,
            comparisons=self.comparisons,
            margin=self.rule.margin,
            bound=self.bound,
            direction=self.scorer.direction,
        )

    def _mean(self, variant: str, row_id: str) -> float | None:
        found = [v for v in self._values.get((variant, row_id), {}).values() if v is not None and math.isfinite(v)]
        return sum(found) / len(found) if found else None


def bounds_of(described: Mapping[str, Any]) -> tuple[float, float] | None:
    """The least and the largest score that a scorer of a manifest can give; None where there is no limit."""
    found = described.get("bounds")
    return (float(found[0]), float(found[1])) if found else None


def check_stoppable(scorer: Scorer, groups: bool, variants: int) -> tuple[float, float]:
    """The bounds of the primary scorer.

    Raises:
        UsageError: its scores have no limits, rows come in groups, or there is nothing to compare.
    """
    if variants < 2:
        raise UsageError("early stopping compares variants, and there is one", hint="Add a second variant.")
    if groups:
        raise UsageError("early stopping needs rows that stand alone", hint="Run it whole: the data set has groups.")
    if scorer.bounds is None:
        raise UsageError(
            f"early stopping needs a primary scorer with limits, and {scorer.name} has none",
            hint="Choose a binary or share scorer as primary=.",
        )
    return scorer.bounds
