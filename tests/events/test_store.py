"""Whatever is recorded, compacted, merged, replaced and removed, in any order, reads back as the plain list."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.events.rows import a_call
from workbench.errors import UsageError
from workbench.events.manifest import load_manifest
from workbench.events.schema import CALLS
from workbench.events.store import Events

START = datetime(2026, 3, 1)


class Shelves:
    """Folders that hold calls, in memory."""

    name = "shelves"
    tables: Mapping[str, str] = {"calls": "run_id"}
    row_source = "run"

    def __init__(self) -> None:
        self.held: dict[str, tuple[int, pl.DataFrame]] = {}
        self._version = 0

    def put(self, name: str, numbers: Sequence[int]) -> None:
        """Replace what a shelf holds."""
        rows = [{"trace_id": f"{name}-{n}", "run_id": name, "source": "run", "started_at": at(n)} for n in numbers]
        # As a time of change: none comes twice.
        self._version += 1
        frame = pl.DataFrame(rows, schema={"trace_id": pl.String, "run_id": pl.String, "source": pl.String} | TIMES)
        self.held[name] = self._version, CALLS.migrate(frame.lazy(), CALLS.version).collect()

    def identities(self) -> dict[str, str]:
        return {name: str(version) for name, (version, _) in self.held.items()}

    def read(self, table: str, ids: Sequence[str]) -> pl.LazyFrame:
        return pl.concat([CALLS.empty().lazy(), *(self.held[name][1].lazy() for name in ids if name in self.held)])

    def portions(self, ids: Sequence[str]) -> Iterator[list[str]]:
        yield from ([name] for name in ids)

    def verify(self, ids: Sequence[str]) -> None:
        """Memory has no damage."""

    def problems(self) -> dict[str, str]:
        return {}


TIMES: dict[str, Any] = {"started_at": pl.Datetime("us")}


def at(number: int) -> datetime:
    return START + timedelta(hours=9 * (number % 7))


class AnySequence(RuleBasedStateMachine):
    """Recorded rows and shelves, against a plain list of them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.shelves = Shelves()
        self.events = Events(self.folder, [self.shelves])
        self.log = self.events.log(compact=False)
        self.recorded: dict[str, str] = {}

    def expected(self) -> list[str]:
        rows = [name for name, source in self.recorded.items() if source != "removed"]
        return sorted(rows + [name for _, held in self.shelves.held.values() for name in held["trace_id"]])

    @rule(count=st.integers(1, 5), synthetic=st.booleans())
    def record(self, count: int, synthetic: bool) -> None:
        source = "synthetic" if synthetic else "served"
        numbers = range(len(self.recorded), len(self.recorded) + count)
        self.log.record_many("calls", [a_call(n, started_at=at(n), source=source) for n in numbers])
        self.log.flush()
        self.recorded |= {f"trace-{n}": source for n in numbers}

    @rule()
    def begin_another_journal(self) -> None:
        self.log.close()
        self.log = self.events.log(compact=False)

    @rule(few=st.sampled_from([1, 2, 4]), folders=st.booleans(), grace=st.sampled_from([0.0, 1e6]))
    def compact(self, few: int, folders: bool, grace: float) -> None:
        self.events.compact(few=few, folders=folders, grace_s=grace)

    @rule(name=st.sampled_from("xyz"), numbers=st.lists(st.integers(0, 20), unique=True, max_size=5))
    def fill_shelf(self, name: str, numbers: list[int]) -> None:
        self.shelves.put(name, numbers)

    @rule(name=st.sampled_from("xyz"))
    def drop_shelf(self, name: str) -> None:
        self.shelves.held.pop(name, None)

    @rule()
    def remove_synthetic(self) -> None:
        gone = {name for name, source in self.recorded.items() if source == "synthetic"}
        here = len(gone & set(self.events.frame("calls").collect()["trace_id"]))
        assert self.events.remove("calls", pl.col("source") == "synthetic") == here
        # Numbers go on, so that no name comes twice.
        self.recorded |= dict.fromkeys(gone, "removed")

    @rule()
    def read_in_another_process(self) -> None:
        self.events = Events(self.folder, [self.shelves])

    @invariant()
    def every_row_is_there_once(self) -> None:
        expected = self.expected()
        rows = self.events.frame("calls").collect()
        assert sorted(rows["trace_id"]) == expected
        assert rows["day"].to_list() == rows["started_at"].dt.date().to_list()
        asked = self.events.sql("select trace_id, source from calls")
        assert sorted(asked["trace_id"]) == expected
        assert not self.events.problems

    def teardown(self) -> None:
        self.log.close()
        # In the end there is one file a day, and what was replaced is gone.
        self.events.compact(few=1, grace_s=0)
        self.every_row_is_there_once()
        found = list((self.folder / "calls").glob("day=*/*"))
        assert len(found) == len({path.parent for path in found}) == len(load_manifest(self.folder, "calls").files)
        assert not list((self.folder / "journals").glob("*/*"))
        shutil.rmtree(self.folder)


