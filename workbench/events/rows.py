"""What one row of `calls` and of `scores` is: one question to one variant, and one scorer's verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Call:
    """One question to one variant. Texts of structure are canonical JSON; times are seconds; `started_at` is ISO 8601 UTC.

    `output` is the model's raw text, `result` the post-processed value, `logprob` the natural log-probability of the text.
    `passages` are the ids of what retrieval found, as JSON.
    """

    run_id: str
    experiment: str
    variant: str
    row_id: str
    repeat: int
    trace_id: str
    tenant: str | None
    notebook: str | None
    git_commit: str | None
    pipeline_digest: str
    prompt_digest: str
    model: str
    model_digest: str
    input: str
    output: str | None
    result: str | None
    target: str | None
    group: str | None
    finish_reason: str | None
    error_kind: str | None
    error: str | None
    logprob: float | None
    cached: bool
    tokens_in: int
    tokens_out: int
    queue_s: float
    ttft_s: float
    latency_s: float
    cost_usd: float | None
    started_at: str
    passages: str | None = None


@dataclass(frozen=True)
class Score:
    """One scorer's verdict on one call. `value` is None where it was not scored."""

    run_id: str
    variant: str
    row_id: str
    repeat: int
    scorer: str
    scorer_digest: str
    value: float | None
    label: str | None
    explanation: str | None


def schema_of(record: type[Call | Score]) -> dict[str, Any]:
    """Polars types of the columns of `calls` or `scores` as a run's folder holds them, in order."""
    types = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "str": pl.String}
    return {field.name: types[str(field.type).split(" ")[0]] for field in fields(record)}


def frame(records: Sequence[Any], record: type[Call | Score]) -> pl.DataFrame:
    """Calls or scores as a frame with fixed columns and types, also when empty."""
    return pl.DataFrame([vars(item) for item in records], schema=schema_of(record), orient="row")
