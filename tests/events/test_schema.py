"""Rows of older schema versions are brought to today's form when they are read."""

from __future__ import annotations

import json
import zlib
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from tests.events.rows import a_call
from workbench.errors import DataError
from workbench.events.manifest import load_manifest, save_manifest
from workbench.events.parquet import scan
from workbench.events.rows import Call, Score, schema_of
from workbench.events.schema import CALLS, SCORES, TABLES, TIME, AddColumn, ChangeType, RenameColumn, Table
from workbench.events.store import Events
from workbench.events.tail import read_portion
from workbench.files import digest_file

# What `Run.compact` wrote before there were schema versions: a run of three questions to two variants.
STORED = Path(__file__).parent / "files" / "version-0"

# A table that has been changed three times.
CHANGED = Table(
    "calls",
    {"id": pl.String(), "secs": pl.String(), "at": pl.String()},
    (
        (RenameColumn("secs", "seconds"),),
        (ChangeType("seconds", pl.Float64()), ChangeType("at", TIME)),
        (AddColumn("tenant", pl.String(), "nobody"),),
    ),
    time="at",
)
TODAY = {"id": "a", "seconds": 1.5, "at": datetime(2026, 3, 1, 10), "tenant": "nobody"}
STORED_ROWS = [
    {"id": "a", "secs": "1.5", "at": "2026-03-01T12:00:00+02:00"},
    {"id": "a", "seconds": "1.5", "at": "2026-03-01T10:00:00.000000+00:00"},
    {"id": "a", "seconds": 1.5, "at": datetime(2026, 3, 1, 10)},
    TODAY,
]


@pytest.mark.parametrize("version", range(4))
def test_every_version_is_read_as_todays(tmp_path: Path, version: int) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame([STORED_ROWS[version]], schema=CHANGED.columns_of(version)).write_parquet(path)
    rows = scan([path], CHANGED, version, by_day=False).collect()
    assert rows.schema == pl.Schema(CHANGED.columns)
    assert rows.to_dicts() == [TODAY]


@pytest.mark.parametrize("version", range(4))
def test_a_journal_of_every_version_is_read_as_todays(tmp_path: Path, version: int) -> None:
    body = json.dumps(STORED_ROWS[version], default=datetime.isoformat).encode()
    path = tmp_path / f"a.v{version}.jsonl"
    path.write_bytes(b'{"crc":%d,"record":%b}\n' % (zlib.crc32(body), body))
    assert read_portion(path, CHANGED, 0).rows.to_dicts() == [TODAY]


def test_a_value_that_cannot_be_converted_is_null(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame([{"id": "a", "secs": "soon", "at": "?"}], schema=CHANGED.columns_of(0)).write_parquet(path)
    [row] = scan([path], CHANGED, 0, by_day=False).collect().to_dicts()
    assert row == {"id": "a", "seconds": None, "at": None, "tenant": "nobody"}


def test_columns_follow_from_the_migrations() -> None:
    assert list(CHANGED.columns) == ["id", "seconds", "at", "tenant"]
    assert CHANGED.version == 3
    # Version 0 of calls and scores is what runs hold, so whatever a run records has its column.
    assert set(CALLS.columns) == {*schema_of(Call), "source", "artifact", "alias"}
    assert set(SCORES.columns) == {*schema_of(Score), "trace_id", "tenant", "started_at", "source"}
    for table in TABLES.values():
        assert table.columns[table.time] == TIME
        assert {"source", "tenant", *table.required} <= set(table.columns)


def test_calls_of_version_1_have_no_artifact_and_no_alias(tmp_path: Path) -> None:
    assert set(CALLS.columns_of(1)) == {*schema_of(Call), "source"}
    body = json.dumps({"trace_id": "a", "source": "served", "started_at": "2026-03-01T10:00:00"}).encode()
    journal = tmp_path / "journals" / "calls" / "20260301T100000-1-abcd.v1.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b'{"crc":%d,"record":%b}\n' % (zlib.crc32(body), body))
    events = Events(tmp_path)
    with events.log() as log:
        log.record("calls", a_call(1, artifact="greet@2", alias="prod"))
    for _ in range(2):
        rows = events.sql("select trace_id, artifact, alias from calls order by trace_id").rows()
        assert rows == [("a", None, None), ("trace-1", "greet@2", "prod")]
        events.compact()


def test_stored_calls_of_version_0_are_read_and_rewritten_as_todays(tmp_path: Path) -> None:
    stored = pl.read_parquet(STORED / "calls.parquet")
    assert stored.schema["started_at"] == pl.String
    assert "source" not in stored.columns
    events = Events(tmp_path)
    with events.log() as log:
        log.record("calls", a_call(1, started_at=stored["started_at"][0]))
    events.compact()
    # A live file of version 0 beside one of today's.
    day = stored["started_at"][0][:10]
    path = tmp_path / "calls" / f"day={day}" / "old.parquet"
    path.write_bytes((STORED / "calls.parquet").read_bytes())
    manifest = load_manifest(tmp_path, "calls")
    [now] = manifest.files
    found = path.stat()
    old = now.model_copy(
        update={"name": f"day={day}/old.parquet", "version": 0, "rows": len(stored)}
        | {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "digest": digest_file(path)}
    )
    save_manifest(tmp_path, manifest.model_copy(update={"files": (now, old)}))
    asked = "select trace_id, started_at, source from calls where run_id is not null order by trace_id"
    before = events.sql(asked)
    assert len(before) == len(stored) == 6
    assert before["source"].unique().to_list() == ["run"]
    assert before["started_at"].null_count() == 0
    assert events.frame("calls").collect().height == 7
    events.compact(few=1)
    [merged] = load_manifest(tmp_path, "calls").files
    assert (merged.version, merged.rows) == (CALLS.version, 7)
    assert events.sql(asked).equals(before)


def test_rows_from_the_future_are_refused_by_name(tmp_path: Path) -> None:
    events = Events(tmp_path)
    with events.log() as log:
        log.record("calls", a_call(1))
    [journal] = (tmp_path / "journals" / "calls").iterdir()
    future = journal.rename(journal.with_name("later.v9.jsonl"))
    with pytest.raises(DataError, match=r"later\.v9\.jsonl: calls of schema version 9.*Upgrade"):
        events.sql("select * from calls")
    with pytest.raises(DataError, match="version 9"):
        events.compact()
    future.rename(journal)
    events.compact()
    manifest = load_manifest(tmp_path, "calls")
    newer = manifest.files[0].model_copy(update={"version": 9})
    save_manifest(tmp_path, manifest.model_copy(update={"files": (newer,)}))
    with pytest.raises(DataError, match=r"\.parquet: calls of schema version 9.*Upgrade"):
        events.frame("calls")


def test_a_stored_file_says_what_it_is(tmp_path: Path) -> None:
    events = Events(tmp_path)
    with events.log() as log:
        log.record("calls", a_call(1))
    events.compact()
    [path] = tmp_path.glob("calls/day=*/*.parquet")
    assert {"workbench.table": "calls", "workbench.version": str(CALLS.version)}.items() <= pl.read_parquet_metadata(
        path
    ).items()
