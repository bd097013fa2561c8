"""Events: the tables of one folder, read as frames and by SQL while any number of processes write them."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import polars as pl

from workbench.errors import EventsError, UsageError, WorkbenchWarning
from workbench.events.aside import aside_problems
from workbench.events.commit import list_files
from workbench.events.compact import FEW, GRACE_SECONDS, Compactor, exclusively
from workbench.events.days import Compaction
from workbench.events.log import EventLog
from workbench.events.manifest import REBUILD, Manifest, find_manifest, manifest_path
from workbench.events.parquet import fault
from workbench.events.rebuild import Rebuilt, rebuild, trouble
from workbench.events.schema import TABLES, Table, find_table
from workbench.events.snapshot import Snapshot, Tails, take
from workbench.events.sources import Source

if TYPE_CHECKING:
    import duckdb

# What is damaged is named file by file up to here, in warnings.
_TOLD = 5
# What a disk says to whoever may only read it.
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

# A view that is no table of events: its rows, made when they are asked for.
View = Callable[[], pl.LazyFrame]


@runtime_checkable
class Reporting(Protocol):
    """A view that leaves out what is damaged, and says so."""

    def look(self) -> object:
        """See what is damaged now."""
        ...

    def problems(self) -> Mapping[str, str]:
        """What was damaged when it was last read, by path."""
        ...


class Events:
    """The events of a workspace.

    Args:
        folder: where they lie; made when something is written.
        sources: folders that hold rows of their own.
        views: further views by name. They are not divided by tenant, so whoever is restricted to some does not see them.
    """

    def __init__(self, folder: Path, sources: Sequence[Source] = (), views: Mapping[str, View] | None = None) -> None:
        self.folder = folder
        self.sources = tuple(sources)
        self.views = dict(views or {})
        self._problems: dict[str, Mapping[str, str]] = {}
        self._tails = Tails()
        self._bad: frozenset[Path] = frozenset()
        self._told: set[str] = set()
        self._lock = threading.Lock()

    @property
    def problems(self) -> dict[str, str]:
        """What is damaged and was left out, by path, as of the last reading of each table and view."""
        return self._of_views() | {path: what for found in self._problems.values() for path, what in found.items()}

    def _of_views(self) -> dict[str, str]:
        return {path: what for view in self._reporting() for path, what in view.problems().items()}

    def _reporting(self) -> list[Reporting]:
        views: list[object] = list(self.views.values())
        return [view for view in views if isinstance(view, Reporting)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all views."""
        return (*TABLES, *self.views)

    def log(self, *, compact: bool = True, **options: Any) -> EventLog:
        """Where this process records events; see `EventLog`.

        Args:
            compact: compact the journals in the background when they have grown.
        """
        work = (lambda: self.compact(folders=False, wait=False)) if compact else None
        return EventLog(self.folder, compact=work, **options)

    def snapshot(self, table: str) -> Snapshot:
        """Where the rows of a table are at this moment.

        Raises:
            UsageError: there is no such table.
            DataError: something was written by a newer version of the workbench; names the file.
        """
        with self._lock:
            found = take(self.folder, find_table(table), self.sources, self._tails, self._bad)
        self._problems[table] = found.problems
        self._tell(found.problems)
        return found

    def _tell(self, problems: Mapping[str, str]) -> None:
        new = [path for path in problems if path not in self._told]
        self._told.update(new)
        for path in new[:_TOLD]:
            warnings.warn(f"{path} {problems[path]}", WorkbenchWarning, stacklevel=4)
        if len(new) > _TOLD:
            more = f"{len(new) - _TOLD} more files are damaged or gone; `workbench events check` names them all"
            warnings.warn(more, WorkbenchWarning, stacklevel=4)

    def frame(self, name: str, *, tenants: Sequence[str] | None = None) -> pl.LazyFrame:
        """Every row of a view once, as of now; what is filtered and not selected is not read.

        Args:
            tenants: only rows of these.

        Raises:
            UsageError: there is no such view, or it is not divided by tenant.
            DataError: as `snapshot`.
        """
        if name in self.views and tenants is None:
            return self.views[name]()
        if name not in TABLES:
            names = self.names if tenants is None else tuple(TABLES)
            raise UsageError(f"no view is called {name!r}", hint=f"There are: {', '.join(names)}.")
        rows = self.snapshot(name).frame()
        return rows if tenants is None else rows.filter(pl.col("tenant").is_in(list(tenants)))

    def connection(
        self, *, tenants: Sequence[str] | None = None, only: Sequence[str] | None = None
    ) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection in memory with a view a table, as of now; see `sql.connect`.

        Args:
            tenants: the views hold only rows of these, and there is no way to the others.
            only: make no other views than these.
        """
        from workbench.events.sql import connect

        return connect(self, tenants=tenants, only=only)

    def sql(
        self, query: str, parameters: Mapping[str, Any] | None = None, *, tenants: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """The rows of one SELECT, with `$name` for parameters.

        A damaged file that only shows while it is read is left out from then on, and named in `problems`.

        Raises:
            UsageError: not one SELECT, or it is wrong; with DuckDB's reason, and the names that may have been meant.
            DataError: as `snapshot`.
        """
        from workbench.events.sql import select

        return select(self, query, parameters, tenants=tenants)

    def verify(self) -> dict[str, str]:
        """Read every file whole. Returns what is damaged, by path; it is left out from then on. Nothing is written."""
        found: dict[str, str] = {}
        for table in TABLES.values():
            manifest, wrong = self._manifest(table)
            if wrong:
                found[str(manifest_path(self.folder, table.name))] = wrong
                continue
            for file in manifest.files:
                path = self.folder / table.name / file.name
                try:
                    wrong = fault(path, file, whole=True)
                except FileNotFoundError:
                    wrong = "is gone"
                if wrong:
                    found[str(path)] = wrong
        for source in self.sources:
            source.verify(list(source.identities()))
            found |= source.problems()
        self._bad |= {Path(path) for path in found}
        return found

    def compact(
        self, *, folders: bool = True, wait: bool = True, few: int = FEW, grace_s: float = GRACE_SECONDS
    ) -> dict[str, Compaction]:
        """Compact every table; see `compact.Compactor`. What is there already is not touched again.

        Args:
            folders: also copy the rows of the sources' folders into days.
            wait: for another process that compacts; without it nothing is done where one does.
            few: files that a day may keep; 1 merges all.
            grace_s: how long replaced files stay.

        Returns:
            What was done, by table.

        Raises:
            EventsError: a manifest is gone or older than its files, or the disk is full.
            DataError: a manifest is damaged.
        """
        with _with_room(self.folder), exclusively(self.folder, wait=wait) as held:
            if not held:
                return {}
            return {table.name: self._compactor(table, folders, few, grace_s).run() for table in TABLES.values()}

    def _compactor(self, table: Table, folders: bool, few: int, grace_s: float) -> Compactor:
        return Compactor(self.folder, table, self.sources, folders=folders, few=few, grace_s=grace_s)

    def _manifest(self, table: Table) -> tuple[Manifest, str | None]:
        """The manifest of a table, and what is wrong with it; an empty one where it is damaged."""
        names = list_files(self.folder, table.name)
        manifest = find_manifest(self.folder, table.name)
        if manifest is None:
            return Manifest(table=table.name), f"is no manifest; {REBUILD}"
        wrong = trouble(self.folder, table.name, names, manifest)
        return manifest, f"{wrong}; {REBUILD}" if wrong else None

    def set_aside(self) -> dict[str, str]:
        """Read every live file whole, and move the damaged ones to `aside`, where the disk can be written.

        Returns:
            What is damaged, what lies aside from earlier, and what views leave out, by path.
        """
        aside: dict[str, str] = {}
        for table in TABLES.values():
            aside |= aside_problems(self.folder, table, self._manifest(table)[0])
        if found := self.verify():
            try:
                with exclusively(self.folder, wait=True):
                    for table in TABLES.values():
                        if self._manifest(table)[1] is None:
                            self._compactor(table, False, FEW, GRACE_SECONDS).verify(whole=True)
            except OSError as error:
                if error.errno not in _READ_ONLY:
                    raise
        for view in self._reporting():
            view.look()
        return self._of_views() | found | aside

    def rebuild(self) -> dict[str, Rebuilt]:
        """Make manifests again that are gone, damaged or older than their files. Returns what was found, by table.

        Every row is there once afterwards, except for those of files that are gone.

        Raises:
            DataError: a manifest or a file was written by a newer version of the workbench.
            EventsError: files hold rows of folders that none of the sources has, or the disk is full.
        """
        with _with_room(self.folder), exclusively(self.folder, wait=True):
            return {table.name: rebuild(self.folder, table, self.sources, time.time()) for table in TABLES.values()}

    def remove(self, table: str, where: pl.Expr) -> int:
        """Remove recorded rows for good, such as `remove("calls", pl.col("source") == "synthetic")`.

        Rows of runs stay: they go with the run's folder. Rows that are recorded meanwhile stay too.

        Returns:
            How many rows went.
        """
        found = find_table(table)
        with _with_room(self.folder), exclusively(self.folder, wait=True):
            compactor = self._compactor(found, True, FEW, GRACE_SECONDS)
            compactor.run()
            return compactor.remove(where)


@contextlib.contextmanager
def _with_room(folder: Path) -> Iterator[None]:
    """Say in a line that the disk is full; what was there before still is."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise EventsError(
            f"the disk of {folder} is full; no row is lost", hint="Make room, then do it again."
        ) from None
