"""The views `runs` and `artifacts`: one row a run, and one a version of an artifact."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from workbench.analytics.run_folders import looks_of
from workbench.events.schema import TIME
from workbench.workspace import Layout

RUNS: dict[str, Any] = {
    "run_id": pl.String,
    "experiment": pl.String,
    "dataset": pl.String,
    "dataset_digest": pl.String,
    "split": pl.String,
    "variants": pl.List(pl.String),
    "models": pl.List(pl.String),
    "primary": pl.String,
    "rows": pl.Int64,
    "repeats": pl.Int64,
    "calls": pl.Int64,
    "complete": pl.Boolean,
    "started_at": TIME,
    "finished_at": TIME,
    "notebook": pl.String,
    "notebook_digest": pl.String,
    "git_commit": pl.String,
    "git_dirty": pl.Boolean,
}
ARTIFACTS: dict[str, Any] = {
    "name": pl.String,
    "version": pl.Int64,
    "digest": pl.String,
    "aliases": pl.List(pl.String),
    "run_id": pl.String,
    "variant": pl.String,
    "decision": pl.String,
    "created_at": TIME,
}


class RunsView:
    """One row a run, from its `run.json`, with the number of calls that it has.

    Args:
        folder: that holds the runs.
        calls: rows of calls.
    """

    def __init__(self, folder: Path, calls: Callable[[], pl.LazyFrame]) -> None:
        self.folder, self.calls = folder, calls
        self._known: dict[str, tuple[tuple[int, int], dict[str, Any] | None]] = {}

    def __call__(self) -> pl.LazyFrame:
        """Read when it is collected."""
        return pl.defer(self._read, schema=pl.Schema(RUNS))

    def problems(self) -> dict[str, str]:
        """Runs that were left out as their `run.json` is malformed, by its path, as of the last reading."""
        paths = (self.folder / name / "run.json" for name, (_, row) in self._known.items() if row is None)
        return {
            str(path): "is malformed; the run is left out. Restore it from a backup." for path in paths if path.exists()
        }

    def look(self) -> list[dict[str, Any]]:
        """What the runs say of themselves, those that are malformed left out."""
        found = []
        for entry in os.scandir(self.folder) if self.folder.is_dir() else ():
            path = Path(entry.path, "run.json")
            looks = looks_of(path)
            if looks is None:
                continue
            known = self._known.get(entry.name)
            if known is None or known[0] != looks:
                try:
                    known = self._known[entry.name] = looks, _described(path)
                except FileNotFoundError:
                    continue
            if known[1] is not None:
                found.append(known[1])
        return found

    def _read(self) -> pl.DataFrame:
        found = self.look()
        texts = {name: pl.String if kind == TIME else kind for name, kind in RUNS.items() if name not in _COUNTED}
        runs = pl.DataFrame(found, schema=texts | {"expected": pl.Int64}, orient="row", strict=False)
        runs = runs.with_columns(_time("started_at"), _time("finished_at"))
        of_runs = self.calls().filter(pl.col("run_id").is_not_null(), pl.col("source") == "run")
        counts = of_runs.group_by("run_id").agg(pl.len().cast(pl.Int64).alias("calls")).collect()
        return (
            runs.join(counts, on="run_id", how="left")
            .with_columns(pl.col("calls").fill_null(0))
            .with_columns(
                (pl.col("finished_at").is_not_null() & (pl.col("calls") == pl.col("expected"))).alias("complete")
            )
            .select(list(RUNS))
            .sort("started_at", "run_id", descending=True)
        )


_COUNTED = ("calls", "complete")


def _described(path: Path) -> dict[str, Any] | None:
    """What a `run.json` says, as columns; None where it is none."""
    try:
        content = json.loads(path.read_bytes())
        rows = content["rows"] if content.get("stopped_rows") is None else content["stopped_rows"]
        named = {name: content.get(name) for name in RUNS if name not in _COUNTED}
        return named | {
            "variants": list(content["variants"]),
            "models": sorted({model["name"] for model in content["models"].values()}),
            "expected": rows * content["repeats"] * len(content["variants"]),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def artifacts_view(layout: Layout) -> Callable[[], pl.LazyFrame]:
    """One row a version of an artifact, from the state store."""

    def read() -> pl.DataFrame:
        from workbench.registry import names

        found = [vars(entry) | {"aliases": list(entry.aliases)} for entry in names.ls(layout)]
        texts = {name: pl.String if kind == TIME else kind for name, kind in ARTIFACTS.items()}
        rows = [{name: entry[name] for name in ARTIFACTS} for entry in found]
        return pl.DataFrame(rows, schema=texts, orient="row").with_columns(_time("created_at"))

    return lambda: pl.defer(read, schema=pl.Schema(ARTIFACTS))


def _time(name: str) -> pl.Expr:
    return pl.col(name).str.to_datetime(time_unit="us", time_zone="UTC", strict=False).dt.replace_time_zone(None)
