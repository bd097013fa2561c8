"""What the cost and quality app shows, held against the rows it comes from."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.events.rows import a_call
from tests.workspaces import ROWS, make_experiment
from workbench import access, api
from workbench.analytics.synthetic import write_history
from workbench.errors import UsageError
from workbench.ui.charts import Nothing
from workbench.ui.cost_quality import Board, Choices, Store
from workbench.ui.cost_quality_charts import PICK
from workbench.ui.cost_quality_clicks import Picked
from workbench.ui.cost_quality_plans import budget, models_to_mix, what_if

pytest.importorskip("altair")

LAST = date(2026, 3, 20)
TODAY = LAST + timedelta(days=1)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> api.Workspace:
    """Forty days of the made-up history."""
    folder: Path = tmp_path_factory.mktemp("history")
    (folder / "workbench.toml").write_text('format_version = 1\nmodel = "instant"\n')
    workspace = api.open(folder)
    write_history(workspace.events(), last=LAST, days=40)
    return workspace


@pytest.fixture
def board(history: api.Workspace) -> Board:
    return board_of(history)


def board_of(workspace: api.Workspace, period: str = "14 days", **chosen: tuple[str, ...]) -> Board:
    return Store(workspace.layout, today=TODAY).board(period, chosen, "exact")


def values(chart: Any) -> list[dict[str, Any]]:
    """The rows of a chart's first layer."""
    found: dict[str, Any] = chart.to_dict()
    layer = found.get("layer", [found])[0]
    rows: list[dict[str, Any]] = layer.get("data", found.get("data"))["values"]
    return rows


def test_the_headline_counts_what_the_rows_say(history: api.Workspace, board: Board) -> None:
    rows = history.frame("calls").filter(pl.col("day") > LAST - timedelta(days=14)).collect()
    said = str(board.headline())
    assert f"{len(rows):,}" in said
    assert f"${rows['cost_usd'].sum():,.2f}" in said
    assert f"{rows['error_kind'].count() / len(rows):.2%}" in said
    assert "against the 14 days before" in said
    # Half of the period before lies before the first call.
    assert "nothing before to compare with" in str(board_of(history, "30 days").headline())


def test_bars_of_a_day_add_up_and_a_filter_leaves_its_own(history: api.Workspace, board: Board) -> None:
    rows = history.frame("calls").filter(pl.col("day") == LAST).collect()
    bars = [row for row in values(board.cost_by_day()) if row["date"] == str(LAST)]
    assert sum(row["cost"] for row in bars) == pytest.approx(rows["cost_usd"].sum())
    one = board_of(history, tenant=("acme",), model=("small-1b", "large-70b"))
    bars = [row for row in values(one.cost_by_day()) if row["date"] == str(LAST)]
    mine = rows.filter((pl.col("tenant") == "acme") & pl.col("model").is_in(["small-1b", "large-70b"]))
    assert {row["model"] for row in bars} == {"small-1b", "large-70b"}
    assert sum(row["n"] for row in bars) == len(mine)
    # A model keeps its colour whatever is filtered.
    assert set(one.colours.items()) <= set(board.colours.items())


def test_the_front_and_the_quality_come_from_the_scores(history: api.Workspace, board: Board) -> None:
    scores = history.frame("scores").filter(pl.col("scorer") == "exact", pl.col("day") > LAST - timedelta(days=14))
    calls = history.frame("calls").select("trace_id", "model")
    means = dict(scores.join(calls, on="trace_id").group_by("model").agg(pl.col("value").mean()).collect().iter_rows())
    found = {row["model"]: row for row in values(board.quality())}
    assert {name: row["value"] for name, row in found.items()} == pytest.approx(means)
    assert all(row["low"] < row["value"] < row["high"] for row in found.values())
    points = board.pareto_rows()
    assert points["front"].any()
    assert not points["front"].all()
    cheapest = points.sort("x").row(0, named=True)
    assert cheapest["front"]
    assert cheapest["model"] == "small-1b"


def test_tables_stand_behind_every_picture(board: Board) -> None:
    for name in board.divisions:
        table = board.table(name)
        assert len(table) > 0
    assert board.table("tenant")["calls"].sum() == board.table("day")["calls"].sum()
    with pytest.raises(UsageError, match="not divided by 'colour'"):
        board.table("colour")


def test_a_click_leads_to_its_calls(board: Board) -> None:
    class Chart:
        def __init__(self, **picked: list[str]) -> None:
            self.selections = {PICK: {"vlPoint": {}, **picked}}

    picked = Picked.of([Chart(day=[str(LAST)], model=["large-70b"]), Chart(), Nothing("empty")])
    assert picked == Picked(str(LAST), "large-70b")
    calls = board.calls(picked)
    assert 0 < len(calls) <= 100
    assert calls["model"].unique().to_list() == ["large-70b"]
    assert calls["time"].str.starts_with(str(LAST)).all()
    assert calls["time"].is_sorted(descending=True)
    assert Picked.of([Chart(day=["2026-03-01"])], day="2026-03-02").day == "2026-03-02"
    errors = board.calls(Picked(), errors=True)
    assert errors["error"].null_count() == 0
    assert str(Picked()) == "the whole period"


