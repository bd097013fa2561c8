"""Events while everything happens at once: writers, compactions, kills, damage and a full disk."""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from tests.events.rows import a_call
from tests.faults.test_disk import small_disk
from tests.workspaces import make_workspace
from workbench.errors import EventsError, WorkbenchWarning
from workbench.events.store import Events

ROOT = Path(__file__).parents[2]
WRITERS, ROWS = 8, 1500
NAMES = "select trace_id from calls"


def start(module: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"tests.events.{module}", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def ended(process: subprocess.Popen[str], *, kill: bool = False) -> int:
    """The exit status of a process that has ended, or is killed now."""
    if kill:
        process.kill()
    status = process.wait()
    assert process.stdout is not None
    process.stdout.close()
    return status


class Acknowledged:
    """What every writer has said is durable, read as it comes."""

    def __init__(self, writers: dict[str, subprocess.Popen[str]]) -> None:
        self.writers = writers
        self.rows = dict.fromkeys(writers, 0)
        self._rest = dict.fromkeys(writers, "")
        for process in writers.values():
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)

    def look(self) -> dict[str, int]:
        for name, process in self.writers.items():
            assert process.stdout is not None
            try:
                text = self._rest[name] + os.read(process.stdout.fileno(), 1 << 16).decode()
            except BlockingIOError:
                continue
            *lines, self._rest[name] = text.split("\n")
            if lines:
                self.rows[name] = int(lines[-1])
        return dict(self.rows)


def check(names: pl.Series, acknowledged: dict[str, int]) -> None:
    """Every row once, and those that were acknowledged before the reading are there."""
    assert names.n_unique() == len(names), names.filter(names.is_duplicated()).unique().to_list()[:5]
    held: dict[str, set[int]] = {}
    for name in names:
        writer, _, number = name.rpartition("-")
        held.setdefault(writer, set()).add(int(number))
    for writer, rows in acknowledged.items():
        assert held.get(writer, set()) >= set(range(rows)), (writer, rows, len(held.get(writer, ())))


@pytest.mark.slow
def test_eight_writers_and_a_compaction_and_every_reader_sees_every_row_once(tmp_path: Path) -> None:
    compactor = start("compactor", tmp_path, 600)
    writers = {f"w{n}": start("recorder", tmp_path, f"w{n}", ROWS, 0.02) for n in range(WRITERS)}
    acknowledged = Acknowledged(writers)
    events, looks = Events(tmp_path), 0
    compacted = set()
    while any(process.poll() is None for process in writers.values()):
        before = acknowledged.look()
        names = events.sql(NAMES)["trace_id"] if looks % 2 else events.frame("calls").collect()["trace_id"]
        check(names, before)
        # A process that begins to read now has kept nothing of earlier journals.
        if looks % 5 == 0:
            check(Events(tmp_path).sql(NAMES)["trace_id"], before)
        looks += 1
        compacted |= set((tmp_path / "calls").glob("day=*/*.parquet"))
    assert [ended(process) for process in writers.values()] == [0] * WRITERS
    ended(compactor, kill=True)
    assert looks > 5
    # Compactions did go on meanwhile.
    assert len(compacted) > 10
    everything = dict.fromkeys(writers, ROWS)
    check(events.sql(NAMES)["trace_id"], everything)
    assert len(events.sql(NAMES)) == WRITERS * ROWS
    Events(tmp_path).compact(few=1, grace_s=0)
    assert len(list((tmp_path / "calls").glob("day=*/*.parquet"))) == 3
    assert list((tmp_path / "journals" / "calls").iterdir()) == []
    check(events.sql(NAMES)["trace_id"], everything)
    assert len(events.sql(NAMES)) == WRITERS * ROWS
    assert not events.problems


@pytest.mark.slow
def test_runs_that_go_on_are_compacted_and_read_with_every_row_once(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "workspace", rows=120)
    command = [sys.executable, "-m", "tests.faults.worker", str(workspace.root)]
    runs = [subprocess.Popen([*command, f"r{n}"], cwd=ROOT, stdout=subprocess.DEVNULL) for n in range(3)]
    events = workspace.events()
    seen, growing = 0, set()
    while any(run.poll() is None for run in runs):
        events.compact(grace_s=5)
        names = events.sql(NAMES)["trace_id"]
        assert names.n_unique() == len(names)
        # No row that was seen is missed later.
        assert len(names) >= seen
        seen = len(names)
        growing.add(seen)
        scores = events.sql("select trace_id, scorer from scores")
        assert scores.is_unique().all()
        assert scores["trace_id"].null_count() == 0
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert len(growing) > 3
    assert len(events.sql(NAMES)) == 3 * 2 * 120


