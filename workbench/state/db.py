"""The state database: its tables, and how to read and write them from any number of processes.

SQLite by default, in WAL mode, which lets readers go on while one process writes; PostgreSQL by URL. Writing transactions
come one after another, so that what one reads (the highest version so far, the last line of the audit) is still true when
it writes.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    ForeignKeyConstraint,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool, StaticPool

from workbench.errors import MissingExtraError, WorkspaceError
from workbench.state.lock import locked
from workbench.state.read_only import connect, is_read_only

# The newest of migrations/versions, which `upgrade` comes to.
HEAD = "0004"
BUSY_MILLISECONDS = 30_000
# Held by a writing transaction on PostgreSQL: any number that nobody else uses.
_WRITERS = 0x776F726B62656E63
_BACKENDS = ("sqlite", "postgresql")


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


class Audit(Base):
    """Something that was done, by whom and when. Each line holds the digest of the one before, so none can be changed,
    left out or moved without the chain showing it; see `state.audit`.

    Attributes:
        seq: counts from 1 without a gap.
        kind: `register`, `alias`, `rollback`, `refuse`, `approve`, `tag`, `import`, `grant` or `revoke`.
        digest: sha256 over all other columns, `previous` included.
    """

    __tablename__ = "audit"
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[str]
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(index=True)
    alias: Mapped[str | None]
    from_version: Mapped[int | None]
    to_version: Mapped[int | None]
    actor: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)
    previous: Mapped[str]
    digest: Mapped[str]


class AuditEnd(Base):
    """How many lines were ever added to the audit, and the digest of the last one: one row, which the database itself
    keeps as lines are added, so that lines that are gone from the end are missed.
    """

    __tablename__ = "audit_end"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int]
    head: Mapped[str]


class Approval(Base):
    """Somebody's consent to a version. A person's consent counts once for each role."""

    __tablename__ = "approvals"
    __table_args__ = (
        ForeignKeyConstraint(["name", "version"], ["artifact_versions.name", "artifact_versions.version"]),
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    role: Mapped[str] = mapped_column(primary_key=True)
    actor: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[str]
    comment: Mapped[str]


class PromptVersion(Base):
    """One saved version of a named prompt; `content` is the prompt's JSON."""

    __tablename__ = "prompt_versions"
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str]
    created_at: Mapped[str]
    message: Mapped[str]
    content: Mapped[dict[str, Any]] = mapped_column(JSON)


