"""What a run records: calls and scores (one row each, see `events.rows`), and the manifest of the whole."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from workbench.events.rows import Call, Score, frame, schema_of
from workbench.experiments.stopping import EarlyStopping

__all__ = ["CALL_KEY", "RETRIED_ERRORS", "Call", "RunManifest", "Score", "frame", "schema_of"]

# A wrong answer is a result; these are accidents, tried again on the next run.
RETRIED_ERRORS = frozenset({"engine", "timeout", "out_of_memory", "budget"})

# What identifies a call within its run.
CALL_KEY = ("variant", "row_id", "repeat")


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
