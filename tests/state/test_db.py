"""The state database: append-only tables, transactions and several processes at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.synchronize
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tests.state.servers import new_url
from workbench.errors import MissingExtraError, WorkspaceError
from workbench.state import audit
from workbench.state.db import (
    APPEND_ONLY,
    Alias,
    Approval,
    ArtifactVersion,
    Audit,
    AuditEnd,
    Base,
    PromptVersion,
    open_state,
    reading,
    timestamp,
    writing,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return new_url(request.param, tmp_path)


def _log(session: Session, name: str) -> None:
    audit.append(session, timestamp(), "alias", name, "ada", detail={"reason": "a test"})


def test_what_is_written_is_read_back(url: str) -> None:
    with writing(url) as session:
        _log(session, "triage")
    with reading(url) as session:
        found = session.scalars(select(Audit)).one()
        assert (found.seq, found.name, found.detail) == (1, "triage", {"reason": "a test"})


def test_reading_before_anything_was_written_makes_no_file(tmp_path: Path) -> None:
    with reading(new_url("sqlite", tmp_path)) as session:
        assert session.scalars(select(Audit)).all() == []
    assert list(tmp_path.iterdir()) == []


def test_an_exception_rolls_the_whole_transaction_back(url: str) -> None:
    with writing(url) as session:
        _log(session, "kept")
    with contextlib.suppress(KeyboardInterrupt), writing(url) as session:
        _log(session, "lost")
        session.flush()
        raise KeyboardInterrupt
    with reading(url) as session:
        assert [line.name for line in session.scalars(select(Audit))] == ["kept"]


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET name = 'other'"])
def test_history_cannot_be_rewritten(url: str, table: str, statement: str) -> None:
    with writing(url) as session:
        _log(session, "triage")
        session.add(ArtifactVersion(name="triage", version=1, digest="sha256:0", created_at=timestamp()))
        session.add(PromptVersion(name="p", version=1, digest="d", created_at="", message="", content={}))
        session.flush()
        session.add(Approval(name="triage", version=1, role="reviewer", actor="ada", at="", comment=""))
    with pytest.raises(IntegrityError, match="append-only"), writing(url) as session:
        session.execute(text(statement.format(table)))


def test_an_alias_needs_a_version_that_exists(url: str) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"), writing(url) as session:
        session.execute(text("INSERT INTO aliases VALUES ('triage', 'prod', 7, '2026-01-01')"))


def test_sqlite_is_opened_in_wal_mode(tmp_path: Path) -> None:
    engine = open_state(new_url("sqlite", tmp_path))
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1


def _write_events(url: str, start: multiprocessing.synchronize.Barrier, count: int) -> None:
    start.wait()
    for _ in range(count):
        with writing(url) as session:
            # Reading first and writing after is what makes a deferred transaction fail with "database is locked".
            seen = len(session.scalars(select(Audit)).all())
            _log(session, f"event-{seen}")


def test_processes_that_read_and_then_write_wait_for_each_other(url: str) -> None:
    """They also all make the database at the same moment."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    workers = [context.Process(target=_write_events, args=(url, start, 5)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    with reading(url) as session:
        names = [line.name for line in session.scalars(select(Audit).order_by(Audit.seq))]
        assert audit.check_chain(list(audit.lines(session))).ok
    assert names == [f"event-{number}" for number in range(20)]


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"this is not a database, whatever its name says" * 40)
    with pytest.raises(WorkspaceError, match=r"state\.sqlite: file is not a database"), writing(f"sqlite:///{path}"):
        pass


def test_a_database_of_a_newer_workbench_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(WorkspaceError, match=r"format 99.*Upgrade"), writing(f"sqlite:///{path}"):
        pass


@pytest.mark.parametrize("url", ["mysql://host/db", "not a url"])
def test_only_urls_of_sqlite_and_postgresql_are_accepted(url: str) -> None:
    with pytest.raises(WorkspaceError, match="sqlite:///PATH or postgresql"):
        open_state(url)


def test_a_driver_that_is_missing_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"psycopg2 is not installed.*llmops-workbench\[postgres\]"):
        open_state("postgresql+psycopg2://host/db")


