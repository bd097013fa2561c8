"""The Parquet files of a table, by day: read whole, written anew, and replaced by publishing a manifest."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from workbench.events.commit import Commit
from workbench.events.manifest import LiveFile, RetiredFile, load_manifest, save_manifest
from workbench.events.parquet import fault, scan, with_day, write_day
from workbench.events.schema import Table

# A file that has this many rows or compressed bytes is not merged any further.
FULL_ROWS, FULL_BYTES = 1_000_000, 64 << 20


@dataclass
class Compaction:
    """What a compaction did: rows moved to days, files written and replaced, damage that it set aside."""

    rows: int = 0
    written: int = 0
    replaced: int = 0
    aside: int = 0
    damaged_lines: int = 0


class Days:
    """The live files of a table, for whoever holds the lock of compactions.

    Args:
        clock: seconds, for when files were replaced.
    """

    def __init__(self, folder: Path, table: Table, clock: Callable[[], float]) -> None:
        self.folder, self.table, self.clock = folder, table, clock
        self.done = Compaction()
        self._manifest = load_manifest(folder, table.name)

    def _path(self, name: str) -> Path:
        return self.folder / self.table.name / name

    def _save(self, **changes: object) -> None:
        manifest = self._manifest.model_copy(update=changes)
        save_manifest(self.folder, manifest)
        self._manifest = manifest

    def _read(self, files: Sequence[LiveFile]) -> pl.DataFrame:
        return pl.concat([self._scan(file).select(list(self.table.columns)).collect() for file in files])

    def _scan(self, file: LiveFile) -> pl.LazyFrame:
        """Rows of a file that is going to be replaced: damage must not be copied into a new one, where it looks sound."""
        path = self._path(file.name)
        wrong = fault(path, file, whole=True)
        if wrong:
            raise pl.exceptions.ComputeError(f"{path} {wrong}")
        return scan([path], self.table, file.version)

    def _publish(
        self,
        replaced: Sequence[LiveFile],
        rows: pl.DataFrame,
        *,
        journals: dict[str, int] | None = None,
        **changes: object,
    ) -> None:
        """Write rows into days, and let one new manifest name them, drop `replaced` and hold `changes`."""
        parts = with_day(rows.lazy(), self.table).collect().partition_by("day", as_dict=True)
        self._replace(replaced, [str(key[0]) for key in parts], parts.values(), journals=journals, **changes)

    def _replace(
        self,
        replaced: Sequence[LiveFile],
        days: Sequence[str],
        parts: Iterable[pl.DataFrame],
        *,
        journals: dict[str, int] | None = None,
        **changes: object,
    ) -> None:
        """As `_publish`, with one part a file.

        Args:
            days: of the parts, which are only made when their turn comes.
            journals: how many bytes of journals are in the files from then on.
        """
        now = self.clock()
        if replaced and not days:
            # Where rows only go, a file without any says so.
            days, parts = [replaced[0].day], [self.table.empty()]
        elif days:
            replaced = [*replaced, *(file for file in self._manifest.files if not file.rows and file not in replaced)]
        names = {file.name for file in replaced}
        files = [file for file in self._manifest.files if file.name not in names]
        before = self._manifest.journals
        after = before if journals is None else journals
        if not days:
            self._save(journals=after, **changes)
            return
        commit = Commit(self._manifest.generation + 1, secrets.token_hex(4))
        own = commit.names(days)
        commit = replace(
            commit,
            live=(*(file.name for file in files), *own),
            replaces=tuple(sorted(names)),
            journals=after,
            took=tuple(name for name, taken in after.items() if taken != before.get(name, 0)),
        )
        written = [
            write_day(self.folder, self.table, day, part, name=name, commit=commit)
            for name, day, part in zip(own, days, parts, strict=True)
        ]
        self._save(
            generation=commit.generation,
            files=tuple(sorted([*files, *written], key=lambda file: (file.day, file.first, file.name))),
            journals=after,
            retired=(*self._manifest.retired, *(RetiredFile(name=name, at=now) for name in sorted(names))),
            **changes,
        )
        self.done.written += len(written)
        self.done.replaced += len(names)

    def _merge(self, few: int) -> None:
        """Make few files of the many small ones of a day, and files of today's schema of older ones."""
        by_day: dict[str, list[LiveFile]] = {}
        for file in self._manifest.files:
            by_day.setdefault(file.day, []).append(file)
        for day, files in by_day.items():
            small = [file for file in files if not _is_full([file]) or file.version != self.table.version]
            if len(small) <= few and all(file.version == self.table.version for file in small):
                continue
            group: list[LiveFile] = []
            for file in sorted(small, key=lambda file: file.rows):
                group.append(file)
                if _is_full(group):
                    self._merge_group(day, group)
                    group = []
            if len(group) > 1 or (group and group[0].version != self.table.version):
                self._merge_group(day, group)

    def _merge_group(self, day: str, group: Sequence[LiveFile]) -> None:
        self._replace(group, [day], [self._read(group)])


def _is_full(files: Sequence[LiveFile]) -> bool:
    return sum(file.rows for file in files) >= FULL_ROWS or sum(file.size for file in files) >= FULL_BYTES
