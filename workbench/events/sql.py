"""SQL over the views of events: a DuckDB connection that can read nothing else, and one SELECT at a time."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from workbench.errors import UsageError
from workbench.events.parquet import UNREADABLE
from workbench.events.schema import TABLES
from workbench.events.snapshot import Snapshot
from workbench.workspace import cache_folder

if TYPE_CHECKING:
    import duckdb

    from workbench.events.store import Events

# Types of DuckDB that Polars has none for, also inside of others.
_ODD = re.compile(r"INTERVAL|UNION|TIME WITH TIME ZONE|\bBIT\b|BIGNUM|VARIANT|GEOMETRY")
# What Python has dates for, as days since 1970.
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
# Of a table whose files are read by DuckDB: a view of its other rows, which is no view to ask.
_REST = "_not_compacted"
_UNREADABLE = ("Failed to read file", "found in Parquet", "from the object registered", "No such file")


def connect(
    events: Events, *, tenants: Sequence[str] | None = None, only: Sequence[str] | None = None
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in memory with one view a table, each as of now.

    It reaches the live Parquet files and nothing else on disk, and its settings are locked. With `tenants` it reaches no file
    at all: its views are fed with rows that are filtered before DuckDB sees them.
    """
    return _trying(events, lambda: _connect(events, tenants, only))


def _connect(events: Events, tenants: Sequence[str] | None, only: Sequence[str] | None) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(
        config={
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "temp_directory": str(cache_folder() / "duckdb"),
        }
    )
    names = [name for name in (events.names if tenants is None else tuple(TABLES)) if only is None or name in only]
    allowed: list[str] = []
    for name in names:
        if tenants is not None:
            connection.register(name, events.frame(name, tenants=tenants))
        elif name in TABLES:
            snapshot = events.snapshot(name)
            allowed += [str(path) for path in snapshot.files]
            _make_view(connection, name, snapshot)
        else:
            connection.register(name, events.frame(name))
    if allowed:
        connection.execute(f"SET allowed_paths = {_list(allowed)}")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _make_view(connection: duckdb.DuckDBPyConnection, name: str, snapshot: Snapshot) -> None:
    """Live files are read by DuckDB itself, in little memory; the rest comes as a frame."""
    rest = snapshot.rest()
    if not snapshot.files:
        connection.register(name, snapshot.frame())
        return
    columns = ", ".join(f'"{column}"' for column in (*snapshot.table.columns, "day"))
    paths = _list(map(str, snapshot.files))
    select = f"SELECT {columns} FROM read_parquet({paths}, hive_partitioning = true, hive_types = {{'day': DATE}})"
    stale = [
        f'("{column}" IN ({", ".join(map(_quoted, ids))}) AND source = {_quoted(source)})'
        for source, column, ids in snapshot.replaced
    ]
    if stale:
        select += f" WHERE NOT coalesce({' OR '.join(stale)}, false)"
    if rest is not None:
        connection.register(f"{name}{_REST}", rest)
        select += f' UNION ALL SELECT {columns} FROM "{name}{_REST}"'
    connection.execute(f'CREATE TEMP VIEW "{name}" AS {select}')


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _list(texts: Any) -> str:
    return "[" + ", ".join(map(_quoted, texts)) + "]"


def select(
    events: Events, query: str, parameters: Mapping[str, Any] | None = None, *, tenants: Sequence[str] | None = None
) -> pl.DataFrame:
    """The rows of one SELECT; see `Events.sql`."""
    _check(query)
    # A view costs a look at its files. SHOW and the like name none, and see all.
    used = [name for name in events.names if re.search(rf"\b{name}\b", query, re.IGNORECASE)] or None

    def ask() -> pl.DataFrame:
        with _connect(events, tenants, used) as connection:
            rows = _frame(connection.sql(query, params=dict(parameters) if parameters else None))
            if "name" in rows.columns and re.match(r"\s*show\b", query, re.IGNORECASE):
                rows = rows.filter(~pl.col("name").str.ends_with(_REST))
            return rows

    import duckdb

    try:
        return _trying(events, ask)
    except duckdb.Error as error:
        raise _explained(error, events, tenants) from None


Made = TypeVar("Made")