def test_the_budget_says_whether_it_will_do(board: Board) -> None:
    said, chart = budget(board, 0)
    assert "spent in March so far" in str(said)
    assert len(chart.to_dict()["layer"]) == 3
    assert "will be exceeded" in str(budget(board, 0.5)[0])
    assert "will do" in str(budget(board, 10_000)[0])
    # A month that is over is told, not projected.
    later = Board(board.questions, board.colours, date(2026, 5, 2))
    assert "which is over" in str(budget(later, 0.5)[0])


def test_the_what_if_rests_on_what_both_models_answered(history: api.Workspace, board: Board) -> None:
    models = models_to_mix(board)
    assert (models[0], models[-1]) == ("small-1b", "large-70b")
    said, chart = what_if(board, "small-1b", "large-70b", 0.6)
    assert "scored inputs that both answered" in str(said)
    assert len(chart.to_dict()["hconcat"]) == 2
    said, _ = what_if(board, "small-1b", "medium-8b", 0.6)
    assert "exchangeable" in str(said)
    for second in ("small-1b", None):
        assert "takes two models" in str(what_if(board, "small-1b", second, 0.6)[0])


def test_made_up_rows_are_announced_and_can_be_left_out(history: api.Workspace, workspace: api.Workspace) -> None:
    store = Store(history.layout, today=TODAY)
    assert "Made-up rows" in str(store.notice(shown=True))
    assert "Made-up" not in str(store.notice(shown=False))
    with pytest.raises(UsageError, match="no call is left"):
        store.board("7 days", {}, "exact", synthetic=False)
    with workspace.events().log() as log:
        log.record_many("calls", [a_call(n, source="synthetic" if n < 10 else "served") for n in range(30)])
    mixed = Store(workspace.layout)
    assert "20 others are real" in str(mixed.notice(shown=True))
    real = mixed.board("7 days", {}, synthetic=False)
    assert real.table("source")["source"].to_list() == ["served"]
    assert real.table("source")["calls"].sum() == 20


def test_an_empty_workspace_says_what_to_run(workspace: api.Workspace) -> None:
    store = Store(workspace.layout)
    assert not store
    assert "workbench demo --history" in str(store.nothing_yet())


def test_a_run_of_a_local_model_costs_nothing_and_shows_seconds(workspace: api.Workspace) -> None:
    make_experiment(workspace).run()
    store = Store(workspace.layout)
    assert store.scorers == ["exact"]
    board = store.board("30 days", {}, store.scorer(""))
    assert board.table("environment")["environment"].to_list() == ["quiet-or-loud"]
    assert sorted(board.table("prompt")["prompt"]) == ["quiet-or-loud · loud", "quiet-or-loud · quiet"]
    assert "median seconds a call" in str(board.pareto().to_dict())
    assert "no call cost money" in str(board.headline())
    assert f"{2 * ROWS:,}" in str(board.headline())
    said, chart = budget(board, 5)
    assert "No call cost money" in str(said)
    assert str(chart) == ""
    assert "calls of 1 day." in str(store.notice(shown=True))


def test_calls_without_scores_texts_or_prices_are_shown_as_they_are(workspace: api.Workspace) -> None:
    bare = {"trace_id": "t1", "error_kind": "timeout"}
    with workspace.events().log() as log:
        log.record("calls", bare)
        log.record("calls", bare | {"trace_id": "t2", "error_kind": None, "latency_s": 0.5})
    store = Store(workspace.layout)
    board = store.board("everything", {}, store.scorer("exact"))
    assert "no scores" in str(board.headline())
    assert [isinstance(chart, Nothing) for chart in board.pictures()] == [False, True, False, True]
    assert models_to_mix(board) == []
    assert board.table("model")["model"].to_list() == ["unknown"]
    assert len(board.table("model and prompt")) == 0


def test_nobody_sees_the_rows_of_other_tenants(history: api.Workspace) -> None:
    with access.acting_as(access.Viewer("ann", frozenset({"viewer"}), ("acme",))):
        store = Store(history.layout, today=TODAY)
        assert store.options()["tenant"][1] == ["acme"]
        board = store.board("14 days", {"tenant": ("globex", "acme")}, "exact")
        assert board.table("tenant")["tenant"].to_list() == ["acme"]
        assert board.calls(Picked())["tenant"].unique().to_list() == ["acme"]
        mine = board.table("tenant")["calls"].sum()
    every = board_of(history).table("tenant")
    assert mine == every.filter(tenant="acme")["calls"].item()
    with access.acting_as(access.Viewer("bob", frozenset({"viewer"}), ())):
        assert not Store(history.layout)


def test_a_period_that_there_is_not_is_refused() -> None:
    assert Choices().period == "30 days"
    with pytest.raises(UsageError, match="no period of 8 days"):
        _ = Choices(days=8).period
