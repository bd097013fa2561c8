"""The state database: its tables, and how to read and write them from any number of processes.

SQLite in WAL mode lets readers go on while one process writes. A writing transaction begins with `BEGIN IMMEDIATE`, so
what it reads (the highest version so far) is still true when it writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import DDL, JSON, Connection, Engine, ForeignKeyConstraint, UniqueConstraint, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool, StaticPool

from workbench.errors import WorkspaceError
from workbench.state.lock import locked

SCHEMA_VERSION = 1
BUSY_MILLISECONDS = 30_000


class Base(DeclarativeBase):
    """Tables of the state database."""


class ArtifactVersion(Base):
    """One version of a named artifact. Versions count from 1 and never change."""

    __tablename__ = "artifact_versions"
    __table_args__ = (UniqueConstraint("name", "digest"),)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str]
    created_at: Mapped[str]
    run_id: Mapped[str | None]
    variant: Mapped[str | None]
    decision: Mapped[str | None]


class Alias(Base):
    """Where an alias points now; `events` holds where it pointed before."""

    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["name", "version"], ["artifact_versions.name", "artifact_versions.version"]),
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    moved_at: Mapped[str]


class Event(Base):
    """Something that was done: `register`, `alias`, `rollback` or `refuse`, by whom and when."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(index=True)
    alias: Mapped[str | None]
    from_version: Mapped[int | None]
    to_version: Mapped[int | None]
    actor: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)


class PromptVersion(Base):
    """One saved version of a named prompt; `content` is the prompt's JSON."""

    __tablename__ = "prompt_versions"
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str]
    created_at: Mapped[str]
    message: Mapped[str]
    content: Mapped[dict[str, Any]] = mapped_column(JSON)


APPEND_ONLY = ("artifact_versions", "events", "prompt_versions")

for _table in APPEND_ONLY:
    for _verb in ("UPDATE", "DELETE"):
        event.listen(
            Base.metadata.tables[_table],
            "after_create",
            DDL(  # type: ignore[no-untyped-call]
                f"CREATE TRIGGER {_table}_no_{_verb.lower()} BEFORE {_verb} ON {_table} "
                f"BEGIN SELECT RAISE(ABORT, '{_table} is append-only'); END"
            ),
        )


def timestamp(at: datetime | None = None) -> str:
    """ISO 8601 in UTC with microseconds; `at` must be aware of its zone and defaults to now."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")


def open_state(url: str) -> Engine:
    """The database at an SQLAlchemy URL, made where it does not exist. The caller disposes of the engine.

    Raises:
        WorkspaceError: not an SQLite URL, not a database, or written by a newer workbench.
    """
    path = database_path(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=NullPool if path else StaticPool)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    try:
        with _readable_errors(url):
            _create(engine, path)
    except BaseException:
        engine.dispose()
        raise
    return engine


def database_path(url: str) -> Path | None:
    """The file of an SQLite URL; None for a database in memory.

    Raises:
        WorkspaceError: not an SQLite URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise WorkspaceError(f"state url {url!r} is not a URL", hint="Write sqlite:///PATH, or leave it out.") from None
    if parsed.get_backend_name() != "sqlite":
        raise WorkspaceError(
            f"the state database must be SQLite, not {parsed.get_backend_name()}",
            hint="Write sqlite:///PATH, or leave it out.",
        )
    return Path(parsed.database) if parsed.database and parsed.database != ":memory:" else None


@contextlib.contextmanager
def reading(url: str) -> Iterator[Session]:
    """A session that only reads. Where nothing was ever written it sees empty tables, and makes no file."""
    path = database_path(url)
    yield from _session("sqlite://" if path is not None and not path.exists() else url, immediate=False)


@contextlib.contextmanager
def writing(url: str) -> Iterator[Session]:
    """A session in one writing transaction: committed at the end, rolled back by an exception.

    Raises:
        WorkspaceError: another process wrote for longer than the 30 s this one waits, or the file cannot be written.
    """
    yield from _session(url, immediate=True)


def _session(url: str, *, immediate: bool) -> Iterator[Session]:
    engine = open_state(url)
    try:
        with _readable_errors(url), Session(engine.execution_options(immediate=immediate)) as session, session.begin():
            # Opening the transaction here makes every later read of a writer happen under the lock.
            session.connection()
            yield session
    finally:
        engine.dispose()


def _configure(connection: Any, _record: object) -> None:
    # The driver's own transaction handling would delay BEGIN until the first write; `_begin` issues it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _create(engine: Engine, path: Path | None) -> None:
    if _schema_version(engine) == SCHEMA_VERSION:
        return
    # The switch to WAL does not wait for other processes as transactions do, hence the lock around it.
    with locked(path.with_name(path.name + ".lock")) if path else contextlib.nullcontext():
        if path is not None:
            raw = engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA journal_mode = WAL").close()
            finally:
                raw.close()
        with engine.execution_options(immediate=True).begin() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if version > SCHEMA_VERSION:
                raise WorkspaceError(
                    f"the state database has format {version}, this workbench reads {SCHEMA_VERSION}",
                    hint="Upgrade llmops-workbench.",
                )
            if version == 0:
                Base.metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _schema_version(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


@contextlib.contextmanager
def _readable_errors(url: str) -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        # A subclass other than OperationalError (a constraint, say) is a fault of the program, not of the file.
        if not isinstance(error, OperationalError) and type(error) is not DatabaseError:
            raise
        raise WorkspaceError(
            f"the state database {database_path(url) or url}: {error.orig}",
            hint="Check that the file is a database, is writable, and that the disk is not full.",
        ) from None