@pytest.mark.slow
def test_killed_writers_lose_nothing_that_was_flushed(tmp_path: Path) -> None:
    chance = random.Random(3)
    acknowledged: dict[str, int] = {}
    events = Events(tmp_path)
    for n in range(10):
        name = f"k{n}"
        writer = start("recorder", tmp_path, name, 100_000)
        told = Acknowledged({name: writer})
        time.sleep(chance.uniform(0.05, 0.4))
        writer.kill()
        writer.wait()
        acknowledged |= told.look()
        ended(writer)
        if n % 3 == 2:
            events.compact(grace_s=0)
    assert any(acknowledged.values())
    check(events.sql(NAMES)["trace_id"], acknowledged)
    events.compact(few=1, grace_s=0)
    check(events.sql(NAMES)["trace_id"], acknowledged)
    # A torn last line was never acknowledged, so nothing is left of the journals of the dead.
    assert list((tmp_path / "journals" / "calls").glob("[!.]*")) == []
    assert not events.problems


@pytest.mark.slow
def test_killed_compactions_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(5)
    events = Events(tmp_path)
    total = 0
    for _ in range(12):
        with events.log(compact=False) as log:
            rows = [a_call(total + n, started_at=f"2026-03-{1 + n % 5:02d}T00:00:00") for n in range(200)]
            log.record_many("calls", rows)
        total += 200
        compactor = start("compactor", tmp_path, 600)
        time.sleep(chance.uniform(0.0, 0.15))
        ended(compactor, kill=True)
        names = events.sql(NAMES)["trace_id"]
        assert (len(names), names.n_unique()) == (total, total)
    events.compact(few=1, grace_s=0)
    assert len(list((tmp_path / "calls").rglob("*.parquet"))) == 5
    # What killed compactions had begun to write is gone.
    assert [path.name for path in (tmp_path / "calls").rglob(".*")] == []
    assert len(events.sql(NAMES)) == total


def test_a_full_disk_tells_the_recorder_and_loses_nothing_that_it_took(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m"):
        events = Events(tmp_path / "disk" / "events")
        log = events.log(compact=False)
        taken = 0

        def record_on() -> None:
            nonlocal taken
            while True:
                log.record("calls", a_call(taken))
                taken += 1
                if taken % 500 == 0:
                    log.flush()

        with pytest.raises(EventsError, match=r"disk is full; \d+ rows wait"):
            record_on()
        with pytest.raises(EventsError, match="disk is full"):
            log.flush()
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "disk")], check=True)
        log.flush()
        log.record("calls", a_call(taken))
        log.close()
        names = events.sql(NAMES)["trace_id"]
        assert sorted(names) == sorted(f"trace-{number}" for number in range(taken + 1))
        assert not events.problems


@pytest.fixture
def compacted(tmp_path: Path) -> Events:
    """Three days of twenty calls each."""
    events = Events(tmp_path)
    with events.log() as log:
        log.record_many("calls", [a_call(n, started_at=f"2026-03-{1 + n % 3:02d}T00:00:00") for n in range(60)])
    events.compact()
    return events


def first_day(events: Events) -> Path:
    [path] = (events.folder / "calls" / "day=2026-03-01").iterdir()
    return path


@pytest.mark.parametrize("damage", ["cut", "emptied", "overwritten", "gone"])
def test_a_damaged_file_is_set_aside_and_named_and_the_rest_answers(compacted: Events, damage: str) -> None:
    path = first_day(compacted)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {"cut": content[:-100], "emptied": b"", "overwritten": content[:100] + bytes(50) + content[150:]}[damage]
        )
    events = Events(compacted.folder)
    with pytest.warns(WorkbenchWarning, match=r"day=2026-03-01.*20 rows are left out"):
        assert len(events.sql(NAMES)) == 40
    assert str(path) in events.problems
    assert len(events.frame("calls").collect()) == 40
    events.compact()
    [aside] = (events.folder / "aside").iterdir()
    assert not path.exists()
    with pytest.warns(WorkbenchWarning, match=r"2026-03-01.*set aside, with 20 rows"):
        assert len(Events(compacted.folder).sql(NAMES)) == 40
    # Who has seen to it deletes the file, and is told no more.
    aside.unlink()
    assert len(Events(compacted.folder).sql(NAMES)) == 40


def test_damage_that_a_file_does_not_show_is_found_by_reading_it_or_by_a_check(compacted: Events) -> None:
    path = first_day(compacted)
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.warns(WorkbenchWarning, match="day=2026-03-01"):
        assert len(compacted.sql("select * from calls")) == 40
    found = Events(compacted.folder).set_aside()
    assert list(found) == [str(path)]
    assert not path.exists()


def test_damage_is_not_copied_into_a_new_file(compacted: Events) -> None:
    path = first_day(compacted)
    times = path.stat()
    # One value of a dictionary is another one now: nothing that reads the file notices.
    content = path.read_bytes()
    path.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with compacted.log(compact=False) as log:
        log.record("calls", a_call(99, started_at="2026-03-01"))
    done = compacted.compact(few=1)
    assert (done["calls"].aside, done["calls"].rows) == (1, 1)
    with pytest.warns(WorkbenchWarning, match="set aside, with 20 rows"):
        assert len(compacted.sql(NAMES)) == 41