def _trying(events: Events, work: Callable[[], Made]) -> Made:
    """Do what reads files once more where one went meanwhile, and again without those that prove damaged."""
    import duckdb

    for attempt in range(3):
        try:
            return work()
        except duckdb.Error as error:
            if not _is_reading(error) or (attempt and not events.verify()):
                raise
    return work()


def _frame(found: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    """The rows; what Polars has no type for as the text that DuckDB makes of it."""
    odd = [_ODD.search(str(kind)) is not None for kind in found.types]
    if any(odd):
        columns = (
            f"#{place}{'::VARCHAR' if is_odd else ''} AS {_name(name)}"
            for place, (name, is_odd) in enumerate(zip(found.columns, odd, strict=True), 1)
        )
        found = found.project(", ".join(columns))
    try:
        rows: pl.DataFrame = found.pl()
    except UNREADABLE as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"SQL: {reason}", hint="Cast what is unusual to a text: NAME::varchar.") from None
    _check_times(rows)
    for name, kind in rows.schema.items():
        # The sum of whole numbers is one of 128 bits for DuckDB, which JSON, Excel and charts do not know.
        if kind == pl.Decimal(38, 0):
            with contextlib.suppress(pl.exceptions.PolarsError):
                rows = rows.with_columns(pl.col(name).cast(pl.Int64))
    return rows


def _check_times(rows: pl.DataFrame) -> None:
    """Refuse times that Python has none for.

    Raises:
        UsageError: there are some; names the column.
    """
    for name, kind in rows.schema.items():
        if kind == pl.Date:
            a_day = 1
        elif isinstance(kind, pl.Datetime):
            a_day = 86_400 * {"ms": 10**3, "us": 10**6, "ns": 10**9}[kind.time_unit]
        else:
            continue
        days = rows[name].to_physical() // a_day
        if not days.is_between(_FIRST_DAY, _LAST_DAY).all():
            raise UsageError(f"SQL: {name} is beyond the years 1 to 9999", hint=f"Ask for {name}::varchar.")


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _check(query: str) -> None:
    """Refuse what is not one question.

    Raises:
        UsageError: it is not one SELECT.
    """
    import duckdb

    with duckdb.connect() as connection:
        try:
            kinds = [statement.type for statement in connection.extract_statements(query)]
        except duckdb.Error as error:
            raise UsageError(f"SQL: {_reason(error)}") from None
    if kinds not in ([duckdb.StatementType.SELECT], [duckdb.StatementType.EXPLAIN]):
        raise UsageError("only one SELECT can be asked", hint="Events are read, never changed, by SQL.")


def _is_reading(error: Exception) -> bool:
    """Whether an error is of what is read, and not of what was asked."""
    import duckdb

    # What the reader of Parquet raises of a damaged page has no class of its own.
    if type(error) is duckdb.Error or isinstance(error, duckdb.IOException):
        return True
    return any(phrase in str(error) for phrase in _UNREADABLE)


def _reason(error: Exception) -> str:
    """The first line of DuckDB's message, without the kind of error."""
    return re.sub(r"^[A-Z]\w*( [A-Z]\w*)* Error: ", "", str(error).strip().splitlines()[0]).rstrip("!")


def _explained(error: Exception, events: Events, tenants: Sequence[str] | None) -> UsageError:
    reason = _reason(error)
    hint = None
    names = list(events.names) if tenants is None else list(TABLES)
    if found := re.search(r"Table with name (\S+) does not exist", reason):
        reason = f"there is no view {found[1]}"
        hint = _near(found[1], names) or f"There are: {', '.join(names)}."
    elif "FROM clause is missing" in reason:
        hint = f"There is no FROM: name a view, such as {names[0]}."
    elif found := re.search(r'(?:column|alias) "?([^"\s]+)"? ', reason):
        columns = {column for table in TABLES.values() for column in (*table.columns, "day")}
        candidates = re.findall(r'"([^"]+)"', str(error).partition("Candidate bindings:")[2])
        hint = _near(found[1], [*columns, *candidates])
    elif "Permission Error" in str(error) or "file system operations are disabled" in str(error):
        hint = "Only the views can be read."
    return UsageError(f"SQL: {reason}", hint=hint)


def _near(name: str, names: Sequence[str]) -> str | None:
    near = difflib.get_close_matches(name.lower(), sorted(set(names)), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else None
