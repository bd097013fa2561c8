"""Every run of a workspace as a table that people search, and what a run concluded, kept for all sessions of this process."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench import access
from workbench.analytics.cached import results
from workbench.analytics.open import open_events
from workbench.errors import UsageError, WorkbenchError
from workbench.experiments.records import RETRIED_ERRORS
from workbench.experiments.run import Run
from workbench.html import callout, duration
from workbench.surroundings import runs_as_script
from workbench.ui.charts import OUTCOME_COLOURS, OUTCOMES
from workbench.ui.lab import Html

if TYPE_CHECKING:
    from workbench.experiments.comparison import Comparison
    from workbench.workspace import Layout

# A journal that was written to so recently is taken to belong to a run that goes on.
RUNNING_S = 120.0
# Decisions that are not known yet are made for so long before the table is shown; the rest when a run is opened.
DECIDING_S = 2.0
# How a table is shown in which one row is chosen.
TABLE: dict[str, Any] = {
    "selection": "single",
    "page_size": 10,
    "show_column_summaries": False,
    "show_data_types": False,
    "show_search": False,
    "show_download": False,
}
STATES = ("complete", "with errors", "running", "unfinished", "damaged")
_MARKED = dict(zip(OUTCOMES, OUTCOME_COLOURS, strict=True)) | {"damaged": "#da3633", "with errors": "#d29922"}
_FAILED = ", ".join(f"'{kind}'" for kind in sorted(RETRIED_ERRORS))
_QUERY = f"""
select runs.*, spent.usd, coalesce(spent.failed, 0) as failed
from runs left join (
  select run_id, sum(cost_usd) as usd, count(*) filter (error_kind in ({_FAILED})) as failed
  from calls where source = 'run' group by run_id
) spent using (run_id)
order by started_at desc, run_id desc
"""
_FILES = ("run.json", "calls.parquet", "scores.parquet", "journal.jsonl")


@dataclass(frozen=True)
class Runs:
    """Runs, the newest first, one row each: the columns of the view `runs`, `usd`, `failed`, `duration_s` and `state`.

    Attributes:
        problems: what cannot be read, by the run's id or the file, and why.
    """

    rows: pl.DataFrame
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return self.rows["run_id"].to_list()

    @property
    def datasets(self) -> list[str]:
        return sorted(set(self.rows["dataset"].drop_nulls()))

    @property
    def notice(self) -> str:
        """The problems as boxes of HTML; empty where there are none."""
        return "".join(callout(f"{name} {what}", "bad") for name, what in self.problems.items())


def find_runs(layout: Layout, *, now: float | None = None) -> Runs:
    """Every run of a workspace; one that cannot be read is in `problems`, and the others are there.

    The numbers of runs are the whole team's, whatever tenants somebody is restricted to.

    Raises:
        AccessDenied: this process serves apps to others, and nobody is known here.
    """
    access.require("viewer", "see the runs")
    rows = results.sql(layout, _QUERY, tenants=None)
    events = open_events(layout)
    problems = {_named(layout, path): what for path, what in events.problems.items()}
    moment = time.time() if now is None else now
    states = [_state(layout, row, problems, moment) for row in rows.iter_rows(named=True)]
    took = (pl.col("finished_at") - pl.col("started_at")).dt.total_microseconds() / 1e6
    return Runs(rows.with_columns(took.alias("duration_s"), pl.Series("state", states, pl.String)), problems)


def search(runs: Runs, text: str = "", *, dataset: str | None = None, state: str | None = None) -> pl.DataFrame:
    """The rows in which every word of `text` is in the id, experiment, data set, a model or a variant, in any case."""
    rows = runs.rows
    if dataset:
        rows = rows.filter(pl.col("dataset") == dataset)
    if state:
        rows = rows.filter(pl.col("state") == state)
    lists = [pl.col(name).list.join(" ", ignore_nulls=True) for name in ("models", "variants")]
    said = pl.concat_str("run_id", "experiment", "dataset", *lists, separator=" ", ignore_nulls=True).str.to_lowercase()
    for word in text.lower().split():
        rows = rows.filter(said.str.contains(word, literal=True))
    return rows


def run_table(layout: Layout, rows: pl.DataFrame, *, seconds: float = DECIDING_S) -> pl.DataFrame:
    """What people read of runs: started, experiment, data set, variants, decision, state, rows, cost, duration, run.

    Args:
        seconds: to spend on decisions that are not known yet, from the first row on.
    """
    end = time.monotonic() + seconds
    told = [
        _decided(layout, name, state, wait=time.monotonic() < end)
        for name, state in rows.select("run_id", "state").iter_rows()
    ]
    return rows.select(
        pl.col("started_at").dt.strftime("%Y-%m-%d %H:%M").alias("started (UTC)"),
        "experiment",
        pl.col("dataset").alias("data set"),
        pl.col("variants").list.join(", ").alias("variants"),
        pl.Series("decision", told, pl.String),
        "state",
        "rows",
        pl.Series("cost", [_dollars(usd) for usd in rows["usd"]], pl.String),
        pl.Series(
            "duration", ["–" if seconds is None else duration(seconds) for seconds in rows["duration_s"]], pl.String
        ),
        pl.col("run_id").alias("run"),
    )


def open_run(layout: Layout, runs: Runs, run_id: str) -> Run:
    """A run of those that were found.

    Raises:
        UsageError: it is none of them.
        RunError: it cannot be read.
    """
    if run_id not in runs.ids:
        raise UsageError(f"there is no run {run_id!r}", hint="Choose one in the table.")
    return _run(layout.runs / run_id, looks(layout.runs / run_id))


def compared(run: Run, baseline: str | None = None) -> Comparison:
    """The comparison of a run, made once for all sessions.

    Raises:
        ComparisonError: it has one variant only.
        RunError: its rows cannot be read.
    """
    return _compared(run.folder, looks(run.folder), baseline)


def looks(folder: Path) -> tuple[tuple[int, int] | None, ...]:
    """Size and time of change of the files of a run: what is kept of it holds for as long as these stay."""
    found: list[tuple[int, int] | None] = []
    for name in _FILES:
        try:
            stat = (folder / name).stat()
            found.append((stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append(None)
    return tuple(found)


@functools.lru_cache(maxsize=16)
def _run(folder: Path, looks: tuple[Any, ...]) -> Run:
    return Run(folder)


@functools.lru_cache(maxsize=16)
def _compared(folder: Path, looks: tuple[Any, ...], baseline: str | None) -> Comparison:
    return _run(folder, looks).compare(baseline)


# By run's folder: what its files looked like, and what it decided.
_outcomes: dict[Path, tuple[tuple[Any, ...], str]] = {}


def _decided(layout: Layout, run_id: str, state: str, *, wait: bool) -> str:
    """What a run decided in a word or two: of each variant where there are several; a hint where it is not known yet."""
    if state in ("running", "unfinished"):
        return "not finished"
    folder = layout.runs / run_id
    now, known = looks(folder), _outcomes.get(folder)
    if known is None or known[0] != now:
        if not wait:
            return "open to see"
        known = _outcomes[folder] = now, _outcome(folder)
    return known[1]


def _outcome(folder: Path) -> str:
    try:
        run = Run(folder)
        if len(run.manifest.variants) < 2:
            return "one variant"
        comparison = run.compare()
        found = {name: comparison.decision(name).outcome for name in comparison.variants}
    except WorkbenchError as error:
        return f"none: {error.message}"
    if len(found) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{name} {outcome}" for name, outcome in found.items())


def _state(layout: Layout, row: Mapping[str, Any], problems: Mapping[str, str], now: float) -> str:
    if any(name.split("/")[0] == row["run_id"] for name in problems):
        return "damaged"
    if row["complete"]:
        return "with errors" if row["failed"] else "complete"
    try:
        written = (layout.runs / row["run_id"] / "journal.jsonl").stat().st_mtime
    except OSError:
        return "unfinished"
    return "running" if now - written < RUNNING_S else "unfinished"


def _named(layout: Layout, path: str) -> str:
    """A damaged file by its run's id and its name, or by its path where it is no run's."""
    found = Path(path)
    return found.relative_to(layout.runs).as_posix() if found.is_relative_to(layout.runs) else path


def _dollars(usd: float | None) -> str:
    if usd is None:
        return "unknown"
    return "$0" if usd == 0 else f"${usd:,.2f}" if usd >= 0.01 else "under $0.01"


def age(at: str | datetime, now: datetime | None = None) -> str:
    """How long ago a UTC time was, in its largest unit: `3 days`."""
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    seconds = max(0.0, ((now or datetime.now(UTC)) - moment).total_seconds())
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "just now"


def labels(rows: pl.DataFrame, *, without: Sequence[str] = (), first: str | None = None) -> dict[str, str]:
    """Run ids by what a list calls them, the newest first; those on the data set `first` before the others."""
    order = rows.filter(~pl.col("run_id").is_in(list(without)))
    if first is not None:
        order = order.sort(pl.col("dataset") != first, maintain_order=True)
    return {
        f"{row['started_at']:%Y-%m-%d %H:%M} · {row['experiment']} · {row['dataset']} · {row['run_id'][-11:]}": row[
            "run_id"
        ]
        for row in order.iter_rows(named=True)
    }


def place_of(shown: pl.DataFrame, wanted: str, script: bool) -> list[int] | None:
    """Where the table is opened: at the run that an address or an argument names; as a script at the newest."""
    places = [place for place, name in enumerate(shown["run"]) if wanted and name.startswith(wanted)]
    return places[:1] or ([0] if script and len(shown) else None)


def mark(row: str, column: str, value: Any) -> dict[str, Any]:
    """The style of a cell of the table: decisions and bad states are marked, each word saying it too."""
    if column in ("decision", "state") and value in _MARKED:
        return {"borderLeft": f"4px solid {_MARKED[value]}", "fontWeight": "600"}
    return {}


RUN_TABLE = TABLE | {"hidden_columns": ["run"], "style_cell": mark}


def nothing_yet() -> Html:
    """What to do where there is no run; a script prints it."""
    said = "There is no run yet. Make one: workbench demo, or notebooks/prompt_ab.py."
    print(said) if runs_as_script() else None
    return Html(callout(said, "info"))


def no_match() -> Html:
    return Html(callout("No run fits. Search for fewer words, or empty the filters.", "info"))
