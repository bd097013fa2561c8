"""Parquet files of days: written once, held against their digest where they look changed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from workbench.events.commit import Commit
from workbench.events.manifest import LiveFile
from workbench.events.schema import TABLE_KEY, VERSION_KEY, Table
from workbench.files import atomic_file, digest_file

# So few rows that a filter on time skips most of a day, so many that a column compresses.
ROW_GROUP = 65_536
# What Polars raises of a damaged file: an error, or a panic where it trusted the file.
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
EPOCH = "1970-01-01"

_verified: dict[tuple[Path, int, int], str] = {}


def write_day(
    folder: Path, table: Table, day: str, rows: pl.DataFrame, *, name: str | None = None, commit: Commit | None = None
) -> LiveFile:
    """Write rows of one day, sorted by time; the file is live once a manifest names it.

    Args:
        name: `day=YYYY-MM-DD/NAME.parquet`; one of its own by default.
        commit: the change of the table that it is a part of, which is kept in the file.
    """
    name = name or f"day={day}/{time.time_ns():x}-{secrets.token_hex(4)}.parquet"
    path = folder / table.name / name
    about = {TABLE_KEY: table.name, VERSION_KEY: str(table.version)}
    rows = rows.select(list(table.columns)).sort(table.time, maintain_order=True)
    with atomic_file(path) as file, _disk_errors(path):
        rows.write_parquet(
            file,
            compression="zstd",
            statistics=True,
            row_group_size=ROW_GROUP,
            metadata=about | (commit.metadata() if commit else {}),
        )
    return describe(path, name, table.version, rows[table.time], digest_file(path))


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """What Polars says of a disk that does not take a file, as the error of the disk, which it only tells in its text."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if not found:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None


def describe(path: Path, name: str, version: int, times: pl.Series, digest: str) -> LiveFile:
    """A file as a manifest names it.

    Args:
        times: of its rows, sorted.
    """
    found = path.stat()
    return LiveFile(
        name=name,
        version=version,
        rows=len(times),
        first=str(times[0]) if len(times) else "",
        last=str(times[-1]) if len(times) else "",
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        digest=digest,
    )


def fault(path: Path, file: LiveFile, *, whole: bool = False) -> str | None:
    """What is wrong with a live file; None where nothing is.

    Args:
        whole: read it even where it looks as it was published.

    Raises:
        FileNotFoundError: it is gone.
    """
    found = path.stat()
    if not whole and (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns):
        return None
    if found.st_size != file.size:
        return f"is {found.st_size} bytes, and was written with {file.size}"
    key = path, found.st_size, found.st_mtime_ns
    if whole or key not in _verified:
        try:
            _verified[key] = digest_file(path)
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
    return None if _verified[key] == file.digest else "does not hold the bytes that were written"


def scan(paths: Sequence[Path], table: Table, version: int, *, by_day: bool = True) -> pl.LazyFrame:
    """Parquet files of one schema version, as rows of today's form, with `day` from their folders.

    Args:
        by_day: whether they lie in folders `day=…`.

    Whoever collects them meets the damage of a file that looks as it was written as an error of Polars.
    """
    rows = pl.scan_parquet(
        list(paths),
        schema=table.columns_of(version),
        hive_partitioning=by_day,
        hive_schema={"day": pl.Date()} if by_day else None,
        missing_columns="insert",
        extra_columns="ignore",
        cache=False,
    )
    if version == table.version:
        return rows
    day = [pl.col("day")] if by_day else []
    return _migrated(rows, table, version, day)


def _migrated(rows: pl.LazyFrame, table: Table, version: int, keep: list[pl.Expr]) -> pl.LazyFrame:
    for changes in table.migrations[version:]:
        for change in changes:
            rows = change.apply(rows)
    return rows.select(*(pl.col(name).cast(kind) for name, kind in table.columns.items()), *keep)


def with_day(rows: pl.LazyFrame, table: Table) -> pl.LazyFrame:
    """Rows with the day they belong to; those without a time belong to 1970-01-01."""
    return rows.with_columns(pl.col(table.time).dt.date().fill_null(pl.lit(EPOCH).str.to_date()).alias("day"))
