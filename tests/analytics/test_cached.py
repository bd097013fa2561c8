"""Results that are kept: asked once, for those who may see them, until the events change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.events.rows import a_call
from tests.instant import InstantEngine
from tests.workspaces import make_experiment, make_workspace
from workbench import access, api
from workbench.analytics.cached import Results, cached_sql
from workbench.analytics.open import open_events
from workbench.errors import UsageError
from workbench.events.store import Events

COUNT = "select count(*) as n from calls"


@pytest.fixture
def asked(workspace: api.Workspace, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries that reach the store."""
    found: list[str] = []
    sql = Events.sql

    def counted(self: Events, query: str, *rest: Any, **options: Any) -> pl.DataFrame:
        found.append(query)
        return sql(self, query, *rest, **options)

    monkeypatch.setattr(Events, "sql", counted)
    return found


@pytest.fixture
def results() -> Results:
    return Results(fresh_s=0.0)


def record(workspace: api.Workspace, *numbers: int, table: str = "calls") -> None:
    with workspace.events().log(compact=False) as log:
        rows = [a_call(n) if table == "calls" else {"trace_id": f"trace-{n}", "rating": 1} for n in numbers]
        log.record_many(table, rows)


def test_a_query_is_asked_once_until_rows_come_or_are_compacted_away(
    workspace: api.Workspace, results: Results, asked: list[str]
) -> None:
    def count() -> int:
        return int(results.sql(workspace.layout, COUNT, tenants=None).item())

    record(workspace, 1, 2, 3)
    assert [count(), count(), len(asked)] == [3, 3, 1]
    record(workspace, 4)
    assert [count(), count(), len(asked)] == [4, 4, 2]
    # Rows of another table change nothing.
    record(workspace, 4, table="feedback")
    assert [count(), len(asked)] == [4, 2]
    workspace.events().compact()
    assert count() == 4
    workspace.events().remove("calls", pl.col("trace_id") == "trace-4")
    assert count() == 3


def test_runs_and_artifacts_are_looked_at_too(workspace: api.Workspace, results: Results, asked: list[str]) -> None:
    def runs() -> int:
        return int(results.sql(workspace.layout, "select count(*) from runs", tenants=None).item())

    assert runs() == 0
    run = make_experiment(workspace).run()
    assert [runs(), runs(), len(asked)] == [1, 1, 2]
    (run.folder / "run.json").write_text("{")
    assert runs() == 0
    artifacts = "select count(*) from artifacts"
    assert results.sql(workspace.layout, artifacts, tenants=None).item() == 0
    assert results.sql(workspace.layout, artifacts, tenants=None).item() == 0
    assert asked.count(artifacts) == 1


def test_parameters_and_tenants_have_results_of_their_own(workspace: api.Workspace, asked: list[str]) -> None:
    record(workspace, 1, 2, 3)

    def count(*tenants: str) -> int:
        with access.acting_as(access.Viewer("ann", frozenset({"viewer"}), tenants or None)):
            return int(cached_sql(workspace.layout, COUNT).item())

    assert [count(), count("acme"), count("globex"), count("acme", "globex"), count("nobody")] == [3, 2, 1, 3, 0]
    assert [count("globex", "acme"), count("acme", "acme")] == [3, 2]
    assert len(asked) == 5
    typed = "select typeof($value) as kind"
    kinds = [cached_sql(workspace.layout, typed, value=value).item() for value in (1, 1.0, True, "1")]
    assert len(set(kinds)) == 4
    with access.acting_as(access.Viewer("bob", frozenset({"viewer"}), ())):
        assert cached_sql(workspace.layout, COUNT).item() == 0
        with pytest.raises(UsageError):
            cached_sql(workspace.layout, "select * from runs")


def test_the_workspace_asks_for_whoever_acts(workspace: api.Workspace) -> None:
    record(workspace, 1, 2, 3)
    with access.acting_as(access.Viewer("ann", frozenset({"viewer"}), ("acme",))):
        assert workspace.sql(COUNT).item() == 2
        assert workspace.frame("calls").collect()["tenant"].unique().to_list() == ["acme"]
        with workspace.duckdb() as connection:
            assert connection.sql(COUNT).fetchall() == [(2,)]
    assert workspace.sql(COUNT).item() == 3


def test_two_workspaces_do_not_mix(tmp_path: Path, instant: InstantEngine, results: Results) -> None:
    one, two = (make_workspace(tmp_path / name) for name in ("one", "two"))
    record(one, 1)
    found = [int(results.sql(workspace.layout, COUNT, tenants=None).item()) for workspace in (one, two)]
    assert found == [1, 0]


def test_thirty_who_ask_at_once_are_answered_by_one_query(
    workspace: api.Workspace, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, running = threading.Event(), []

    def slow(query: str, *rest: Any, **options: Any) -> pl.DataFrame:
        running.append(query)
        assert gate.wait(30)
        return pl.DataFrame({"n": [7]})

    monkeypatch.setattr(open_events(workspace.layout), "sql", slow)
    with ThreadPoolExecutor(30) as pool:
        waiting = [pool.submit(results.sql, workspace.layout, COUNT, tenants=None) for _ in range(30)]
        gate.set()
        assert [one.result().item() for one in waiting] == [7] * 30
    assert len(running) == 1


@pytest.mark.parametrize("error", [UsageError("no"), KeyboardInterrupt()])
def test_an_error_is_not_kept(
    workspace: api.Workspace, results: Results, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    answers: list[Callable[[], pl.DataFrame]] = []

    def failing() -> pl.DataFrame:
        raise error

    answers += [failing, lambda: pl.DataFrame({"n": [1]})]
    monkeypatch.setattr(open_events(workspace.layout), "sql", lambda *rest, **options: answers.pop(0)())
    with pytest.raises(type(error)):
        results.sql(workspace.layout, COUNT, tenants=None)
    assert results.sql(workspace.layout, COUNT, tenants=None).item() == 1


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(workspace: api.Workspace, asked: list[str]) -> None:
    results = Results(most_bytes=400_000, fresh_s=0.0)
    queries = [f"select {n} as n, range as r from range(5000)" for n in range(12)]
    for query in queries:
        results.sql(workspace.layout, query, tenants=None)
        assert 0 < results.size <= 400_000
    results.sql(workspace.layout, queries[-1], tenants=None)
    assert len(asked) == 12
    results.sql(workspace.layout, queries[0], tenants=None)
    assert len(asked) == 13
    # One that alone takes more than a quarter is given back and not kept.
    before = results.size
    assert len(results.sql(workspace.layout, "select range from range(50000)", tenants=None)) == 50_000
    assert results.size == before
    results.clear()
    assert results.size == 0


def test_a_result_that_is_changed_is_not_changed_for_the_next(workspace: api.Workspace, results: Results) -> None:
    first = results.sql(workspace.layout, "select 1 as n", tenants=None)
    first.insert_column(1, pl.Series("more", [2]))
    assert results.sql(workspace.layout, "select 1 as n", tenants=None).columns == ["n"]


def test_the_store_is_looked_at_once_a_second(workspace: api.Workspace, asked: list[str]) -> None:
    now = [100.0]
    results = Results(fresh_s=1.0, clock=lambda: now[0])
    record(workspace, 1)
    assert results.sql(workspace.layout, COUNT, tenants=None).item() == 1
    record(workspace, 2)
    now[0] += 0.5
    assert results.sql(workspace.layout, COUNT, tenants=None).item() == 1
    now[0] += 0.6
    assert results.sql(workspace.layout, COUNT, tenants=None).item() == 2
