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

from workbench.errors import WorkspaceError
from workbench.state.db import (
    APPEND_ONLY,
    ArtifactVersion,
    Event,
    PromptVersion,
    open_state,
    reading,
    timestamp,
    writing,
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'sub' / 'state.sqlite'}"


def _event(name: str) -> Event:
    return Event(at=timestamp(), kind="alias", name=name, actor="ada", detail={"reason": "a test"})


def test_what_is_written_is_read_back(url: str) -> None:
    with writing(url) as session:
        session.add(_event("triage"))
    with reading(url) as session:
        found = session.scalars(select(Event)).one()
        assert (found.id, found.name, found.detail) == (1, "triage", {"reason": "a test"})


def test_reading_before_anything_was_written_makes_no_file(url: str, tmp_path: Path) -> None:
    with reading(url) as session:
        assert session.scalars(select(Event)).all() == []
    assert list(tmp_path.iterdir()) == []


def test_an_exception_rolls_the_whole_transaction_back(url: str) -> None:
    with writing(url) as session:
        session.add(_event("kept"))
    with contextlib.suppress(KeyboardInterrupt), writing(url) as session:
        session.add(_event("lost"))
        session.flush()
        raise KeyboardInterrupt
    with reading(url) as session:
        assert [event.name for event in session.scalars(select(Event))] == ["kept"]


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET name = 'other'"])
def test_history_cannot_be_rewritten(url: str, table: str, statement: str) -> None:
    with writing(url) as session:
        session.add(_event("triage"))
        session.add(ArtifactVersion(name="triage", version=1, digest="sha256:0", created_at=timestamp()))
        session.add(PromptVersion(name="p", version=1, digest="d", created_at="", message="", content={}))
    with pytest.raises(IntegrityError, match="append-only"), writing(url) as session:
        session.execute(text(statement.format(table)))


def test_an_alias_needs_a_version_that_exists(url: str) -> None:
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), writing(url) as session:
        session.execute(text("INSERT INTO aliases VALUES ('triage', 'prod', 7, '2026-01-01')"))


def test_sqlite_is_opened_in_wal_mode(url: str) -> None:
    engine = open_state(url)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
    engine.dispose()


def _write_events(url: str, start: multiprocessing.synchronize.Barrier, count: int) -> None:
    start.wait()
    for _ in range(count):
        with writing(url) as session:
            # Reading first and writing after is what makes a deferred transaction fail with "database is locked".
            seen = len(session.scalars(select(Event)).all())
            session.add(_event(f"event-{seen}"))


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
        names = [event.name for event in session.scalars(select(Event).order_by(Event.id))]
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


@pytest.mark.parametrize("url", ["postgresql://host/db", "not a url"])
def test_only_sqlite_urls_are_accepted(url: str) -> None:
    with pytest.raises(WorkspaceError, match="sqlite:///PATH"):
        open_state(url)


def test_times_are_utc_and_sort_as_text() -> None:
    earlier = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(earlier) == "2025-12-31T23:00:00.000000+00:00"
    assert timestamp(earlier) < timestamp(datetime(2026, 1, 1, tzinfo=UTC)) < timestamp()
