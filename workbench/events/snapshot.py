"""Snapshot: a table at one moment, every row once, however many processes write and compact it meanwhile.

What could hold a row is listed first and the manifest read after that. A row is then either in a file that the manifest
names, or in a journal behind the byte, or in a folder of an identity, that it does not. Files are never changed, journals
only appended to; where one is gone, a later manifest has its rows, and everything is read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from workbench.errors import DataError
from workbench.events.aside import DAMAGED, aside_problems
from workbench.events.commit import list_files
from workbench.events.log import journal_folder
from workbench.events.manifest import REBUILD, LiveFile, Manifest, load_manifest, manifest_path
from workbench.events.parquet import fault, scan, with_day
from workbench.events.rebuild import for_reading, trouble
from workbench.events.schema import Table
from workbench.events.sources import Source
from workbench.events.tail import Portion, list_journals, read_portion

_ATTEMPTS = 50


@dataclass(frozen=True)
class Snapshot:
    """Where the rows of a table are.

    Attributes:
        files: live files of today's schema version, as paths; `older` those of earlier versions, by version.
        tail: rows of journals that are not compacted.
        folders: rows of folders that are not compacted.
        replaced: rows of files that do not count, as folders hold other ones now: ids by their column, by row source.
        problems: what is damaged and left out, by path.
    """

    table: Table
    files: tuple[Path, ...] = ()
    older: Mapping[int, tuple[Path, ...]] = field(default_factory=dict)
    tail: pl.DataFrame | None = None
    folders: tuple[pl.LazyFrame, ...] = ()
    replaced: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> pl.Expr | None:
        """Which rows of files count; None where all do."""
        found: pl.Expr | None = None
        for source, column, ids in self.replaced:
            stale = pl.col(column).is_in(list(ids)) & (pl.col("source") == source)
            found = ~stale.fill_null(False) if found is None else found & ~stale.fill_null(False)
        return found

    def live(self) -> pl.LazyFrame | None:
        """Rows of live files of today's version, without those that do not count."""
        return self._counted(scan(self.files, self.table, self.table.version)) if self.files else None

    def rest(self) -> pl.LazyFrame | None:
        """All other rows; None where there are none."""
        parts = [self._counted(scan(paths, self.table, version)) for version, paths in self.older.items()]
        if self.tail is not None and len(self.tail):
            parts.append(with_day(self.tail.lazy(), self.table))
        parts += [with_day(rows, self.table) for rows in self.folders]
        return pl.concat(parts) if parts else None

    def frame(self) -> pl.LazyFrame:
        """Every row once, with `day`; what is filtered and not selected is not read."""
        parts = [part for part in (self.live(), self.rest()) if part is not None]
        return pl.concat(parts) if parts else with_day(self.table.empty().lazy(), self.table)

    def _counted(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows if self.counts is None else rows.filter(self.counts)


class Tails:
    """What was read of journals, kept so that the next reader of this process only reads what came since."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, Portion]] = {}

    def read(self, path: Path, table: Table, start: int) -> Portion:
        """As `read_portion`, to the end."""
        known = self._known.get(path)
        if known is None or known[0] != start:
            portion = read_portion(path, table, start)
        else:
            old = known[1]
            new = read_portion(path, table, old.end)
            rows = pl.concat([old.rows, new.rows]) if len(new.rows) else old.rows
            portion = Portion(rows, new.end, old.damaged + new.damaged)
        self._known[path] = start, portion
        return portion

    def keep_only(self, folder: Path, paths: Sequence[Path]) -> None:
        """Forget journals of a folder that are not there any more."""
        for path in [path for path in self._known if path.parent == folder and path not in paths]:
            del self._known[path]


def take(
    folder: Path, table: Table, sources: Sequence[Source], tails: Tails, bad: frozenset[Path] = frozenset()
) -> Snapshot:
    """A snapshot of a table.

    Args:
        folder: of the events.
        sources: folders that hold rows of their own.
        bad: files that are known to be damaged.

    Raises:
        DataError: something was written by a newer version of the workbench, or the manifest is damaged.
    """
    sources = [source for source in sources if table.name in source.tables]
    previous: Manifest | None = None
    place = manifest_path(folder, table.name)
    for _ in range(_ATTEMPTS):
        journals = list_journals(journal_folder(folder, table.name))
        names = list_files(folder, table.name)
        listed = [(source, source.identities()) for source in sources]
        found = manifest = load_manifest(folder, table.name)
        problems: dict[str, str] = {}
        try:
            if wrong := trouble(folder, table.name, names, found):
                if load_manifest(folder, table.name) != found:
                    # A compaction has ended meanwhile.
                    continue
                manifest, problems = for_reading(folder, table, sources, found, names)
                problems = {str(place): f"{wrong}, from which its rows are read now; {REBUILD}"} | problems
            return _read(folder, table, journals, listed, manifest, tails, bad, found == previous, problems)
        except FileNotFoundError:
            previous = found
    raise DataError("journals vanish as fast as they are listed", path=str(journal_folder(folder, table.name)))


def _read(
    folder: Path,
    table: Table,
    journals: Sequence[Path],
    listed: Sequence[tuple[Source, dict[str, str]]],
    manifest: Manifest,
    tails: Tails,
    bad: frozenset[Path],
    unchanged: bool,
    problems: Mapping[str, str],
) -> Snapshot:
    problems = aside_problems(folder, table, manifest) | dict(problems)
    damaged_days = set()
    by_version: dict[int, list[Path]] = {}
    for file in manifest.files:
        path = folder / table.name / file.name
        if wrong := _fault(path, file, bad, unchanged):
            problems[str(path)] = f"{wrong}; its {file.rows} rows are left out"
            damaged_days.add(file.day)
            continue
        table.check_version(file.version, str(path))
        if not file.rows:
            continue
        by_version.setdefault(file.version, []).append(path)
    portions = []
    for path in journals:
        portion = tails.read(path, table, manifest.journals.get(path.name, 0))
        portions.append(portion.rows)
        if portion.damaged:
            problems[str(path)] = f"{len(portion.damaged)} damaged lines are left out"
    tails.keep_only(journal_folder(folder, table.name), journals)
    folders, replaced = [], []
    for source, identities in listed:
        # What was in a damaged file of a folder that is still there is read from the folder again.
        known = {
            name: entry.model_copy(update={"identity": DAMAGED}) if damaged_days.intersection(entry.days) else entry
            for name, entry in manifest.folders.get(source.name, {}).items()
        }
        changed = [
            name for name, identity in identities.items() if name not in known or known[name].identity != identity
        ]
        if changed:
            folders.append(source.read(table.name, changed))
        stale = [name for name, entry in known.items() if identities.get(name) != entry.identity and entry.days]
        if stale:
            replaced.append((source.row_source, source.tables[table.name], tuple(stale)))
        problems |= source.problems()
    return Snapshot(
        table,
        tuple(by_version.pop(table.version, ())),
        {version: tuple(paths) for version, paths in by_version.items()},
        pl.concat(portions) if portions else None,
        tuple(folders),
        tuple(replaced),
        problems,
    )


def _fault(path: Path, file: LiveFile, bad: frozenset[Path], unchanged: bool) -> str | None:
    """As `parquet.fault`. A file that is gone while the manifest has not changed since the last attempt stays gone."""
    if path in bad:
        return "is damaged"
    try:
        return fault(path, file)
    except FileNotFoundError:
        if unchanged:
            return "is gone"
        raise
