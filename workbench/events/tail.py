"""The part of a journal that is not compacted yet, as a frame."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from workbench.events.journal import body_of
from workbench.events.schema import TIME, Table

_NAME = re.compile(r"[^.].*\.v(\d+)\.jsonl")


@dataclass(frozen=True)
class Portion:
    """Rows of a part of a journal, in today's form.

    Attributes:
        end: byte after the last line that was read.
        damaged: lines whose checksum or form is wrong.
    """

    rows: pl.DataFrame
    end: int
    damaged: tuple[bytes, ...] = ()


def journal_version(path: Path) -> int | None:
    """The schema version in a journal's name; None where it is no journal."""
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def list_journals(folder: Path) -> list[Path]:
    """Journals of a table, the oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if journal_version(path) is not None)


def read_portion(path: Path, table: Table, start: int, limit: int | None = None) -> Portion:
    """Complete lines of a journal from byte `start` on, about `limit` bytes of them.

    Raises:
        FileNotFoundError: it is gone; a compaction took the rest of it.
        DataError: it was written by a newer version of the workbench.
    """
    version = journal_version(path)
    assert version is not None
    table.check_version(version, str(path))
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(-1 if limit is None else limit)
        if limit is not None and b"\n" not in data:
            # One line longer than the limit.
            data += file.readline()
    whole = data.rfind(b"\n") + 1
    if not whole:
        return Portion(table.empty(), start)
    bodies, damaged = [], []
    for line in data[:whole].split(b"\n")[:-1]:
        body = body_of(line)
        if body is None:
            damaged.append(line)
        else:
            bodies.append(body)
    return Portion(_rows(bodies, table, version), start + whole, tuple(damaged))


def _rows(bodies: list[bytes], table: Table, version: int) -> pl.DataFrame:
    if not bodies:
        return table.empty()
    columns: dict[str, Any] = dict(table.columns_of(version))
    times = [name for name, kind in columns.items() if kind == TIME]
    # Times are read as the texts they are; a column that is a time only later is still one of texts here.
    read = columns | dict.fromkeys(times, pl.String())
    try:
        rows = pl.read_ndjson(io.BytesIO(b"\n".join(bodies)), schema=read)
    except pl.exceptions.PolarsError:
        rows = pl.DataFrame([json.loads(body) for body in bodies], schema=read, strict=False)
    rows = rows.with_columns(pl.col(name).str.to_datetime(time_unit="us", strict=False) for name in times)
    return table.migrate(rows.lazy(), version).collect()
