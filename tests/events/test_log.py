"""Recording: what is taken, what is refused, and that it is durable when flush comes back."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.events.rows import a_call
from workbench.errors import EventsError, UsageError
from workbench.events.log import EventLog
from workbench.events.store import Events


def read(folder: Path) -> list[dict[str, Any]]:
    return Events(folder).frame("calls").sort("trace_id").collect().to_dicts()


def test_what_was_recorded_is_read_by_anybody_once_it_is_flushed(tmp_path: Path) -> None:
    with EventLog(tmp_path) as log:
        log.record("calls", a_call(1, output="two lines\n– “quoted” 🙂", logprob=-0.5))
        log.record("feedback", {"trace_id": "trace-1", "rating": 1, "comment": "helpful", "who": "ann"})
        log.flush()
        [call] = read(tmp_path)
    assert (call["trace_id"], call["output"], call["logprob"]) == ("trace-1", "two lines\n– “quoted” 🙂", -0.5)
    assert (call["source"], call["run_id"], call["tenant"]) == ("served", None, "acme")
    assert abs(call["started_at"] - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=5)
    assert call["day"] == call["started_at"].date()
    [feedback] = Events(tmp_path).frame("feedback").collect().to_dicts()
    assert (feedback["rating"], feedback["comment"]) == (1.0, "helpful")


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("2026-03-01T12:00:00+02:00", datetime(2026, 3, 1, 10)),
        ("2026-03-01T12:00:00.123456Z", datetime(2026, 3, 1, 12, 0, 0, 123456)),
        ("2026-03-01", datetime(2026, 3, 1)),
        (datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=-5))), datetime(2026, 3, 1, 17)),
        (datetime(2026, 3, 1, 12), datetime(2026, 3, 1, 12)),
    ],
)
def test_times_are_utc(tmp_path: Path, given: object, stored: datetime) -> None:
    with EventLog(tmp_path) as log:
        log.record("calls", a_call(1, started_at=given))
    assert read(tmp_path)[0]["started_at"] == stored


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (a_call(1, colour="red"), "no column 'colour'.*trace_id"),
        (a_call(1, trace_id=None), "a row needs trace_id"),
        (a_call(1, tokens_in=1.5), r"calls\.tokens_in must be a whole number"),
        (a_call(1, tokens_in=True), r"calls\.tokens_in must be a whole number"),
        (a_call(1, tokens_in=2**63), r"calls\.tokens_in must be a whole number of 64 bits"),
        (a_call(1, latency_s="fast"), r"calls\.latency_s must be a finite number, not 'fast'"),
        (a_call(1, latency_s=float("nan")), r"calls\.latency_s must be a finite number"),
        (a_call(1, cost_usd=10**400), r"calls\.cost_usd must be a finite number"),
        (a_call(1, cached=1), r"calls\.cached must be true or false"),
        (a_call(1, input={"text": "hi"}), r"calls\.input must be a text"),
        (a_call(1, started_at="yesterday"), r"calls\.started_at must be a time"),
        (a_call(1, source="run"), "source must be served or synthetic"),
        (a_call(1, output=["x" * 1000]), "must be a text, not .{0,80}…"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_and_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with EventLog(tmp_path) as log:
        with pytest.raises(UsageError, match=message):
            log.record("calls", row)
        with pytest.raises(UsageError, match=message):
            log.record_many("calls", [a_call(0), row])
    assert read(tmp_path) == []


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    with EventLog(tmp_path) as log, pytest.raises(UsageError, match=r"no events are called 'cals'.*calls, scores"):
        log.record("cals", {})


def test_half_a_character_does_not_stop_the_recording(tmp_path: Path) -> None:
    with EventLog(tmp_path) as log:
        log.record("calls", a_call(1, output="cut off \ud83d"))
    assert read(tmp_path)[0]["output"] == "cut off ?"


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.close()
    log.close()
    with pytest.raises(EventsError, match="closed"):
        log.record("calls", a_call(1))


def test_many_threads_record_through_one_log(tmp_path: Path) -> None:
    with EventLog(tmp_path, pending_bytes=5_000) as log:

        def work(name: int) -> None:
            for n in range(100):
                log.record("calls", a_call(n, trace_id=f"{name}-{n:03d}"))
            log.flush()

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [row["trace_id"] for row in read(tmp_path)] == [f"{name}-{n:03d}" for name in range(4) for n in range(100)]


def test_a_slow_disk_makes_the_recorder_wait_instead_of_filling_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(0.02)
        held.append(log._waiting)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    with EventLog(tmp_path, pending_bytes=20_000) as log:
        for n in range(500):
            log.record("calls", a_call(n))
    assert len(held) > 3
    assert max(held) < 20_000 + 1_000
    assert len(read(tmp_path)) == 500


def test_a_recorder_that_must_not_wait_is_refused_while_the_disk_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    fsync = os.fsync

    def hang(descriptor: int) -> None:
        goes_on.wait(30)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", hang)
    with EventLog(tmp_path, pending_bytes=5_000, wait=False) as log:
        log.record_many("calls", [a_call(n) for n in range(100)])
        with pytest.raises(EventsError, match="as fast as they come"):
            log.record("calls", a_call(100))
        goes_on.set()
    assert len(read(tmp_path)) == 100


def _record_in_child(folder: Path, log: EventLog | None) -> None:
    # A child that forgets to close, as most do.
    log = log or EventLog(folder)
    log.record("calls", a_call(2, trace_id=f"child-{os.getpid()}"))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_after_a_fork_both_go_on_and_neither_writes_the_rows_of_the_other(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.record("calls", a_call(1, trace_id="before"))
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_record_in_child, args=(tmp_path, log)) for _ in range(3)]
    for child in children:
        child.start()
    log.record("calls", a_call(1, trace_id="after"))
    for child in children:
        child.join()
    log.close()
    names = [row["trace_id"] for row in read(tmp_path)]
    assert names == sorted(["after", "before", *(f"child-{child.pid}" for child in children)])
    # Each process has a journal of its own.
    assert len(list((tmp_path / "journals" / "calls").iterdir())) == 4


def test_a_journal_that_grew_large_is_left_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.events.log.ROTATE_BYTES", 2_000)
    events = Events(tmp_path)
    with events.log(compact=False) as log:
        for start in range(0, 40, 10):
            log.record_many("calls", [a_call(n) for n in range(start, start + 10)])
            log.flush()
        assert len(list((tmp_path / "journals" / "calls").iterdir())) == 4
        log.record("calls", a_call(40))
        log.flush()
        events.compact()
        # The one that is written stays.
        assert len(list((tmp_path / "journals" / "calls").iterdir())) == 1
    assert len(read(tmp_path)) == 41


def test_a_log_compacts_in_the_background_when_its_journal_has_grown(tmp_path: Path) -> None:
    events = Events(tmp_path)
    with events.log(compact_bytes=5_000) as log:
        for n in range(200):
            log.record("calls", a_call(n))
            if n % 20 == 0:
                log.flush()
    assert list((tmp_path / "calls").glob("day=*/*.parquet"))
    assert len(read(tmp_path)) == 200