def test_a_damaged_line_costs_one_row_and_is_kept_aside(tmp_path: Path) -> None:
    events = Events(tmp_path)
    with events.log(compact=False) as log:
        log.record_many("calls", [a_call(n) for n in range(10)])
    [journal] = (tmp_path / "journals" / "calls").iterdir()
    journal.write_bytes(journal.read_bytes().replace(b'"trace-4"', b'"trace-X"'))
    with pytest.warns(WorkbenchWarning, match="1 damaged lines"):
        assert "trace-4" not in events.sql(NAMES)["trace_id"].to_list()
    done = events.compact()
    assert (done["calls"].rows, done["calls"].damaged_lines) == (9, 1)
    [kept] = (tmp_path / "aside").iterdir()
    assert b"trace-X" in kept.read_bytes()
    with pytest.warns(WorkbenchWarning, match="set aside, with damaged lines"):
        assert len(events.sql(NAMES)) == 9


def test_a_line_that_is_still_being_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    events = Events(tmp_path)
    with events.log(compact=False) as log:
        log.record_many("calls", [a_call(n) for n in range(3)])
    [journal] = (tmp_path / "journals" / "calls").iterdir()
    content = journal.read_bytes()
    journal.write_bytes(content[:-40])
    # As a writer that is at it, which holds the journal's lock.
    with journal.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for _ in range(2):
            assert sorted(events.sql(NAMES)["trace_id"]) == ["trace-0", "trace-1"]
            events.compact()
        file.write(content[-40:])
        file.flush()
        for _ in range(2):
            assert sorted(events.sql(NAMES)["trace_id"]) == ["trace-0", "trace-1", "trace-2"]
            events.compact()
    assert not events.problems


def test_many_damaged_files_are_summed_up(tmp_path: Path) -> None:
    events = Events(tmp_path)
    with events.log() as log:
        log.record_many("calls", [a_call(n, started_at=f"2026-03-{1 + n:02d}T00:00:00") for n in range(20)])
    events.compact()
    for path in tmp_path.glob("calls/day=*/*"):
        path.unlink()
    with pytest.warns(WorkbenchWarning) as told:
        assert len(Events(tmp_path).sql(NAMES)) == 0
    assert len(told) == 6
    assert str(told[-1].message) == "15 more files are damaged or gone; `workbench events check` names them all"


def test_a_disk_that_can_only_be_read_is_checked(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m"):
        events = Events(tmp_path / "disk" / "events")
        with events.log() as log:
            log.record_many("calls", [a_call(n) for n in range(20)])
        events.compact()
        (events.folder / "compact.lock").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        assert Events(events.folder).set_aside() == {}
        assert len(Events(events.folder).sql(NAMES)) == 20
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path / "disk")], check=True)
        [path] = (events.folder / "calls").glob("day=*/*")
        path.write_bytes(path.read_bytes()[:-1])
        (events.folder / "compact.lock").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        # Named, and left where it is.
        assert list(Events(events.folder).set_aside()) == [str(path)]


def test_a_compaction_without_room_says_so_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m"):
        events = Events(tmp_path / "disk" / "events")
        with events.log(compact=False) as log:
            rows = [a_call(n, output=f"{random.Random(n).getrandbits(4000):x}") for n in range(1300)]
            log.record_many("calls", rows)
        with pytest.raises(EventsError, match=r"disk of .* is full; no row is lost. Make room"):
            events.compact()
        assert len(events.sql(NAMES)) == 1300
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "disk")], check=True)
        events.compact()
        assert len(events.sql(NAMES)) == 1300
        assert not events.problems


@pytest.mark.slow
def test_a_history_that_does_not_fit_leaves_nothing_and_is_told_once(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "3m"):
        workspace = make_workspace(tmp_path / "disk" / "workspace")
        command = [sys.executable, "-m", "workbench", "demo", "--history"]
        done = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        [said] = done.stderr.splitlines()
        assert said.startswith("error: the made-up history does not fit")
        assert workspace.sql("select count(*) from calls").item() == 0
        assert not list((workspace.layout.runs.parent / "journals").glob("*/*"))


def test_rows_that_are_lost_at_the_end_of_a_process_are_told_once(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from tests.events.rows import a_call
from workbench.events.store import Events
log = Events(Path(sys.argv[1])).log(compact=False)
log.record_many("calls", [a_call(n, output="x" * 1000) for n in range(2000)])
"""
    with small_disk(tmp_path / "disk", "1m"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "disk")], cwd=ROOT, capture_output=True, text=True, check=False
        )
    [said] = done.stderr.splitlines()
    assert "2000 rows are lost" in said
    assert "disk is full" in said


def test_a_damaged_manifest_is_named(compacted: Events) -> None:
    from workbench.errors import DataError

    path = compacted.folder / "calls" / "manifest.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"manifest.json: is no manifest. `workbench events rebuild`"):
        compacted.sql(NAMES)
    path.write_text(json.dumps({"format_version": 99}))
    with pytest.raises(DataError, match=r"format version 99.*Upgrade"):
        compacted.sql(NAMES)
