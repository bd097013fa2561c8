"""The views of a workspace: its runs, whatever becomes of their folders, and its artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.analytics.many_runs import write_runs
from tests.events.rows import a_call
from tests.instant import InstantEngine
from tests.workspaces import ROWS, make_experiment
from workbench import api
from workbench.analytics.run_folders import RunFolders
from workbench.analytics.views import RUNS, RunsView
from workbench.errors import WorkbenchWarning
from workbench.events.manifest import load_manifest
from workbench.events.store import Events

CALLS = 2 * ROWS
COUNT = "select count(*) as n, count(distinct trace_id) as traces from calls"


def test_calls_and_scores_of_a_run_are_there_before_and_after_a_compaction(workspace: api.Workspace) -> None:
    run = make_experiment(workspace).run()
    asked = (
        "select s.scorer, s.variant, avg(s.value) as mean, count(c.trace_id) as calls, min(s.day) as day, s.source"
        " from scores s join calls c using (trace_id) group by all order by all"
    )
    before = workspace.sql(asked)
    assert before["calls"].to_list() == [ROWS] * 4
    assert before["source"].unique().to_list() == ["run"]
    done = workspace.events().compact()
    assert (done["calls"].rows, done["scores"].rows) == (CALLS, 2 * CALLS)
    assert workspace.sql(asked).equals(before)
    # The run's own folder stays as it was.
    assert len(workspace.run(run.id).calls()) == CALLS
    assert workspace.events().compact()["calls"].rows == 0


def test_a_run_that_goes_on_after_its_compaction_has_every_row_once(
    workspace: api.Workspace, instant: InstantEngine
) -> None:
    instant.failing = {"word7", "word8"}
    stopped = make_experiment(workspace).run()
    failed = workspace.sql("select count(*) from calls where error_kind is not null").item()
    assert failed == 4
    workspace.events().compact()
    instant.failing = set()
    run = make_experiment(workspace).run()
    assert run.id == stopped.id
    for _ in range(2):
        assert workspace.sql(COUNT).row(0) == (CALLS, CALLS)
        assert workspace.sql("select count(*) from calls where error_kind is not null").item() == 0
        assert workspace.sql("select count(*) from scores").item() == 2 * CALLS
        frame = workspace.frame("calls").collect()
        assert frame["trace_id"].n_unique() == len(frame) == CALLS
        workspace.events().compact(grace_s=0)


def test_an_unfinished_run_is_read_from_its_journal(workspace: api.Workspace, instant: InstantEngine) -> None:
    instant.breaking = 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.experiments.run.Run.compact", lambda self, at: None)
        make_experiment(workspace).run()
    assert workspace.sql(COUNT).row(0) == (CALLS, CALLS)
    assert workspace.sql("select complete from runs").item() is False
    workspace.events().compact()
    assert workspace.sql(COUNT).row(0) == (CALLS, CALLS)
    instant.breaking = None
    make_experiment(workspace).run()
    assert workspace.sql(COUNT).row(0) == (CALLS, CALLS)
    assert workspace.sql("select complete from runs").item() is True


def test_rows_of_a_run_go_with_its_folder(workspace: api.Workspace) -> None:
    run = make_experiment(workspace).run()
    with workspace.events().log() as log:
        log.record_many("calls", [a_call(n) for n in range(5)])
    workspace.events().compact()
    shutil.rmtree(run.folder)
    assert workspace.sql(COUNT).row(0) == (5, 5)
    workspace.events().compact()
    assert workspace.sql(COUNT).row(0) == (5, 5)
    assert workspace.sql("select * from runs").height == 0


def test_one_row_a_run(workspace: api.Workspace) -> None:
    run = make_experiment(workspace).run()
    [row] = workspace.sql("select * from runs").to_dicts()
    assert list(row) == list(RUNS)
    assert (row["run_id"], row["experiment"], row["dataset"]) == (run.id, "quiet-or-loud", "questions")
    assert (row["variants"], row["models"]) == (["quiet", "loud"], ["instant"])
    assert (row["rows"], row["calls"], row["complete"]) == (ROWS, CALLS, True)
    assert row["finished_at"] >= row["started_at"]
    (run.folder / "run.json").write_text("{")
    assert workspace.sql("select * from runs").height == 0
    assert workspace.events().problems[str(run.folder / "run.json")].startswith("is malformed")


def test_one_row_a_version_of_an_artifact(workspace: api.Workspace, tmp_path: Path) -> None:
    run = make_experiment(workspace).run()
    policy = tmp_path / "lenient.toml"
    policy.write_text('format_version = 1\n[decision]\nminimum = "better"\nmin_rows = 10\n')
    made = workspace.promote(run, "voice", variant="quiet", over="loud", alias="staging", policy=policy)
    [row] = workspace.sql(
        "select a.*, r.experiment from artifacts a join runs r using (run_id) where list_contains(aliases, 'staging')"
    ).to_dicts()
    assert (row["name"], row["version"], row["digest"], row["variant"]) == ("voice", 1, made.digest, "quiet")
    assert (row["decision"], row["experiment"]) == ("better", "quiet-or-loud")


def test_a_damaged_run_is_named_and_the_rest_answers(workspace: api.Workspace) -> None:
    run = make_experiment(workspace).run()
    other = make_experiment(workspace, name="other").run()
    path = run.folder / "calls.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.warns(WorkbenchWarning, match=r"calls\.parquet is no Parquet file"):
        assert workspace.sql("select distinct run_id from calls")["run_id"].to_list() == [other.id]
    assert str(path) in workspace.events().problems
    workspace.events().compact()
    assert workspace.sql(COUNT).row(0) == (CALLS, CALLS)
    # Restored, it is back.
    shutil.copy(other.folder / "calls.parquet", path)
    assert workspace.sql("select count(*) from calls").item() == 2 * CALLS


def test_damage_inside_a_runs_file_is_found_when_it_is_read(workspace: api.Workspace) -> None:
    run = make_experiment(workspace).run()
    other = make_experiment(workspace, name="other").run()
    path = run.folder / "calls.parquet"
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[200:half] = bytes(half - 200)
    path.write_bytes(content)
    with pytest.warns(WorkbenchWarning, match=r"calls\.parquet cannot be read"):
        assert workspace.sql("select run_id, max(input) from calls group by all")["run_id"].to_list() == [other.id]


def test_rows_that_were_in_a_damaged_file_are_read_from_their_run_again(workspace: api.Workspace) -> None:
    make_experiment(workspace).run()
    with workspace.events().log() as log:
        log.record_many("calls", [a_call(n) for n in range(5)])
    workspace.events().compact(few=1)
    folder = workspace.layout.runs.parent
    [file] = load_manifest(folder, "calls").files
    path = folder / "calls" / file.name
    path.write_bytes(path.read_bytes()[:-10])
    # The recorded ones were only there.
    with pytest.warns(WorkbenchWarning, match="85 rows are left out"):
        assert workspace.sql(COUNT).row(0) == (CALLS, CALLS)
    workspace.events().compact(few=1)
    with pytest.warns(WorkbenchWarning, match="set aside, with 85 rows"):
        assert workspace.sql(COUNT).row(0) == (CALLS, CALLS)
    assert workspace.sql("select count(*) from scores").item() == 2 * CALLS


def test_a_run_that_is_damaged_inside_does_not_stop_a_compaction(workspace: api.Workspace) -> None:
    run = make_experiment(workspace).run()
    make_experiment(workspace, name="other").run()
    path = run.folder / "calls.parquet"
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[200:half] = bytes(half - 200)
    path.write_bytes(content)
    workspace.events().compact()
    with pytest.warns(WorkbenchWarning, match=r"calls\.parquet cannot be read"):
        assert workspace.sql(COUNT).row(0) == (CALLS, CALLS)


@pytest.mark.slow
def test_ten_thousand_runs_that_were_never_compacted_answer_and_become_few_files(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", 10_000)
    events = Events(tmp_path, [RunFolders(tmp_path / "runs")])
    events.views["runs"] = RunsView(tmp_path / "runs", lambda: events.frame("calls"))
    asked = (
        "select count(*) as n, count(distinct c.run_id) as runs, sum(value) as score"
        " from calls c join scores using (trace_id)"
    )
    before = events.sql(asked)
    assert before.row(0) == (20_000, 10_000, 10_000.0)
    events.compact(few=1)
    assert len(load_manifest(tmp_path, "calls").files) == len(load_manifest(tmp_path, "scores").files) == 28
    assert len(events.frame("calls").filter(pl.col("day") == pl.date(2026, 1, 1)).collect()) > 100
    assert events.sql(asked).equals(before)
    assert events.sql("select count(*) from runs where complete").item() == 10_000
