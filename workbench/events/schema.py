"""Tables of events: their columns by schema version, and the migrations that bring older rows to today's form.

A version is never edited once rows of it were written: a change is one more migration at the end of a table's list. Stored
rows stay as they are; whoever reads them applies the migrations from their version on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import polars as pl

from workbench.errors import DataError
from workbench.events.rows import Call, Score, schema_of

# Times are UTC without a zone, in microseconds.
TIME = pl.Datetime("us")
# Where a recorded row comes from: whoever serves, or a generator of trial rows. Rows of runs say `run`.
SOURCES = ("served", "synthetic")
# In Parquet's key-value metadata.
TABLE_KEY, VERSION_KEY = "workbench.table", "workbench.version"

Schema = dict[str, pl.DataType]


class Change(Protocol):
    """One change of the columns of a table."""

    def schema(self, before: Schema) -> Schema: ...
    def apply(self, rows: pl.LazyFrame) -> pl.LazyFrame: ...


@dataclass(frozen=True)
class AddColumn:
    """A column that older rows lack; they get `default`."""

    name: str
    kind: Any
    default: Any = None

    def schema(self, before: Schema) -> Schema:
        return before | {self.name: self.kind}

    def apply(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.with_columns(pl.lit(self.default, self.kind).alias(self.name))


@dataclass(frozen=True)
class RenameColumn:
    """A column that is called otherwise from now on."""

    old: str
    new: str

    def schema(self, before: Schema) -> Schema:
        return {self.new if name == self.old else name: kind for name, kind in before.items()}

    def apply(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.rename({self.old: self.new})


@dataclass(frozen=True)
class ChangeType:
    """A column of another type; values that cannot be converted become null. Texts become times as ISO 8601, UTC."""

    name: str
    kind: Any

    def schema(self, before: Schema) -> Schema:
        return before | {self.name: self.kind}

    def apply(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        column = pl.col(self.name)
        if self.kind == TIME:
            aware = column.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
            return rows.with_columns(aware.dt.replace_time_zone(None))
        return rows.with_columns(column.cast(self.kind, strict=False))


@dataclass(frozen=True)
class Table:
    """A table of events.

    Attributes:
        first: columns of version 0.
        migrations: by version: `migrations[n]` makes version n + 1 of version n.
        time: the column that says which day a row belongs to, and by which it is sorted.
        required: columns that a recorded row must hold.
    """

    name: str
    first: Schema
    migrations: tuple[tuple[Change, ...], ...]
    time: str
    required: tuple[str, ...] = ("trace_id",)

    @property
    def version(self) -> int:
        """The version that is written today."""
        return len(self.migrations)

    @cached_property
    def columns(self) -> Schema:
        """Columns of today's version, in order; views add `day`."""
        return self.columns_of(self.version)

    def columns_of(self, version: int) -> Schema:
        found = dict(self.first)
        for changes in self.migrations[:version]:
            for change in changes:
                found = change.schema(found)
        return found

    def check_version(self, version: int, place: str) -> None:
        """Refuse rows from the future.

        Raises:
            DataError: they were written by a newer version of the workbench; names the file.
        """
        if not 0 <= version <= self.version:
            raise DataError(
                f"{self.name} of schema version {version}, and this workbench knows up to {self.version}",
                path=place,
                hint="Upgrade: pip install --upgrade llmops-workbench",
            )

    def migrate(self, rows: pl.LazyFrame, version: int) -> pl.LazyFrame:
        """Rows of a version (columns may be missing) with today's columns, in order."""
        present = set(rows.collect_schema().names())
        missing = {name: kind for name, kind in self.columns_of(version).items() if name not in present}
        rows = rows.with_columns(pl.lit(None, kind).alias(name) for name, kind in missing.items())
        for changes in self.migrations[version:]:
            for change in changes:
                rows = change.apply(rows)
        return rows.select(pl.col(name).cast(kind) for name, kind in self.columns.items())

    def empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self.columns)


def _source(default: str) -> AddColumn:
    return AddColumn("source", pl.String, default)


# Version 0 of calls and scores is what the folder of a run holds.
CALLS = Table(
    "calls",
    schema_of(Call),
    (
        (ChangeType("started_at", TIME), _source("run")),
        # What answered, as NAME@VERSION, and the alias that it was served as; both null for runs.
        (AddColumn("artifact", pl.String), AddColumn("alias", pl.String)),
    ),
    time="started_at",
)
SCORES = Table(
    "scores",
    schema_of(Score),
    (
        (
            AddColumn("trace_id", pl.String),
            AddColumn("tenant", pl.String),
            AddColumn("started_at", TIME),
            _source("run"),
        ),
    ),
    time="started_at",
    required=("trace_id", "scorer"),
)
FEEDBACK = Table(
    "feedback",
    {
        "trace_id": pl.String(),
        "tenant": pl.String(),
        "rating": pl.Float64(),
        "comment": pl.String(),
        "who": pl.String(),
        "at": TIME,
        "source": pl.String(),
    },
    (),
    time="at",
)
REVIEWS = Table(
    "reviews",
    {
        "trace_id": pl.String(),
        "tenant": pl.String(),
        "reviewer": pl.String(),
        "verdict": pl.String(),
        "corrected": pl.String(),
        "comment": pl.String(),
        "at": TIME,
        "source": pl.String(),
    },
    (),
    time="at",
    required=("trace_id", "verdict"),
)
TABLES: Mapping[str, Table] = {table.name: table for table in (CALLS, SCORES, FEEDBACK, REVIEWS)}


def find_table(name: str) -> Table:
    """A table by its name.

    Raises:
        UsageError: there is none; the hint lists them.
    """
    from workbench.errors import UsageError

    if name not in TABLES:
        raise UsageError(f"no events are called {name!r}", hint=f"There are: {', '.join(TABLES)}.")
    return TABLES[name]