class PromptTag(Base):
    """A word on a saved prompt, such as `tested`."""

    __tablename__ = "prompt_tags"
    __table_args__ = (ForeignKeyConstraint(["name", "version"], ["prompt_versions.name", "prompt_versions.version"]),)
    name: Mapped[str] = mapped_column(primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[str]


class AccessKey(Base):
    """A key that a person signs in with. `tenants` are those whose rows they see; null is all."""

    __tablename__ = "access_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    person: Mapped[str] = mapped_column(index=True)
    secret_digest: Mapped[str]
    roles: Mapped[list[str]] = mapped_column(JSON)
    tenants: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[str]
    created_by: Mapped[str]
    revoked_at: Mapped[str | None]


APPEND_ONLY = ("artifact_versions", "audit", "approvals", "prompt_versions")


def timestamp(at: datetime | None = None) -> str:
    """ISO 8601 in UTC with microseconds; `at` must be aware of its zone and defaults to now."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")


def open_state(url: str, *, read: bool = False) -> Engine:
    """The database at an SQLAlchemy URL, made or brought up to date where that is needed; one engine a process and URL.

    Args:
        read: it is only to be read, which may be in a folder that cannot be written.

    Raises:
        WorkspaceError: not a URL of SQLite or PostgreSQL, not a database, or written by a newer workbench; or its folder
            cannot be written, and it is to be, or has to be brought up to date.
        MissingExtraError: the driver for PostgreSQL is not installed.
    """
    path = database_path(url)
    fixed = path is not None and is_read_only(path)
    if fixed and not read:
        raise _not_writable(url)
    if path is not None and not fixed:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            raise _not_writable(url) from None
    key = (url, os.getpid(), fixed)
    engine = _engines.get(key)
    if engine is None:
        engine = _engines[key] = _make_engine(url, path, fixed)
    there = _identity(path)
    if there is None or _looked_at.get(key) != there:
        with _readable_errors(url):
            if fixed:
                _check_revision(engine, url)
            else:
                _upgrade(engine, path)
        _looked_at[key] = _identity(path)
    return engine


# By process too: connections must not be shared with a child.
_engines: dict[tuple[str, int, bool], Engine] = {}
# Which file was found up to date under a URL; another one in its place is looked at again.
_looked_at: dict[tuple[str, int, bool], tuple[int, int] | None] = {}


def _identity(path: Path | None) -> tuple[int, int] | None:
    """What tells a file from another in its place; None where there is none. A server is always the same."""
    if path is None:
        return (0, 0)
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _make_engine(url: str, path: Path | None, fixed: bool) -> Engine:
    if not is_sqlite(url):
        try:
            return create_engine(url, pool_pre_ping=True)
        except (ModuleNotFoundError, NoSuchModuleError):
            raise MissingExtraError(
                f"the driver for {make_url(url).drivername} is not installed",
                hint="Run: pip install 'llmops-workbench[postgres]', and write postgresql+psycopg://…",
            ) from None
    # Closed after each session, a file's last connection leaves nothing beside the file, which may then be copied.
    # The database in memory is empty, and read by any thread.
    memory = {} if path else {"check_same_thread": False}
    if path is not None and fixed:
        engine = create_engine("sqlite://", poolclass=NullPool, creator=functools.partial(connect, path))
    else:
        engine = create_engine(url, poolclass=NullPool if path else StaticPool, connect_args=memory)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


@functools.cache
def is_sqlite(url: str) -> bool:
    """Whether an SQLAlchemy URL is one of SQLite.

    Raises:
        WorkspaceError: it is of neither SQLite nor PostgreSQL.
    """
    try:
        backend = make_url(url).get_backend_name()
    except ArgumentError:
        raise WorkspaceError(f"state url {url!r} is not a URL", hint=_URLS) from None
    if backend not in _BACKENDS:
        raise WorkspaceError(f"the state database must be SQLite or PostgreSQL, not {backend}", hint=_URLS)
    return backend == "sqlite"


_URLS = "Write sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE, or leave it out."


@functools.cache
def database_path(url: str) -> Path | None:
    """The file of an SQLite URL; None for a database in memory or on a server.

    Raises:
        WorkspaceError: not a URL of SQLite or PostgreSQL.
    """
    if not is_sqlite(url):
        return None
    database = make_url(url).database
    return Path(database) if database and database != ":memory:" else None


@contextlib.contextmanager
def reading(url: str) -> Iterator[Session]:
    """A session that only reads, all of it as of one moment.

    Where nothing was ever written it sees empty tables, and makes no file.
    """
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
    options: dict[str, Any] = {"immediate": immediate}
    if not immediate and not is_sqlite(url):
        # Else each query would see what others have committed since the one before; SQLite never does so.
        options["isolation_level"] = "REPEATABLE READ"
    engine = open_state(url, read=not immediate).execution_options(**options)
    with _readable_errors(url), Session(engine) as session, session.begin():
        # Opening the transaction here makes every later read of a writer happen under the lock.
        connection = session.connection()
        if immediate and connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = {BUSY_MILLISECONDS}"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITERS})
        yield session


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


def _upgrade(engine: Engine, path: Path | None) -> None:
    if _revision(engine) == HEAD:
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
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITERS})
            from workbench.state.migrate import migrate

            migrate(connection)


def _check_revision(engine: Engine, url: str) -> None:
    """Raises:
    WorkspaceError: another workbench wrote the database, which cannot be brought up to date where it is.
    """
    found = _revision(engine)
    if found != HEAD:
        raise WorkspaceError(
            f"the state database {shown(url)} has format {found}, and this workbench reads {HEAD}",
            hint="Its folder cannot be written: copy the workspace to where it can be, or use the workbench that made it.",
        )


def _not_writable(url: str) -> WorkspaceError:
    return WorkspaceError(
        f"the state database {shown(url)} cannot be written, as its folder cannot",
        hint="Get the right to write there, or copy the workspace. What only reads, such as `artifact ls`, works.",
    )


def _revision(engine: Engine) -> str | None:
    """Where the schema stands, by Alembic's own table; None in a database that has none."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


@contextlib.contextmanager
def _readable_errors(url: str) -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        # A subclass other than OperationalError (a constraint, say) is a fault of the program, not of the file.
        if not isinstance(error, OperationalError) and type(error) is not DatabaseError:
            raise
        raise WorkspaceError(
            f"the state database {shown(url)}: {_reason(error.orig)}",
            hint="Check that it is a database, can be reached and written, and that the disk is not full.",
        ) from None


def shown(url: str) -> str:
    """The database at an SQLAlchemy URL for people to read: its file, else the URL without its password."""
    return str(database_path(url) or make_url(url).render_as_string())


def _reason(error: BaseException | None) -> str:
    """What a driver says in its first line; those below ask questions, or say the same of further addresses."""
    told = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(told[0].split()).rstrip(".?:")
