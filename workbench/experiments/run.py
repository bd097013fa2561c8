"""Run: one execution of an experiment, read back from its folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from workbench.errors import NotFoundError, RunError, RunLockedError
from workbench.events.journal import read_journal
from workbench.experiments.records import RETRIED_ERRORS, Call, RunManifest, Score, frame
from workbench.files import atomic_file, write_atomic
from workbench.workspace import Layout

if TYPE_CHECKING:
    import polars as pl

    from workbench.experiments.compare import Comparison


class Run:
    """Rows and scores of one execution. Everything is read from the folder, so an old run needs nothing but its files."""

    def __init__(self, folder: Path, manifest: RunManifest | None = None) -> None:
        self.folder = folder
        self.manifest = manifest or _read_manifest(folder / "run.json")
        self._rows: tuple[dict[tuple[str, str, int], Call], list[Score]] | None = None

    @property
    def id(self) -> str:
        return self.manifest.run_id

    @property
    def expected(self) -> int:
        """Calls of the whole run."""
        return self.manifest.rows * self.manifest.repeats * len(self.manifest.variants)

    @property
    def complete(self) -> bool:
        """Whether the run has ended with every call answered or recorded as an error."""
        return self.manifest.finished_at is not None and len(self.load()[0]) == self.expected

    @property
    def failed(self) -> int:
        """Calls that ended in an accident (not a wrong answer); the next `run` tries them again."""
        return sum(call.error_kind in RETRIED_ERRORS for call in self.load()[0].values())

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def load(self) -> tuple[dict[tuple[str, str, int], Call], list[Score]]:
        """Calls by key, each once (a retried call replaces its earlier error), and their scores.

        Parquet holds what was compacted; the journal what came since, so both are read and the later wins.
        """
        if self._rows is None:
            import polars as pl

            calls: dict[tuple[str, str, int], Call] = {}
            scores: dict[tuple[str, str, int], list[Score]] = {}
            for name, record in (("calls", Call), ("scores", Score)):
                path = self.folder / f"{name}.parquet"
                if not path.exists():
                    continue
                try:
                    rows = pl.read_parquet(path, memory_map=False).to_dicts()
                except (pl.exceptions.PolarsError, OSError) as error:
                    raise RunError(f"{path} cannot be read: {str(error).splitlines()[0]}", hint="Restore it.") from None
                for row in rows:
                    if record is Call:
                        call = Call(**row)
                        calls[call.key] = call
                    else:
                        score = Score(**row)
                        scores.setdefault((score.variant, score.row_id, score.repeat), []).append(score)
            for entry in read_journal(self.journal).records:
                call = Call(**entry["call"])
                calls[call.key] = call
                scores[call.key] = [Score(**score) for score in entry["scores"]]
            ordered = [score for key in sorted(calls) for score in scores.get(key, ())]
            self._rows = ({key: calls[key] for key in sorted(calls)}, ordered)
        return self._rows

    def calls(self) -> pl.DataFrame:
        """One row a call, ordered by variant, row and repeat; columns as in `Call`."""
        return frame(list(self.load()[0].values()), Call)

    def scores(self) -> pl.DataFrame:
        """One row a score; columns as in `Score`."""
        return frame(self.load()[1], Score)

    def compare(self, baseline: str | None = None, **options: Any) -> Comparison:
        """Paired differences of every variant against `baseline` (the first variant by default); see `compare.compare`."""
        from workbench.experiments.compare import compare

        return compare(self.scores(), self.calls(), self.manifest, baseline=baseline, **options)

    def compact(self, finished_at: str) -> None:
        """Write the rows as Parquet, mark the run as ended, and drop the journal, in an order that a kill cannot spoil."""
        calls, scores = self.calls(), self.scores()
        for name, rows in (("calls", calls), ("scores", scores)):
            with atomic_file(self.folder / f"{name}.parquet") as file:
                rows.write_parquet(file, compression="zstd", statistics=True)
        self.manifest = self.manifest.model_copy(update={"finished_at": finished_at})
        self.save_manifest()
        self.journal.unlink(missing_ok=True)

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
        import polars as pl

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
        state = "complete" if self.complete else f"{len(self.load()[0])}/{self.expected} calls"
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


def journal_entry(call: Call, scores: list[Score]) -> dict[str, Any]:
    """One line of a run's journal."""
    return {"call": asdict(call), "scores": [asdict(score) for score in scores]}


def list_runs(layout: Layout) -> list[Run]:
    """Every run of the workspace, the newest first."""
    folders = layout.runs.iterdir() if layout.runs.is_dir() else []
    runs = [Run(folder) for folder in folders if (folder / "run.json").is_file()]
    return sorted(runs, key=lambda run: (run.manifest.started_at, run.id), reverse=True)


def open_run(layout: Layout, name: str = "latest") -> Run:
    """A run by its id, a unique beginning of it, or `latest`.

    Raises:
        NotFoundError: there is none, or several fit.
    """
    runs = list_runs(layout)
    if name == "latest" and runs:
        return runs[0]
    found = [run for run in runs if run.id.startswith(name)]
    if len(found) != 1:
        what = f"{len(found)} runs begin with {name!r}" if found else f"no run {name!r}"
        raise NotFoundError(what, hint="List the runs with: workbench run --list")
    return found[0]
