"""Rebuild: a manifest made again from the files that are there, by what their commits say.

The newest commit whose files are all there is the state of the table. Newer ones were cut off while they were written, and
all that they were made of is still there: they do not count. A commit of which a part is gone, and what it was made of too,
counts with what is left of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from workbench.errors import EventsError
from workbench.events.aside import DAMAGED
from workbench.events.commit import Commit, generation_of, key_of, list_files, read_commit
from workbench.events.manifest import (
    REBUILD,
    AsideFile,
    FolderEntry,
    LiveFile,
    Manifest,
    RetiredFile,
    find_manifest,
    manifest_path,
    save_manifest,
)
from workbench.events.parquet import UNREADABLE, describe, scan
from workbench.events.schema import SOURCES, VERSION_KEY, Table
from workbench.events.sources import Source
from workbench.files import digest_file


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild found.

    Attributes:
        files, rows: that are live now; None where the manifest was sound and nothing was done.
        missing: live files that are gone, with their rows.
        aside: files that nothing names, and files that cannot be read, which were moved to `aside`.
    """

    files: int | None = None
    rows: int | None = None
    missing: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """What the commits of the files that are there say of all of them; names as in manifests."""

    generation: int
    live: tuple[str, ...]
    journals: Mapping[str, int]
    undone: tuple[str, ...]
    replaced: tuple[str, ...]
    strange: tuple[str, ...]
    missing: tuple[str, ...]


def trouble(folder: Path, table: str, names: Sequence[str], manifest: Manifest) -> str | None:
    """What is wrong with a manifest that can be read, next to the files that are there; None where nothing is.

    Files of the next generation are no sign: a compaction is at work or was killed. Unless what they were made of is gone,
    which happens only after a manifest has named them.
    """
    lost = not manifest_path(folder, table).exists()
    newest = max(names, key=generation_of, default="")
    ahead = generation_of(newest) - manifest.generation
    if ahead == 1:
        commit = read_commit(folder / table / newest)
        wrong = commit is not None and not commit.undoable(folder, table)
    else:
        wrong = ahead > 1 or (lost and bool(names))
    if not wrong:
        return None
    return f"is gone, and {len(names)} files are there" if lost else "is older than the files that are there"


def unnamed(manifest: Manifest, names: Sequence[str]) -> set[str]:
    """Files that a manifest does not name, neither as live nor as replaced."""
    return set(names).difference((file.name for file in manifest.files), (file.name for file in manifest.retired))


def check_manifest(folder: Path, table: Table, manifest: Manifest) -> None:
    """Refuse to change anything by a manifest that is gone or older than its files.

    Raises:
        EventsError: it is.
    """
    wrong = trouble(folder, table.name, list_files(folder, table.name), manifest)
    if wrong:
        raise EventsError(f"{manifest_path(folder, table.name)} {wrong}", hint=REBUILD)


def examine(folder: Path, table: str, manifest: Manifest | None) -> Standing:
    """What the files that are there say, and the manifest where it is not older than them."""
    names = list_files(folder, table)
    there = set(names)
    groups: dict[tuple[int, str], list[str]] = {}
    for name in names:
        if key := key_of(name):
            groups.setdefault(key, []).append(name)
    commits = {key: _commit_of(folder / table, group) for key, group in groups.items()}
    known = Manifest(table=table) if manifest is None else manifest
    generation, live, journals = known.generation, [file.name for file in known.files], known.journals
    undone: list[str] = []
    for key, commit in sorted(commits.items(), reverse=True):
        if key[0] <= known.generation:
            break
        if commit is None:
            continue
        if there.issuperset(commit.own) or not commit.undoable(folder, table):
            generation, live, journals = commit.generation, list(commit.live), dict(commit.journals)
            break
        undone += groups[key]
    replaced = {file.name for file in known.retired} | {
        name for commit in commits.values() if commit is not None for name in commit.replaces
    }
    rest = there.difference(live, undone)
    return Standing(
        generation,
        tuple(name for name in live if name in there),
        journals,
        tuple(undone),
        tuple(sorted(rest & replaced)),
        tuple(sorted(rest - replaced)),
        tuple(name for name in live if name not in there),
    )


def _commit_of(folder: Path, names: Sequence[str]) -> Commit | None:
    return next((commit for name in names if (commit := read_commit(folder / name)) is not None), None)


