"""Run: one execution of an experiment, read back from its folder."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import ValidationError

from workbench.errors import IntegrityError, NotFoundError, RunError, RunLockedError, WorkbenchWarning
from workbench.events.journal import iterate_journal
from workbench.experiments.records import CALL_KEY, RETRIED_ERRORS, Call, RunManifest, Score, schema_of
from workbench.files import atomic_file, write_atomic
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.experiments.across import AcrossRuns
    from workbench.experiments.compare import Comparison
    from workbench.experiments.notebook_source import NotebookSource

# Place of an entry in the journal while rows are merged; what was compacted before is at -1.
_PLACE = "_place"
_PORTION = 500


class Run:
    """Rows and scores of one execution. Everything is read from the folder, so an old run needs nothing but its files."""

    def __init__(self, folder: Path, manifest: RunManifest | None = None) -> None:
        self.folder = folder
        self.manifest = manifest or _read_manifest(folder / "run.json")
        self._rows: tuple[pl.DataFrame, pl.DataFrame] | None = None

    @classmethod
    def of(cls, manifest: RunManifest, calls: pl.DataFrame, scores: pl.DataFrame) -> Run:
        """A run from its parts, wherever they were kept; it has no folder, and cannot be gone on with."""
        run = cls(Path(os.devnull), manifest)
        run._rows = (_in_form(calls, Call), _in_form(scores, Score))
        return run

    @property
    def id(self) -> str:
        return self.manifest.run_id

    @property
    def expected(self) -> int:
        """Calls of the whole run; where it was stopped early, those up to there."""
        rows = self.manifest.rows if self.manifest.stopped_rows is None else self.manifest.stopped_rows
        return rows * self.manifest.repeats * len(self.manifest.variants)

    @property
    def complete(self) -> bool:
        """Whether the run has ended with every call answered or recorded as an error."""
        return self.manifest.finished_at is not None and len(self.calls()) == self.expected

    @property
    def failed(self) -> int:
        """Calls that ended in an accident (not a wrong answer); the next `run` tries them again."""
        return int(self.calls()["error_kind"].is_in(list(RETRIED_ERRORS)).sum())

    @property
    def spent_usd(self) -> float:
        """Dollars spent on the calls; those of unknown price count 0."""
        return float(self.calls()["cost_usd"].sum())

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def calls(self) -> pl.DataFrame:
        """One row a call, each once, ordered by variant, row and repeat; columns as in `Call`."""
        return self._load()[0]

    def scores(self) -> pl.DataFrame:
        """One row a score, in the order of the calls; columns as in `Score`."""
        return self._load()[1]

    def answered(self) -> set[tuple[str, str, int]]:
        """Keys (variant, row, repeat) of the calls that need not be asked again."""
        done = self.calls().filter(~pl.col("error_kind").is_in(list(RETRIED_ERRORS)).fill_null(False))
        return set(done.select(CALL_KEY).iter_rows())

    def _load(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Parquet holds what was compacted; the journal what came since, so both are read and the later entry wins.

        A call that was asked again replaces the earlier one and every score of it.
        """
        if self._rows is None:
            calls, scores = _journaled(self.journal)
            journaled = bool(calls or scores)
            for name, record, frames in (("calls", Call, calls), ("scores", Score, scores)):
                path = self.folder / f"{name}.parquet"
                if not path.exists():
                    continue
                try:
                    stored = _in_form(pl.read_parquet(path, memory_map=False), record)
                    frames.insert(0, stored.with_columns(pl.lit(-1, pl.Int64).alias(_PLACE)))
                except (pl.exceptions.PolarsError, OSError) as error:
                    raise RunError(f"{path} cannot be read: {str(error).splitlines()[0]}", hint="Restore it.") from None
            calls.append(_numbered([], Call, []))
            scores.append(_numbered([], Score, []))
            self._rows = _merged(pl.concat(calls), pl.concat(scores), journaled)
        return self._rows

    def compare(self, baseline: str | None = None, **options: Any) -> Comparison:
        """Paired differences of every variant against `baseline` (the first variant by default); see `compare.compare`."""
        from workbench.experiments.compare import compare

        return compare(self.scores(), self.calls(), self.manifest, baseline=baseline, **options)

    def compare_with(
        self, earlier: Run, *, variant: str | None = None, earlier_variant: str | None = None, **options: Any
    ) -> AcrossRuns:
        """A variant of this run against one of an `earlier` run, on the rows they share; see `across.compare_runs`."""
        from workbench.experiments.across import compare_runs

        return compare_runs(earlier, self, variant=variant, before_variant=earlier_variant, **options)

    def compact(self, finished_at: str) -> None:
        """Write the rows as Parquet, mark the run as ended, and drop the journal, in an order that a kill cannot spoil."""
        calls, scores = self.calls(), self.scores()
        for name, rows in (("calls", calls), ("scores", scores)):
            with atomic_file(self.folder / f"{name}.parquet") as file:
                rows.write_parquet(file, compression="zstd", statistics=True)
        self.manifest = self.manifest.model_copy(update={"finished_at": finished_at})
        self.save_manifest()
        self.journal.unlink(missing_ok=True)

    def notebook(self) -> NotebookSource | None:
        """The notebook or experiment file that made the run, as it was then; None where none was kept.

        Raises:
            IntegrityError: it is damaged, or not the one that the run's manifest names.
        """
        from workbench.experiments.notebook_source import kept_source

        found = kept_source(self.folder, self.id)
        as_on_disk = found is not None and found.source is not None and found.record.kind in ("marimo", "script")
        if found is not None and as_on_disk and found.record.digest != self.manifest.notebook_digest:
            raise IntegrityError(
                f"run {self.id}: the notebook kept is not the one that the run names", hint="Run the experiment again."
            )
        return found

    def save_manifest(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "run.json", json.dumps(self.manifest.model_dump(mode="json"), indent=1) + "\n")

    def forget_rows(self) -> None:
        """Read the rows anew on next use."""
        self._rows = None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing; the lock ends with the process, however that ends.

        Raises:
            RunLockedError: another process is writing this run.
        """
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunLockedError(f"another process is writing run {self.id}", hint="Wait for it to end.") from None
            yield

    def summary(self) -> pl.DataFrame:
        """Mean of every scorer by variant, with the number of calls, errors and invalid outputs."""
        calls = (
            self.calls()
            .group_by("variant", maintain_order=True)
            .agg(
                pl.len().alias("calls"),
                pl.col("error_kind").is_in(list(RETRIED_ERRORS)).sum().alias("errors"),
                (pl.col("error_kind") == "invalid_output").sum().alias("invalid"),
                pl.col("latency_s").median().alias("latency_p50_s"),
                pl.col("tokens_in").mean().alias("tokens_in"),
            )
        )
        means = self.scores().pivot(on="scorer", index="variant", values="value", aggregate_function="mean")
        return calls.join(means, on="variant", how="left")

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{len(self.calls())}/{self.expected} calls"
        return f"Run({self.id}, {self.manifest.experiment}, {state}, {self.failed} errors)"

    def _repr_html_(self) -> str:
        from workbench.html import callout, frame_table

        note = callout(f"{self.failed} calls failed; run again to retry them.", "warn") if self.failed else ""
        return f"<div><p><b>{self.manifest.experiment}</b> · run {self.id}</p>{note}{frame_table(self.summary())}</div>"


def _read_manifest(path: Path) -> RunManifest:
    try:
        return RunManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"no run in {path.parent}", hint="List the runs with: workbench run --list") from None
    except (ValidationError, ValueError) as error:
        raise RunError(f"{path} is malformed: {str(error).splitlines()[0]}", hint="Restore it from a backup.") from None


def _journaled(path: Path) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
    """Calls and scores of a journal as frames, built in portions so that a long one does not fill memory with objects."""
    calls: list[pl.DataFrame] = []
    scores: list[pl.DataFrame] = []
    entries = ((place, entry) for place, entry in enumerate(iterate_journal(path)) if entry is not None)
    while portion := list(itertools.islice(entries, _PORTION)):
        asked = [(place, entry["call"]) for place, entry in portion if "call" in entry]
        calls.append(_numbered([call for _, call in asked], Call, [place for place, _ in asked]))
        scored = [(place, score) for place, entry in portion for score in entry["scores"]]
        scores.append(_numbered([score for _, score in scored], Score, [place for place, _ in scored]))
    return calls, scores


def _numbered(records: list[dict[str, Any]], record: type[Any], places: list[int]) -> pl.DataFrame:
    """Records of a journal as a frame, each with the place of its entry."""
    rows = pl.DataFrame(records, schema=schema_of(record), orient="row", strict=False)
    return rows.with_columns(pl.Series(_PLACE, places, pl.Int64))


def _in_form(stored: pl.DataFrame, record: type[Any]) -> pl.DataFrame:
    """Stored rows with today's columns: those that came later are null."""
    schema = schema_of(record)
    missing = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in stored.columns]
    return stored.with_columns(missing).select(list(schema)).cast(pl.Schema(schema))