def test_a_server_that_does_not_answer_is_named_in_one_line_without_its_password() -> None:
    pytest.importorskip("psycopg")
    with (
        pytest.raises(WorkspaceError, match="can be reached") as caught,
        reading("postgresql+psycopg://u:secret@127.0.0.1:1/d"),
    ):
        pass
    said = str(caught.value)
    assert "secret" not in said
    assert said.startswith("the state database postgresql+psycopg://u:***@127.0.0.1:1/d: connection failed: ")
    assert "refused. Check that" in said
    assert "\n" not in said


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_what_a_session_reads_is_of_one_moment(tmp_path: Path, backend: str) -> None:
    url = new_url(backend, tmp_path)
    with writing(url) as session:
        _log(session, "first")
    with reading(url) as session:
        assert len(session.scalars(select(Audit)).all()) == 1
        with writing(url) as other:
            _log(other, "second")
        assert len(session.scalars(select(Audit)).all()) == 1
    with reading(url) as session:
        assert len(session.scalars(select(Audit)).all()) == 2


def test_the_database_counts_lines_as_they_are_added(url: str) -> None:
    for number in range(3):
        with writing(url) as session:
            _log(session, f"line-{number}")
    with contextlib.suppress(KeyboardInterrupt), writing(url) as session:
        _log(session, "lost")
        raise KeyboardInterrupt
    with reading(url) as session:
        end, last = session.scalars(select(AuditEnd)).one(), session.scalars(select(Audit).filter_by(seq=3)).one()
        assert (end.count, end.head) == (3, last.digest)
    with pytest.raises(IntegrityError, match="append-only"), writing(url) as session:
        session.execute(text("DELETE FROM audit_end"))


# What the workbench wrote before the audit was a chain.
OLD = """
CREATE TABLE artifact_versions (name VARCHAR NOT NULL, version INTEGER NOT NULL, digest VARCHAR NOT NULL,
    created_at VARCHAR NOT NULL, run_id VARCHAR, variant VARCHAR, decision VARCHAR,
    PRIMARY KEY (name, version), UNIQUE (name, digest));
CREATE TABLE aliases (name VARCHAR NOT NULL, alias VARCHAR NOT NULL, version INTEGER NOT NULL, moved_at VARCHAR NOT NULL,
    PRIMARY KEY (name, alias), FOREIGN KEY(name, version) REFERENCES artifact_versions (name, version));
CREATE TABLE events (id INTEGER NOT NULL, at VARCHAR NOT NULL, kind VARCHAR NOT NULL, name VARCHAR NOT NULL,
    alias VARCHAR, from_version INTEGER, to_version INTEGER, actor VARCHAR NOT NULL, detail JSON NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_events_name ON events (name);
CREATE TABLE prompt_versions (name VARCHAR NOT NULL, version INTEGER NOT NULL, digest VARCHAR NOT NULL,
    created_at VARCHAR NOT NULL, message VARCHAR NOT NULL, content JSON NOT NULL, PRIMARY KEY (name, version));
CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
INSERT INTO artifact_versions VALUES ('triage', 1, 'sha256:0', '2026-01-01', 'run-1', 'few', 'better');
INSERT INTO aliases VALUES ('triage', 'prod', 1, '2026-01-01');
INSERT INTO events VALUES (1, '2026-01-01', 'register', 'triage', NULL, NULL, 1, 'ada', '{}');
INSERT INTO events VALUES (2, '2026-01-02', 'alias', 'triage', 'prod', NULL, 1, 'ben', '{"why": "it won"}');
PRAGMA user_version = 1;
"""


def test_what_an_earlier_workbench_wrote_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(OLD)
    connection.close()
    with reading(f"sqlite:///{path}") as session:
        found = list(audit.lines(session))
        assert [(line["seq"], line["kind"], line["actor"], line["detail"]) for line in found] == [
            (1, "register", "ada", {}),
            (2, "alias", "ben", {"why": "it won"}),
        ]
        assert audit.check_chain(found).ok
        end = session.scalars(select(AuditEnd)).one()
        assert (end.count, end.head) == (2, found[-1]["digest"])
        assert session.scalars(select(Alias)).one().version == 1
    with pytest.raises(IntegrityError, match="append-only"), writing(f"sqlite:///{path}") as session:
        session.execute(text("DELETE FROM audit"))


def test_tables_are_those_that_the_classes_say(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with open_state(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_times_are_utc_and_sort_as_text() -> None:
    earlier = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(earlier) == "2025-12-31T23:00:00.000000+00:00"
    assert timestamp(earlier) < timestamp(datetime(2026, 1, 1, tzinfo=UTC)) < timestamp()
