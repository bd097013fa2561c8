"""Every run in one table, what a run decided, two runs side by side, and whose texts a person sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.registry.conftest import CLEAR, UNCLEAR, write_run
from workbench.access import SERVED, Viewer, acting_as
from workbench.errors import AccessDenied, ComparisonError, RunError, UsageError
from workbench.experiments.run import Run
from workbench.registry.promote import promote
from workbench.ui import experiments_app, experiments_app_run
from workbench.ui.experiments_app import compared, find_runs, labels, open_run, place_of, run_table, search
from workbench.ui.experiments_app_rows import hidden_note, visible, with_visible_rows
from workbench.workspace import Layout

TOM = Viewer("tom", frozenset({"viewer"}), ("acme",))
VERA = Viewer("vera", frozenset({"viewer"}))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "workbench.toml").write_text('name = "test"\n')
    return Layout.find(tmp_path)


def of_tenants(call: dict[str, Any]) -> dict[str, Any]:
    """Rows in turn of acme, of globex and of nobody, with the tenant in their texts."""
    tenant = ("acme", "globex", None)[int(call["row_id"][4:]) % 3]
    return call | {"tenant": tenant, "input": json.dumps({"text": f"secret of {tenant}"})}


def started(hour: int) -> dict[str, Any]:
    return {"started_at": f"2026-01-02T{hour:02}:00:00+00:00", "finished_at": f"2026-01-02T{hour:02}:02:00+00:00"}


def test_an_empty_workspace_has_no_runs_and_says_what_to_do(layout: Layout) -> None:
    runs = find_runs(layout)
    assert (runs.ids, runs.datasets, runs.problems, runs.notice) == ([], [], {}, "")
    assert len(run_table(layout, search(runs, "anything"))) == 0
    said = str(experiments_app.nothing_yet())
    assert "workbench demo" in said
    # That records calls, and makes no run.
    assert "--history" not in said


def test_runs_are_listed_newest_first_with_what_they_decided(layout: Layout) -> None:
    write_run(layout, CLEAR, run_id="run-a", changes=started(1))
    write_run(layout, UNCLEAR, run_id="run-b", changes=started(2) | {"dataset": "farewells"})
    write_run(layout, {"few": [True] * 5}, run_id="run-c", changes=started(3))
    table = run_table(layout, find_runs(layout).rows)
    told = table.select("run", "data set", "decision", "state", "rows", "cost", "duration").rows()
    assert told == [
        ("run-c", "greetings", "one variant", "complete", 5, "$0", "2 min"),
        ("run-b", "farewells", "inconclusive", "complete", 60, "$0", "2 min"),
        ("run-a", "greetings", "better", "complete", 60, "$0", "2 min"),
    ]
    assert place_of(table, "run-a", False) == [2]
    assert place_of(table, "gone", False) is None
    assert place_of(table, "", True) == [0]


def test_decisions_that_would_take_too_long_wait_until_a_run_is_opened(layout: Layout) -> None:
    write_run(layout, CLEAR)
    rows = find_runs(layout).rows
    assert run_table(layout, rows, seconds=0)["decision"].to_list() == ["open to see"]
    assert run_table(layout, rows)["decision"].to_list() == ["better"]
    assert run_table(layout, rows, seconds=0)["decision"].to_list() == ["better"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("", 2), ("GREET", 2), ("tiny few", 2), ("farewells", 1), ("run-a", 1), ("few nonsense", 0), ("(", 0)],
)
def test_every_word_must_be_somewhere(layout: Layout, text: str, found: int) -> None:
    write_run(layout, CLEAR, run_id="run-a")
    write_run(layout, CLEAR, run_id="run-b", changes={"dataset": "farewells"})
    assert len(search(find_runs(layout), text)) == found


def test_data_set_and_state_are_filters(layout: Layout) -> None:
    write_run(layout, CLEAR, run_id="run-a")
    write_run(layout, CLEAR, run_id="run-b", changes={"dataset": "farewells", "finished_at": None})
    runs = find_runs(layout)
    assert runs.datasets == ["farewells", "greetings"]
    assert search(runs, dataset="greetings")["run_id"].to_list() == ["run-a"]
    assert search(runs, state="unfinished")["run_id"].to_list() == ["run-b"]
    assert run_table(layout, search(runs, state="unfinished"))["decision"].to_list() == ["not finished"]


def test_a_run_whose_journal_grows_is_running(layout: Layout) -> None:
    run = write_run(layout, CLEAR, changes={"finished_at": None})
    run.journal.touch()
    now = run.journal.stat().st_mtime
    assert find_runs(layout, now=now + 1).rows["state"].to_list() == ["running"]
    assert find_runs(layout, now=now + 1000).rows["state"].to_list() == ["unfinished"]


def test_calls_that_failed_show_in_the_state(layout: Layout) -> None:
    write_run(layout, CLEAR, edit=lambda call: call | {"error_kind": "engine" if call["row_id"] == "row-001" else None})
    runs = find_runs(layout)
    assert runs.rows.select("state", "failed").rows() == [("with errors", 2)]


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_listed(layout: Layout) -> None:
    write_run(layout, CLEAR, run_id="run-a")
    (layout.runs / "run-b").mkdir()
    (layout.runs / "run-b" / "run.json").write_text("{")
    runs = find_runs(layout)
    assert runs.ids == ["run-a"]
    assert "run-b/run.json is malformed; the run is left out" in runs.notice


@pytest.mark.filterwarnings("ignore::workbench.errors.WorkbenchWarning")
def test_a_damaged_file_makes_its_run_a_damaged_one(layout: Layout) -> None:
    write_run(layout, CLEAR, run_id="run-a")
    bad = write_run(layout, CLEAR, run_id="run-b")
    (bad.folder / "calls.parquet").write_bytes(b"no parquet at all")
    runs = find_runs(layout)
    states = dict(runs.rows.select("run_id", "state").iter_rows())
    assert states == {"run-a": "complete", "run-b": "damaged"}
    assert "run-b/calls.parquet" in runs.notice
    with pytest.raises(RunError, match=r"calls\.parquet cannot be read"):
        compared(open_run(layout, runs, "run-b"))
    decided = dict(run_table(layout, runs.rows).select("run", "decision").iter_rows())
    assert decided["run-b"].startswith("none: ")


@pytest.mark.parametrize("name", ["../run-a", "run-", "", "/etc"])
def test_only_a_run_that_was_found_is_opened(layout: Layout, name: str) -> None:
    write_run(layout, CLEAR, run_id="run-a")
    with pytest.raises(UsageError, match="there is no run"):
        open_run(layout, find_runs(layout), name)


def test_a_run_says_where_it_came_from_and_what_became_of_it(layout: Layout) -> None:
    run = write_run(layout, CLEAR)
    assert "no artifact yet" in str(experiments_app_run.origin(layout, run))
    promote(layout, run, "greet", "few", alias="staging")
    told = str(experiments_app_run.origin(layout, run))
    for part in (
        "greet@1 (few, staging)",
        "notebooks/greet.py, not kept",
        "c0ffee",
        "workbench run greet.yaml",
        "tiny",
    ):
        assert part in told
    assert "few is better than base" in str(experiments_app_run.conclusion(run))
    assert "60 rows of greetings, split test" in str(experiments_app_run.heading(run))


def test_a_comparison_is_made_once_until_its_files_change(layout: Layout) -> None:
    run = write_run(layout, CLEAR)
    assert compared(run) is compared(Run(run.folder))
    old = compared(run)
    pl.read_parquet(run.folder / "scores.parquet").with_columns(value=1.0).write_parquet(run.folder / "scores.parquet")
    assert compared(Run(run.folder)) is not old


def test_a_run_of_one_variant_and_an_unfinished_one_say_so(layout: Layout) -> None:
    one = write_run(layout, {"few": [True] * 5}, run_id="run-a")
    assert "one variant, few" in str(experiments_app_run.conclusion(one))
    going = write_run(layout, CLEAR, run_id="run-b", changes={"finished_at": None})
    assert "has not ended" in str(experiments_app_run.conclusion(going))


def test_two_runs_are_compared_on_what_they_share(layout: Layout) -> None:
    earlier = write_run(layout, CLEAR, run_id="run-a")
    later = write_run(layout, UNCLEAR, run_id="run-b")
    found = experiments_app_run.across(later, earlier, "few", "few")
    said = str(experiments_app_run.shared_note(found))
    assert "60 rows are paired" in said
    assert "same version of the data set" in said
    assert "few (run-b) is worse than few (run-a)" in said
    alone = write_run(layout, CLEAR, run_id="run-c", edit=lambda call: call | {"row_id": "other-" + call["row_id"]})
    with pytest.raises(ComparisonError, match="no row in common"):
        experiments_app_run.across(alone, earlier, "few", "few")


def test_runs_of_the_same_data_set_are_offered_first(layout: Layout) -> None:
    for name, dataset in (("run-a", "greetings"), ("run-b", "farewells"), ("run-c", "greetings")):
        write_run(layout, CLEAR, run_id=name, changes={"dataset": dataset})
    offered = labels(find_runs(layout).rows, without=["run-c"], first="farewells")
    assert list(offered.values()) == ["run-b", "run-a"]


def test_a_person_of_one_tenant_sees_the_texts_of_no_other(layout: Layout) -> None:
    comparison = write_run(layout, CLEAR, edit=of_tenants).compare()
    with acting_as(TOM):
        assert set(visible(comparison.calls)["tenant"]) == {"acme"}  # type: ignore[arg-type]
        shown = str(experiments_app_run.differing(comparison, "few"))
        assert "secret of acme" in shown
        assert "globex" not in shown
        assert "secret of None" not in shown
        assert "20 further rows are of other tenants" in shown
        # What the numbers say is the whole team's.
        assert with_visible_rows(comparison).rows == comparison.rows
    with acting_as(VERA):
        shown = str(experiments_app_run.differing(comparison, "few"))
        assert "secret of globex" in shown
        assert hidden_note(comparison, "few") == ""


def test_a_person_of_no_tenant_sees_no_text(layout: Layout) -> None:
    comparison = write_run(layout, CLEAR, edit=of_tenants).compare()
    with acting_as(Viewer("nobody", frozenset({"viewer"}), ())):
        assert "secret" not in str(experiments_app_run.differing(comparison, "few"))


def test_texts_across_runs_are_divided_by_tenant_too(layout: Layout) -> None:
    earlier = write_run(layout, CLEAR, run_id="run-a", edit=of_tenants)
    later = write_run(layout, UNCLEAR, run_id="run-b", edit=of_tenants)
    with acting_as(TOM):
        found = experiments_app_run.across(later, earlier, "few", "few")
        assert "globex" not in str(experiments_app_run.differing(found.comparison, found.comparison.variants[0]))


def test_where_apps_are_served_nobody_unknown_sees_anything(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = write_run(layout, CLEAR).compare()
    monkeypatch.setenv(SERVED, "1")
    for look in (lambda: find_runs(layout), lambda: visible(comparison.calls)):  # type: ignore[arg-type]
        with pytest.raises(AccessDenied):
            look()
    with acting_as(Viewer("tess", frozenset())), pytest.raises(AccessDenied, match="takes the role viewer"):
        find_runs(layout)
