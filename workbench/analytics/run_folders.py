"""Folders of runs as a source of calls and scores: finished ones are scanned where they lie, others read as `Run` reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from workbench.errors import WorkbenchError
from workbench.events.parquet import UNREADABLE, scan
from workbench.events.schema import CALLS, SCORES
from workbench.experiments.records import CALL_KEY
from workbench.experiments.run import Run

_MANIFEST, _JOURNAL = "run.json", "journal.jsonl"
_PARQUET = ("calls.parquet", "scores.parquet")
_MAGIC = b"PAR1"
_ADDED = ("trace_id", "tenant", "started_at")
# Plans over more files than this at once take longer than they save.
_PORTION, _PORTION_BYTES = 1000, 32 << 20


class RunFolders:
    """Every run of a workspace, by its id, which is its folder's name.

    Args:
        folder: that holds the runs.
    """

    name = "runs"
    tables: Mapping[str, str] = {"calls": "run_id", "scores": "run_id"}
    row_source = "run"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # By file: what it looked like, and whether its ends are those of Parquet.
        self._checked: dict[Path, tuple[tuple[int, int], bool]] = {}
        self._problems: dict[str, str] = {}
        # Files that are damaged inside, as they looked then.
        self._damaged: dict[Path, tuple[int, int]] = {}

    def identities(self) -> dict[str, str]:
        """Size and time of change of the files that say what a run is."""
        if not self.folder.is_dir():
            return {}
        found = {}
        with os.scandir(self.folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
        for name in names:
            parts = []
            for file in (_MANIFEST, *_PARQUET, _JOURNAL):
                looks = looks_of(self.folder / name / file)
                parts.append("-" if looks is None else f"{looks[0]}.{looks[1]}")
            if parts[0] != "-" and parts[1:] != ["-"] * 3:
                found[name] = ",".join(parts)
        return found

    def read(self, table: str, ids: Sequence[str]) -> pl.LazyFrame:
        """Calls or scores of runs. The scores get `trace_id`, `tenant` and `started_at` of their calls."""
        scanned, parts = [], []
        for name in ids:
            folder = self.folder / name
            if (folder / _JOURNAL).exists() or not all((folder / file).exists() for file in _PARQUET):
                rows = self._read_run(folder, table)
                if rows is not None:
                    parts.append(rows)
            elif all(self._sound(folder / file) for file in _PARQUET):
                scanned.append(folder)
        parts += [_scanned(scanned[start : start + _PORTION], table) for start in range(0, len(scanned), _PORTION)]
        return pl.concat(parts) if parts else (CALLS if table == "calls" else SCORES).empty().lazy()

    def portions(self, ids: Sequence[str]) -> Iterator[list[str]]:
        """Groups of runs whose files have 32 MB together, or of one that has more."""
        group: list[str] = []
        size = 0
        for name in ids:
            group.append(name)
            size += sum(looks[0] for file in (*_PARQUET, _JOURNAL) if (looks := looks_of(self.folder / name / file)))
            if size >= _PORTION_BYTES or len(group) >= _PORTION:
                yield group
                group, size = [], 0
        if group:
            yield group

    def verify(self, ids: Sequence[str]) -> None:
        for name in ids:
            for file in _PARQUET:
                path = self.folder / name / file
                looks = looks_of(path)
                if looks is None or self._damaged.get(path) == looks:
                    continue
                try:
                    pl.read_parquet(path, memory_map=False)
                except (*UNREADABLE, OSError) as error:
                    self._damaged[path] = looks
                    self._problems[str(path)] = f"cannot be read: {str(error).splitlines()[0]}; its rows are left out"

    def problems(self) -> dict[str, str]:
        gone = [path for path in self._problems if not os.path.exists(path)]
        for path in gone:
            del self._problems[path]
        return dict(self._problems)

    def _read_run(self, folder: Path, table: str) -> pl.LazyFrame | None:
        try:
            run = Run(folder)
            calls = CALLS.migrate(run.calls().lazy(), 0)
            self._problems.pop(str(folder / _MANIFEST), None)
            return calls if table == "calls" else _completed(SCORES.migrate(run.scores().lazy(), 0), calls)
        except FileNotFoundError:
            return None
        except (WorkbenchError, OSError) as error:
            if folder.exists():
                self._problems[str(folder / _MANIFEST)] = f"the run cannot be read: {error}"
            return None

    def _sound(self, path: Path) -> bool:
        """Whether a file begins and ends as Parquet does and is not known to be damaged; told in `problems` where not."""
        looks = looks_of(path)
        if looks is None:
            return False
        if path in self._damaged:
            if self._damaged[path] == looks:
                return False
            del self._damaged[path]
        known = self._checked.get(path)
        if known is None or known[0] != looks:
            known = self._checked[path] = looks, _is_parquet(path)
            if known[1]:
                self._problems.pop(str(path), None)
            else:
                self._problems[str(path)] = "is no Parquet file; its rows are left out"
        return known[1]


def _scanned(folders: Sequence[Path], table: str) -> pl.LazyFrame:
    calls = scan([folder / "calls.parquet" for folder in folders], CALLS, 0, by_day=False)
    if table == "calls":
        return calls
    return _completed(scan([folder / "scores.parquet" for folder in folders], SCORES, 0, by_day=False), calls)


def _completed(scores: pl.LazyFrame, calls: pl.LazyFrame) -> pl.LazyFrame:
    """Scores with what their calls know."""
    key = ["run_id", *CALL_KEY]
    known = calls.select(*key, *_ADDED)
    return scores.drop(_ADDED).join(known, on=key, how="left").select(list(SCORES.columns))


def looks_of(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file; None where there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size, found.st_mtime_ns


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(-4, os.SEEK_END)
            return start == file.read() == _MAGIC
    except OSError:
        return False