def recover(
    folder: Path, table: Table, sources: Sequence[Source], known: Manifest | None, found: Standing, *, digests: bool
) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest that the files make, and those of them that cannot be read. Nothing is changed.

    What files hold of the sources' folders is read from the folders again.

    Args:
        known: an older manifest, whose entries of files stay.
        digests: read the files whole, for the digests; the manifest of a mere reader does without.
    """
    entries = {file.name: file for file in known.files} if known else {}
    files, unreadable = [], []
    for name in found.live:
        try:
            files.append(entries.get(name) or _described(folder, table, name, digests))
        except (*UNREADABLE, OSError, ValueError):
            unreadable.append(name)
    recovered = Manifest(
        table=table.name,
        generation=found.generation,
        files=tuple(sorted(files, key=lambda file: (file.day, file.first, file.name))),
        journals=dict(found.journals),
        folders={
            source.name: _folders(folder, table, source, files) for source in sources if table.name in source.tables
        },
        retired=known.retired if known else (),
        aside=known.aside if known else (),
    )
    return recovered, tuple(unreadable)


def _described(folder: Path, table: Table, name: str, digests: bool) -> LiveFile:
    path = folder / table.name / name
    version = int(pl.read_parquet_metadata(path)[VERSION_KEY])
    table.check_version(version, str(path))
    rows = scan([path], table, version)
    times = (rows.select(list(table.columns)) if digests else rows.select(table.time)).collect()[table.time]
    return describe(path, name, version, times, digest_file(path) if digests else "")


def _folders(folder: Path, table: Table, source: Source, files: Sequence[LiveFile]) -> dict[str, FolderEntry]:
    column = source.tables[table.name]
    days: dict[str, set[str]] = {}
    for file in files:
        rows = scan([folder / table.name / file.name], table, file.version)
        ids = rows.filter(pl.col("source") == source.row_source).select(pl.col(column).unique()).collect()
        for name in ids[column].drop_nulls():
            days.setdefault(name, set()).add(file.day)
    return {name: FolderEntry(identity=DAMAGED, days=tuple(sorted(found))) for name, found in days.items()}


_read: dict[Path, tuple[tuple[int, tuple[str, ...]], tuple[Manifest, dict[str, str]]]] = {}


def for_reading(
    folder: Path, table: Table, sources: Sequence[Source], known: Manifest, names: Sequence[str]
) -> tuple[Manifest, dict[str, str]]:
    """As `recover`, for whoever only reads, kept while the files are the same; with what cannot be read, by path."""
    place, looks = folder / table.name, (known.generation, tuple(names))
    kept = _read.get(place)
    if kept is None or kept[0] != looks:
        found = examine(folder, table.name, known)
        recovered, unreadable = recover(folder, table, sources, known, found, digests=False)
        problems = {str(place / name): "is gone; its rows are left out" for name in found.missing}
        problems |= {str(place / name): "cannot be read; its rows are left out" for name in unreadable}
        kept = _read[place] = looks, (recovered, problems)
    return kept[1]


def settle(folder: Path, table: Table, sources: Sequence[Source], known: Manifest | None, now: float) -> Manifest:
    """See to files that the manifest does not name. Returns one that does; it is not saved. The caller holds the lock.

    What a killed compaction has written whole counts, and what it has not is deleted. A file that nothing explains is moved
    to `aside`.

    Raises:
        EventsError: files hold rows of folders that none of the sources has.
    """
    found = examine(folder, table.name, known)
    settled = known
    unreadable: tuple[str, ...] = ()
    if settled is None or found.generation > settled.generation:
        settled, unreadable = recover(folder, table, sources, known, found, digests=True)
        _check_sources(folder, table, sources, settled)
    aside = [_set_aside(folder, table, name) for name in (*found.strange, *unreadable)]
    for name in found.undone:
        (folder / table.name / name).unlink(missing_ok=True)
    retired = {file.name for file in settled.retired}
    late = tuple(RetiredFile(name=name, at=now) for name in found.replaced if name not in retired)
    return settled.model_copy(update={"retired": (*settled.retired, *late), "aside": (*settled.aside, *aside)})


def _set_aside(folder: Path, table: Table, name: str) -> AsideFile:
    path, day = folder / table.name / name, name[4:14]
    try:
        rows = int(pl.scan_parquet(path, hive_partitioning=False).select(pl.len()).collect().item())
    except UNREADABLE:
        rows = None
    target = folder / "aside" / f"{table.name}-{day}-{path.name}"
    target.parent.mkdir(exist_ok=True)
    os.replace(path, target)
    return AsideFile(name=target.name, rows=rows)


def _check_sources(folder: Path, table: Table, sources: Sequence[Source], manifest: Manifest) -> None:
    """Refuse to call rows of folders recorded ones, as they would be there twice."""
    expected = {*SOURCES, *(source.row_source for source in sources if table.name in source.tables)}
    for file in manifest.files:
        rows = scan([folder / table.name / file.name], table, file.version)
        held = set(rows.select(pl.col("source").unique()).collect()["source"].drop_nulls())
        if held - expected:
            raise EventsError(
                f"{folder / table.name / file.name} holds rows of runs, and their folders are not known here",
                hint="`workbench events rebuild`, in the workspace, knows them.",
            )


def rebuild(folder: Path, table: Table, sources: Sequence[Source], now: float) -> Rebuilt:
    """Make the manifest of a table again, where it is gone, damaged or older than its files. The caller holds the lock.

    Raises:
        DataError: it, or a file, was written by a newer version.
        EventsError: as `settle`.
    """
    known = find_manifest(folder, table.name)
    names = list_files(folder, table.name)
    if known is not None and trouble(folder, table.name, names, known) is None and not unnamed(known, names):
        return Rebuilt()
    missing = examine(folder, table.name, known).missing
    settled = settle(folder, table, sources, known, now)
    save_manifest(folder, settled)
    new = settled.aside[len(known.aside) if known else 0 :]
    rows = sum(file.rows for file in settled.files)
    return Rebuilt(len(settled.files), rows, missing, tuple(file.name for file in new))
