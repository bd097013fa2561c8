"""Compaction: journals and folders become sorted Parquet files by day, and many small files of a day few.

One process compacts at a time. What it writes counts once the manifest names it; one that is killed leaves files that nobody
names, of which the next one knows by their commits whether to name or to delete them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl

from workbench.events.aside import keep_lines, without_damaged
from workbench.events.commit import list_files
from workbench.events.days import Compaction, Days
from workbench.events.log import journal_folder
from workbench.events.manifest import FolderEntry, LiveFile, save_manifest
from workbench.events.parquet import UNREADABLE, with_day
from workbench.events.rebuild import check_manifest, settle, unnamed
from workbench.events.schema import Table
from workbench.events.sources import Source
from workbench.events.tail import list_journals, read_portion

# Replaced files stay as long as a reader may still use them.
GRACE_SECONDS = 3600.0
# What is held in memory at once, as rows and as lines of a journal.
BATCH_BYTES, PORTION_BYTES = 128 << 20, 32 << 20
_TEMPORARY_SECONDS = 600
# Files a day that a compaction in the background leaves.
FEW = 4


@contextlib.contextmanager
def exclusively(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of compactions; False where another process has it and `wait` is not set."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "compact.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            # A child that was forked meanwhile has the file open too, and would keep the lock.
            fcntl.flock(file, fcntl.LOCK_UN)


class Compactor(Days):
    """Compacts one table. The caller holds the lock.

    Args:
        sources: folders that hold rows of their own.
        folders: copy the rows of these into days too.
        few: files that a day may have before they are merged.

    Raises:
        EventsError: the manifest is gone, or older than its files.
        DataError: it is damaged.
    """

    def __init__(
        self,
        folder: Path,
        table: Table,
        sources: Sequence[Source] = (),
        *,
        folders: bool = True,
        few: int = FEW,
        grace_s: float = GRACE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(folder, table, clock)
        self.few, self.grace_s, self.all_sources = few, grace_s, sources
        self.sources = [source for source in sources if table.name in source.tables] if folders else []
        check_manifest(folder, table, self._manifest)

    def run(self) -> Compaction:
        """Take in what journals and folders have, set damaged files aside, and merge small ones."""
        self.verify()
        try:
            self._take_in()
        except UNREADABLE:
            # Damage that a file does not show from outside. What was taken in before stays so.
            self.verify(whole=True)
            for source in self.sources:
                source.verify(list(source.identities()))
            self._take_in()
        return self.done

    def _take_in(self) -> None:
        self._clean()
        self._journals()
        self._folders()
        self._merge(self.few)
        self._clean()

    def remove(self, where: pl.Expr) -> int:
        """Rewrite the files without the rows of `where`, those of runs excepted. Returns how many rows went.

        Readers see all of them until none is left.
        """
        gone = 0
        removed = (where & (pl.col("source") != "run")).fill_null(False)
        replaced, shrunk = [], []
        for file in self._manifest.files:
            rows = self._scan(file)
            count = int(rows.select(removed.sum()).collect().item())
            if count:
                gone += count
                replaced.append(file)
            if 0 < count < file.rows:
                shrunk.append(file)
        if replaced:
            kept = (self._read([file]).filter(~removed) for file in shrunk)
            self._replace(replaced, [file.day for file in shrunk], kept)
        return gone

    def verify(self, *, whole: bool = False) -> None:
        """Move damaged files to `aside`, and go on without them.

        Args:
            whole: read every file.
        """
        sound = without_damaged(self.folder, self.table, self._manifest, whole=whole)
        moved = len(self._manifest.files) - len(sound.files)
        if moved:
            save_manifest(self.folder, sound)
            self._manifest = sound
            self.done.aside += moved

    def _clean(self) -> None:
        """Delete what nobody reads any more, and see to what a killed compaction left."""
        now = self.clock()
        folder = self.folder / self.table.name
        for path in (*folder.glob(".*.tmp"), *folder.glob("day=*/.*.tmp")):
            path.unlink()
        if unnamed(self._manifest, list_files(self.folder, self.table.name)):
            settled = settle(self.folder, self.table, self.all_sources, self._manifest, now)
            save_manifest(self.folder, settled)
            self.done.aside += len(settled.aside) - len(self._manifest.aside)
            self._manifest = settled
        retired = []
        # The earliest first: what replaced a file is never gone before it.
        for file in self._manifest.retired:
            if now - file.at < self.grace_s:
                retired.append(file)
            else:
                (folder / file.name).unlink(missing_ok=True)
        for day in folder.glob("day=*"):
            with contextlib.suppress(OSError):
                day.rmdir()
        for path in journal_folder(self.folder, self.table.name).glob(".*.tmp"):
            # A writer names its journal at once after it has made it.
            if now - path.stat().st_mtime > _TEMPORARY_SECONDS:
                path.unlink()
        journals = self._ended_journals()
        if len(retired) != len(self._manifest.retired) or journals != self._manifest.journals:
            self._save(retired=tuple(retired), journals=journals)

    def _ended_journals(self) -> dict[str, int]:
        """Delete journals whose writer has ended and whose rows are all in days; the bytes that are in days, of the others."""
        import fcntl

        left = {}
        folder = journal_folder(self.folder, self.table.name)
        for name, taken in self._manifest.journals.items():
            path = folder / name
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                left[name] = taken
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    file.seek(taken)
                    # Without an end of line it is a write that was cut off, and was never acknowledged.
                    if b"\n" not in file.read():
                        path.unlink()
        return left

    def _journals(self) -> None:
        """Rows of journals, in batches."""
        batch: list[pl.DataFrame] = []
        taken = dict(self._manifest.journals)
        for path in list_journals(journal_folder(self.folder, self.table.name)):
            while True:
                start = taken.get(path.name, 0)
                portion = read_portion(path, self.table, start, PORTION_BYTES)
                taken[path.name] = portion.end
                if portion.end == start:
                    break
                if portion.damaged:
                    keep_lines(self.folder, self.table, f"{path.stem}-{start}", list(portion.damaged))
                    self.done.damaged_lines += len(portion.damaged)
                batch.append(portion.rows)
                if sum(rows.estimated_size() for rows in batch) >= BATCH_BYTES:
                    self._add(pl.concat(batch), journals=dict(taken))
                    batch = []
        if taken != self._manifest.journals:
            self._add(pl.concat(batch) if batch else self.table.empty(), journals=taken)

    def _folders(self) -> None:
        """Rows of folders that are new or hold other rows than before; those of folders that are gone go too."""
        for source in self.sources:
            now = source.identities()
            known = self._manifest.folders.get(source.name, {})
            changed = [name for name, identity in now.items() if name not in known or known[name].identity != identity]
            gone = [name for name in known if name not in now]
            wanted: dict[str, str] = {}
            rows = self.table.empty()
            for portion in source.portions(changed):
                wanted |= {name: now[name] for name in portion}
                rows = pl.concat([rows, source.read(self.table.name, portion).collect()])
                if rows.estimated_size() >= BATCH_BYTES:
                    self._take_folders(source, wanted, rows, [])
                    wanted, rows = {}, self.table.empty()
            if wanted or gone:
                self._take_folders(source, wanted, rows, gone)

    def _take_folders(self, source: Source, wanted: dict[str, str], rows: pl.DataFrame, gone: Sequence[str]) -> None:
        """Let `rows` be those of the folders `wanted` (identities by name), in place of what is here of them.

        Identities were taken before the rows were read: one that has changed since is taken in again next time.
        """
        column = source.tables[self.table.name]
        known = dict(self._manifest.folders.get(source.name, {}))
        days: dict[str, set[str]] = {name: set() for name in wanted}
        pairs = with_day(rows.lazy(), self.table).select(column, pl.col("day").cast(pl.String)).unique().collect()
        for name, day in pairs.iter_rows():
            if name in days:
                days[name].add(day)
        stale = [name for name in [*wanted, *gone] if name in known and known[name].days]
        old_days = {day for name in stale for day in known[name].days}
        for name in gone:
            del known[name]
        damaged = source.problems()
        for name, identity in wanted.items():
            # One that cannot be read now is tried again by the next compaction.
            if not any(f"/{name}/" in path for path in damaged):
                known[name] = FolderEntry(identity=identity, days=tuple(sorted(days[name])))
            else:
                known.pop(name, None)
                rows = rows.filter(pl.col(column) != name)
        files = [file for file in self._manifest.files if file.day in old_days]
        kept = self.table.empty()
        replaced: list[LiveFile] = []
        for file in files:
            held = self._read([file])
            ours = pl.col(column).is_in(stale) & (pl.col("source") == source.row_source)
            others = held.filter(~ours.fill_null(False))
            if len(others) < len(held):
                replaced.append(file)
                kept = pl.concat([kept, others])
        folders = self._manifest.folders | {source.name: known}
        self._publish(replaced, pl.concat([kept, rows]), folders=folders)
        self.done.rows += len(rows)

    def _add(self, rows: pl.DataFrame, *, journals: dict[str, int]) -> None:
        self._publish([], rows, journals=journals)
        self.done.rows += len(rows)