TestAnySequence = pytest.mark.slow(AnySequence.TestCase)
TestAnySequence.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_files_are_sorted_by_time_within_days(tmp_path: Path) -> None:
    events = Events(tmp_path)
    with events.log() as log:
        log.record_many(
            "calls", [a_call(n, started_at=START + timedelta(minutes=37 * (n * 7 % 60))) for n in range(60)]
        )
    events.compact()
    files = load_manifest(tmp_path, "calls").files
    assert [file.day for file in files] == ["2026-03-01", "2026-03-02"]
    for file in files:
        times = pl.read_parquet(tmp_path / "calls" / file.name)["started_at"]
        assert times.is_sorted()
        assert (file.rows, file.first, file.last) == (len(times), str(times[0]), str(times[-1]))


def test_replaced_files_stay_for_those_who_still_read_them(tmp_path: Path) -> None:
    events = Events(tmp_path)
    with events.log(compact=False) as log:
        log.record("calls", a_call(1, started_at=START))
        log.flush()
        events.compact()
        connection, frame = events.connection(), events.frame("calls")
        log.record("calls", a_call(2, started_at=START))
    events.compact(few=1)
    # The first, the second, and the one of both.
    assert len(list(tmp_path.glob("calls/day=*/*"))) == 3
    # As of when they were made.
    assert connection.execute("select count(*) from calls").fetchall() == [(1,)]
    assert len(frame.collect()) == 1
    assert len(events.sql("select * from calls")) == 2
    connection.close()
    events.compact(few=1, grace_s=0)
    assert len(list(tmp_path.glob("calls/day=*/*"))) == 1


def test_one_compacts_at_a_time(tmp_path: Path) -> None:
    from workbench.events.compact import exclusively

    events = Events(tmp_path)
    with events.log(compact=False) as log:
        log.record("calls", a_call(1))
    with exclusively(tmp_path, wait=True):
        assert events.compact(wait=False) == {}
    assert events.compact(wait=False)["calls"].rows == 1


def test_rows_of_runs_cannot_be_removed_but_recorded_ones_can(tmp_path: Path) -> None:
    shelves = Shelves()
    shelves.put("x", [1, 2, 3])
    events = Events(tmp_path, [shelves])
    with events.log() as log:
        log.record_many("calls", [a_call(n, started_at=at(n)) for n in range(4)])
    assert events.remove("calls", pl.col("started_at") >= START) == 4
    assert sorted(events.sql("select trace_id from calls")["trace_id"]) == ["x-1", "x-2", "x-3"]
    assert events.remove("calls", pl.lit(True)) == 0
    with pytest.raises(UsageError, match="no events are called 'call'"):
        events.remove("call", pl.lit(True))


def test_what_is_filtered_is_not_read(tmp_path: Path) -> None:
    events = Events(tmp_path)
    with events.log() as log:
        log.record_many("calls", [a_call(n, started_at=START + timedelta(days=n)) for n in range(30)])
    events.compact()
    wanted = events.frame("calls").filter(pl.col("day") == START.date()).select("model")
    # The files of other days are not opened at all.
    for path in tmp_path.glob("calls/day=*/*"):
        if "2026-03-01" not in path.parent.name:
            path.unlink()
    assert wanted.collect().to_dicts() == [{"model": "instant"}]
