"""The metrics that a policy's guards bound, computed from a run's rows."""

from __future__ import annotations

import numpy as np
import polars as pl

from workbench.registry.policy import COUNTS, RATES, TIMES, Guard

INVALID_OUTPUT = "invalid_output"
_QUANTILES = {"p50": 0.5, "p95": 0.95, "max": 1.0}


class MissingMetric(Exception):
    """A metric that these rows do not give. The message says why."""


def measure(guard: Guard, calls: pl.DataFrame, scores: pl.DataFrame, variant: str) -> float:
    """The value of a guard's metric for one variant.

    Times are of calls that the model answered just now (an answer from a cache says nothing about the model's speed).
    `error_rate` is the share of calls that ended in an accident, `invalid_output_rate` of those whose answer
    post-processing rejected; both are over all calls. A scorer's value is over the calls that it scored.

    Raises:
        MissingMetric: no rows, no such metric, or a value that is missing or not finite.
    """
    mine = calls.filter(pl.col("variant") == variant)
    if mine.is_empty():
        raise MissingMetric(f"no calls of {variant}")
    if guard.metric in RATES:
        kind = mine["error_kind"]
        invalid = (kind == INVALID_OUTPUT).fill_null(False)
        counted = invalid if guard.metric == "invalid_output_rate" else kind.is_not_null() & ~invalid
        return int(counted.sum()) / len(mine)
    if guard.metric in TIMES:
        return _statistic(guard, _present(guard, mine.filter(~pl.col("cached")), variant), variant)
    if guard.metric in COUNTS:
        return _statistic(guard, _present(guard, mine, variant), variant)
    scored = scores.filter((pl.col("variant") == variant) & (pl.col("scorer") == guard.metric))
    if scored.is_empty():
        raise MissingMetric(f"{guard.metric} is neither a metric nor a scorer of this run")
    return _statistic(guard, scored["value"].drop_nulls(), variant)


def _present(guard: Guard, calls: pl.DataFrame, variant: str) -> pl.Series:
    """The metric's column. A call that ended in an accident may lack it; an answered one may not."""
    accident = (pl.col("error_kind").is_not_null() & (pl.col("error_kind") != INVALID_OUTPUT)).fill_null(False)
    lacking = calls.filter(pl.col(guard.metric).is_null() & ~accident)
    if len(lacking):
        raise MissingMetric(f"{len(lacking)} answered calls of {variant} have no {guard.metric}")
    return calls[guard.metric].drop_nulls()


def _statistic(guard: Guard, values: pl.Series, variant: str) -> float:
    if values.is_empty():
        raise MissingMetric(f"no values of {guard.metric} for {variant}")
    numbers = values.cast(pl.Float64).to_numpy()
    if not np.isfinite(numbers).all():
        raise MissingMetric(f"{guard.metric} of {variant} is not finite in some rows")
    if guard.statistic == "mean":
        return float(np.mean(numbers))
    return float(np.quantile(numbers, _QUANTILES[guard.statistic]))