def _merged(calls: pl.DataFrame, scores: pl.DataFrame, journaled: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The last entry of each call and the scores that came with or after it, sorted by call."""
    if journaled:
        calls = calls.sort(_PLACE, maintain_order=True).unique(CALL_KEY, keep="last", maintain_order=True)
        valid = calls.select(*CALL_KEY, pl.col(_PLACE).alias("_since"))
        scores = scores.join(valid, on=CALL_KEY, how="inner").filter(pl.col(_PLACE) >= pl.col("_since")).drop("_since")
        scores = scores.sort(_PLACE, maintain_order=True).unique(
            [*CALL_KEY, "scorer"], keep="last", maintain_order=True
        )
    return (
        calls.sort(CALL_KEY, maintain_order=True).drop(_PLACE),
        scores.sort(CALL_KEY, maintain_order=True).drop(_PLACE),
    )


def journal_entry(call: Call, scores: Sequence[Score]) -> dict[str, Any]:
    """One line of a run's journal: a call with its scores."""
    return {"call": vars(call), "scores": [vars(score) for score in scores]}


def late_entry(scores: Sequence[Score]) -> dict[str, Any]:
    """One line of a run's journal: scores of calls that are there already."""
    return {"scores": [vars(score) for score in scores]}


def list_runs(layout: Layout) -> list[Run]:
    """Every run of the workspace, the newest first. One that cannot be read is named in a warning and left out."""
    folders = layout.runs.iterdir() if layout.runs.is_dir() else []
    runs = []
    for folder in folders:
        if (folder / "run.json").is_file():
            try:
                runs.append(Run(folder))
            except RunError as error:
                warnings.warn(WorkbenchWarning(str(error)), stacklevel=2)
    return sorted(runs, key=lambda run: (run.manifest.started_at, run.id), reverse=True)


def open_run(layout: Layout, name: str = "latest") -> Run:
    """A run by its id, a unique beginning of it, or `latest`.

    Raises:
        NotFoundError: there is none, or several fit.
        RunError: its `run.json` is malformed.
    """
    if Path(name).name == name and (layout.runs / name / "run.json").is_file():
        return Run(layout.runs / name)
    runs = list_runs(layout)
    if name == "latest" and runs:
        return runs[0]
    found = [run for run in runs if run.id.startswith(name)]
    if len(found) != 1:
        what = f"{len(found)} runs begin with {name!r}" if found else f"no run {name!r}"
        raise NotFoundError(what, hint="List the runs with: workbench run --list")
    return found[0]
