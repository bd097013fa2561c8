"""The columns of a run: one `Call` a question, one `Score` a scorer and question, and the manifest of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from workbench.experiments.stopping import EarlyStopping

# A wrong answer is a result; these are accidents, tried again on the next run.
RETRIED_ERRORS = frozenset({"engine", "timeout", "out_of_memory", "budget"})

# What identifies a call within its run.
CALL_KEY = ("variant", "row_id", "repeat")


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


class RunManifest(BaseModel):
    """`run.json`: what was run, with what, from where; enough to read the rows years later.

    `early_stopping` holds the rule under which the run could stop before its last row, `stopped_rows` how many rows were
    asked where it did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1] = 1
    run_id: str
    experiment: str
    experiment_digest: str
    dataset: str
    dataset_digest: str
    split: str | None
    rows: int
    repeats: int
    variants: dict[str, dict[str, Any]]
    pipeline_digests: dict[str, str]
    scorers: list[dict[str, Any]]
    primary: str
    models: dict[str, dict[str, str]]
    notebook: str | None = None
    notebook_digest: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    command: list[str]
    started_at: str
    finished_at: str | None = None
    early_stopping: EarlyStopping | None = None
    stopped_rows: int | None = None
    environment: dict[str, str]


def schema_of(record: type[Call | Score]) -> dict[str, Any]:
    """Polars types of the columns of `calls` or `scores`, in order."""
    types = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "str": pl.String}
    return {field.name: types[str(field.type).split(" ")[0]] for field in fields(record)}


def frame(records: Sequence[Any], record: type[Call | Score]) -> pl.DataFrame:
    """Calls or scores as a frame with fixed columns and types, also when empty."""
    return pl.DataFrame([vars(item) for item in records], schema=schema_of(record), orient="row")
