"""A manifest that is lost, cut off or put back from a backup, at any time, costs no row and doubles none."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.events.rows import a_call
from tests.events.test_store import START, AnySequence, Shelves
from workbench.errors import DataError, EventsError, WorkbenchWarning
from workbench.events import compact, days, rebuild
from workbench.events.commit import list_files
from workbench.events.manifest import load_manifest, manifest_path
from workbench.events.parquet import write_day
from workbench.events.store import Events


class Killed(BaseException):
    """A process ends here."""


@contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """End whatever compacts or rebuilds after so many writes, renames and deletions."""
    left = steps

    def stepping(work: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return work(*arguments, **options)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(days, "write_day", stepping(write_day))
        for module in (days, compact, rebuild):
            patch.setattr(module, "save_manifest", stepping(module.save_manifest))
        patch.setattr(Path, "unlink", stepping(Path.unlink))
        patch.setattr(rebuild, "_set_aside", stepping(rebuild._set_aside))
        with suppress(Killed):
            yield


class WorstDay(AnySequence):
    """As any sequence, while manifests get lost and compactions are killed."""

    def __init__(self) -> None:
        super().__init__()
        self.path = manifest_path(self.folder, "calls")
        self.backups: list[bytes] = []

    @rule(steps=st.integers(0, 8), grace=st.sampled_from([0.0, 1e6]))
    def kill_a_compaction(self, steps: int, grace: float) -> None:
        with killed_after(steps):
            self.events.compact(few=1, grace_s=grace)

    @rule()
    def back_up(self) -> None:
        if self.path.exists():
            self.backups.append(self.path.read_bytes())

    @rule(steps=st.integers(0, 40))
    def lose_the_manifest(self, steps: int) -> None:
        self.path.unlink(missing_ok=True)
        self.seen_by_readers()
        self.rebuild(steps)

    @precondition(lambda self: self.path.exists())
    @rule(size=st.floats(0, 0.99), steps=st.integers(0, 40))
    def cut_the_manifest_off(self, size: float, steps: int) -> None:
        content = self.path.read_bytes()
        self.path.write_bytes(content[: int(len(content) * size)])
        with pytest.raises(DataError, match=r"is no manifest.*workbench events rebuild"):
            Events(self.folder, [self.shelves]).frame("calls")
        with pytest.raises(DataError, match="is no manifest"):
            self.events.compact()
        self.rebuild(steps)

    @precondition(lambda self: self.backups)
    @rule(data=st.data(), steps=st.integers(0, 40))
    def put_an_older_manifest_back(self, data: st.DataObject, steps: int) -> None:
        self.path.write_bytes(data.draw(st.sampled_from(self.backups)))
        self.seen_by_readers()
        self.rebuild(steps)

    def seen_by_readers(self) -> None:
        """Every row once, before anything is put right; the last rows that were removed may be there again."""
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            names = sorted(Events(self.folder, [self.shelves]).frame("calls").collect()["trace_id"])
        removed = {name for name, source in self.recorded.items() if source == "removed"}
        assert [name for name in names if name not in removed] == self.expected()
        assert len(names) == len(set(names))

    def rebuild(self, steps: int) -> None:
        with killed_after(steps):
            self.events.rebuild()
        self.events.rebuild()

    def teardown(self) -> None:
        self.log.close()
        self.events.compact(few=1, grace_s=0)
        self.every_row_is_there_once()
        found = list_files(self.folder, "calls")
        assert len(found) == len({name[:14] for name in found}) == len(load_manifest(self.folder, "calls").files)
        assert not (self.folder / "aside").exists()
        shutil.rmtree(self.folder)


TestWorstDay = pytest.mark.slow(WorstDay.TestCase)
TestWorstDay.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)


@pytest.fixture
def events(tmp_path: Path) -> Events:
    """Three days of calls, compacted in two steps; what was replaced and the journals are gone."""
    found = Events(tmp_path)
    for part in range(2):
        with found.log(compact=False) as log:
            numbers = range(30 * part, 30 * part + 30)
            log.record_many("calls", [a_call(n, started_at=START + timedelta(days=n % 3)) for n in numbers])
        found.compact(few=1, grace_s=0)
    return found


def names(events: Events) -> list[str]:
    return sorted(events.sql("select trace_id from calls")["trace_id"])


@pytest.mark.filterwarnings("ignore::workbench.errors.WorkbenchWarning")
@pytest.mark.slow
@pytest.mark.parametrize("disaster", ["none", "lost", "older"])
def test_wherever_a_compaction_is_killed_every_row_is_there_once(tmp_path: Path, disaster: str) -> None:
    for steps in range(12):
        folder = tmp_path / str(steps)
        path = manifest_path(folder, "calls")
        events = Events(folder)
        log = events.log(compact=False)
        older = b""
        for part in range(3):
            numbers = range(6 * part, 6 * part + 6)
            log.record_many("calls", [a_call(n, started_at=START + timedelta(days=n % 3)) for n in numbers])
            log.flush()
            if part == 2:
                if steps % 2:
                    log.close()
                with killed_after(steps):
                    events.compact(few=1, grace_s=0)
            else:
                events.compact(grace_s=0)
                older = older or path.read_bytes()
        expected = sorted(f"trace-{n}" for n in range(18))
        assert names(events) == expected
        if disaster == "lost":
            path.unlink()
        elif disaster == "older":
            path.write_bytes(older)
        assert names(Events(folder)) == expected
        if disaster != "none":
            events.rebuild()
        assert names(events) == expected
        log.close()
        events.compact(few=1, grace_s=0)
        assert names(events) == expected
        assert not (folder / "aside").exists()


def test_removed_rows_stay_away_without_a_manifest(events: Events) -> None:
    assert events.remove("calls", pl.col("trace_id").is_not_null()) == 60
    manifest_path(events.folder, "calls").unlink()
    assert events.rebuild()["calls"].rows == 0
    assert names(events) == []


def test_a_lost_manifest_is_named_stops_compactions_and_is_made_again(events: Events) -> None:
    path, before = manifest_path(events.folder, "calls"), names(events)
    files, known = list_files(events.folder, "calls"), load_manifest(events.folder, "calls")
    path.unlink()
    fresh = Events(events.folder)
    with pytest.warns(
        WorkbenchWarning, match=r"manifest.json is gone, and 3 files are there.*workbench events rebuild"
    ):
        assert names(fresh) == before
    assert list(fresh.problems) == [str(path)]
    assert list(fresh.set_aside()) == [str(path)]
    with pytest.raises(EventsError, match=r"manifest.json is gone.*workbench events rebuild"):
        fresh.compact()
    with pytest.raises(EventsError, match=r"manifest\.json is gone"):
        fresh.remove("calls", pl.lit(True))
    assert list_files(events.folder, "calls") == files
    done = fresh.rebuild()["calls"]
    assert (done.files, done.rows, done.missing, done.aside) == (3, 60, (), ())
    assert load_manifest(events.folder, "calls").files == known.files
    assert names(fresh) == before
    assert not fresh.problems
    assert fresh.set_aside() == {}
    assert fresh.rebuild()["calls"].files is None


def test_an_older_manifest_is_noticed_and_does_not_lead_to_deletions(events: Events) -> None:
    path = manifest_path(events.folder, "calls")
    older = path.read_bytes()
    for part in range(2):
        with events.log(compact=False) as log:
            log.record_many("calls", [a_call(100 + 10 * part + n, started_at=START) for n in range(10)])
        events.compact(few=1, grace_s=0)
    before, files = names(events), list_files(events.folder, "calls")
    path.write_bytes(older)
    with pytest.warns(WorkbenchWarning, match=r"manifest.json is older than the files.*workbench events rebuild"):
        assert names(Events(events.folder)) == before
    with pytest.raises(EventsError, match="is older than the files"):
        events.compact()
    assert list_files(events.folder, "calls") == files
    events.rebuild()
    assert names(events) == before


def test_the_manifest_of_a_moment_ago_is_noticed_once_the_journals_are_gone(events: Events) -> None:
    path = manifest_path(events.folder, "calls")
    older = path.read_bytes()
    with events.log(compact=False) as log:
        log.record_many("calls", [a_call(100 + n, started_at=START + timedelta(days=n)) for n in range(3)])
    events.compact(grace_s=0)
    before = names(events)
    path.write_bytes(older)
    with pytest.warns(WorkbenchWarning, match="is older than the files"):
        assert names(Events(events.folder)) == before
    with pytest.raises(EventsError, match="is older than the files"):
        events.compact()
    # Of the files that came with it one is gone too: the others count.
    [lost, *_] = [name for name in list_files(events.folder, "calls") if name not in older.decode()]
    (events.folder / "calls" / lost).unlink()
    assert events.rebuild()["calls"].missing == (lost,)
    assert len(names(events)) == len(before) - 1


def test_files_that_come_back_from_a_backup_do_not_double_rows(events: Events, tmp_path_factory: Any) -> None:
    backup = tmp_path_factory.mktemp("backup") / "calls"
    shutil.copytree(events.folder / "calls", backup)
    with events.log(compact=False) as log:
        log.record_many("calls", [a_call(100 + n, started_at=START) for n in range(10)])
    events.compact(few=1, grace_s=0)
    before = names(events)
    shutil.copytree(backup, events.folder / "calls", dirs_exist_ok=True)
    with pytest.raises(EventsError, match="is older than the files"):
        events.compact()
    assert events.rebuild()["calls"].rows == 70
    assert names(events) == before
    assert not events.problems


def test_a_file_that_nothing_explains_is_moved_aside_and_not_deleted(events: Events) -> None:
    day = events.folder / "calls" / "day=2026-03-01"
    [path] = day.iterdir()
    shutil.copy(path, day / "mine.parquet")
    before = names(events)
    assert events.compact()["calls"].aside == 1
    [kept] = (events.folder / "aside").iterdir()
    assert kept.name == "calls-2026-03-01-mine.parquet"
    with pytest.warns(WorkbenchWarning, match="set aside, with 20 rows of 2026-03-01"):
        assert names(Events(events.folder)) == before


def test_what_is_missing_is_said_by_a_rebuild(events: Events) -> None:
    [path] = (events.folder / "calls" / "day=2026-03-02").iterdir()
    path.unlink()
    manifest_path(events.folder, "calls").unlink()
    done = events.rebuild()["calls"]
    assert (done.rows, done.missing) == (40, (f"day=2026-03-02/{path.name}",))


def test_a_live_file_that_cannot_be_read_is_set_aside_by_a_rebuild(events: Events) -> None:
    [path] = (events.folder / "calls" / "day=2026-03-02").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    manifest_path(events.folder, "calls").unlink()
    done = events.rebuild()["calls"]
    assert (done.rows, done.aside) == (40, (f"calls-2026-03-02-{path.name}",))
    assert not path.exists()


def test_rows_of_runs_are_not_made_recorded_ones(tmp_path: Path) -> None:
    shelves = Shelves()
    shelves.put("x", [1, 2, 3])
    events = Events(tmp_path, [shelves])
    events.compact()
    shelves.put("y", [4, 5])
    events.compact()
    manifest_path(tmp_path, "calls").unlink()
    with pytest.raises(EventsError, match="holds rows of runs"):
        Events(tmp_path).rebuild()
    assert events.rebuild()["calls"].rows == 5
    assert names(events) == ["x-1", "x-2", "x-3", "y-4", "y-5"]
