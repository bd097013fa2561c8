"""What the cost and quality app shows, held against the rows it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
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
from workbench.ui.cost_quality_clicks import Picked, as_csv, extent
from workbench.ui.cost_quality_plans import budget, models_to_mix, what_if

pytest.importorskip("altair")

LAST = date(2026, 3, 20)
NOW = datetime(2026, 3, 21, tzinfo=UTC)


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
    return Store(workspace.layout, now=NOW).board(period, chosen, "exact")


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
    assert "is exceeded already" in str(budget(board, 0.5)[0])
    assert "will be exceeded" in str(budget(board, 15)[0])
    assert "may be exceeded" in str(budget(board, 20)[0])
    assert "will do" in str(budget(board, 10_000)[0])
    # A month that is over is told, not projected.
    later = Board(board.questions, board.colours, datetime(2026, 5, 2, tzinfo=UTC))
    assert "which is over. That is over the budget" in str(budget(later, 0.5)[0])


def spending_of(workspace: api.Workspace, dollars: Mapping[date, float], now: datetime) -> Board:
    """The board of a workspace with one call a day, of so many dollars."""
    with workspace.events().log() as log:
        for n, (day, cost) in enumerate(dollars.items()):
            log.record("calls", a_call(n, cost_usd=cost, started_at=datetime.combine(day, time(1), UTC)))
    return Store(workspace.layout, now=now).board("30 days", {})


def test_what_was_spent_today_counts_and_can_exceed_the_budget(workspace: api.Workspace) -> None:
    """29 days at a dollar, and 501 dollars today: the budget is exceeded, whatever the hour."""
    today = date(2026, 11, 28)
    spent = {today - timedelta(days=n): 1.0 for n in range(29, 0, -1)} | {today: 501.0}
    board = spending_of(workspace, spent, datetime(2026, 11, 28, 12, tzinfo=UTC))
    said, chart = budget(board, 100)
    assert "$528.00 spent in November so far" in str(said)
    # Half of today and two days, a dollar each.
    assert "By its end $530.50 is likely" in str(said)
    assert "The budget of $100.00 is exceeded already" in str(said)
    lines = [layer for layer in chart.to_dict()["layer"] if layer["mark"]["type"] == "line"]
    assert lines[-1]["data"]["values"][-1] == {"date": str(today), "day": str(today), "value": 528.0, "kind": "spent"}


@pytest.mark.parametrize(("hour", "left"), [(0, 1.0), (6, 0.75), (18, 0.25)])
def test_of_today_what_is_left_is_projected(workspace: api.Workspace, hour: int, left: float) -> None:
    today = date(2026, 11, 30)
    spent = {today - timedelta(days=n): 2.0 for n in range(29, -1, -1)}
    board = spending_of(workspace, spent, datetime(2026, 11, 30, hour, tzinfo=UTC))
    said = str(budget(board, 1000)[0])
    assert "$60.00 spent in November so far" in said
    assert f"By its end ${60 + 2 * left:,.2f} is likely" in said
    assert "will do" in said


def test_a_budget_that_is_spent_is_exceeded_though_nothing_can_be_projected(workspace: api.Workspace) -> None:
    today = date(2026, 11, 28)
    board = spending_of(workspace, {today: 7.0}, datetime(2026, 11, 28, 9, tzinfo=UTC))
    assert "exceeded already. Three whole days are needed" in str(budget(board, 5)[0])
    assert "exceeded" not in str(budget(board, 0)[0])


def test_every_picture_of_made_up_calls_says_so(history: api.Workspace, board: Board, workspace: api.Workspace) -> None:
    pictures = [*board.pictures(), budget(board, 0)[1], what_if(board, "small-1b", "large-70b", 0.6)[1]]
    for chart in pictures:
        assert "with made-up calls" in str(chart.to_dict()["title"])
    with workspace.events().log() as log:
        log.record_many("calls", [a_call(n, cost_usd=0.5) for n in range(20)])
    real = Store(workspace.layout).board("7 days", {})
    assert "made-up" not in str(real.cost_by_day().to_dict())


def test_the_calls_that_are_not_in_the_table_are_counted(history: api.Workspace, board: Board) -> None:
    rows = history.frame("calls").filter(pl.col("day") > LAST - timedelta(days=14)).collect()
    said = str(extent(board, Picked()))
    assert f"The latest 100 of {len(rows):,} calls" in said
    one = rows.filter(pl.col("model") == "large-70b", pl.col("day") == LAST)
    picked = Picked(str(LAST), "large-70b")
    assert board.count(picked) == len(one)
    assert board.count(picked, errors=True) == one["error_kind"].count()
    few = Picked(str(LAST), "large-70b", str(board.calls(picked)["prompt"][0]))
    assert board.count(few) == len(board.calls(few)) < 100
    assert str(extent(board, few)) == ""


def test_a_text_is_no_formula_of_a_spreadsheet() -> None:
    texts = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "a=b", "", None]
    found = pl.read_csv(as_csv(pl.DataFrame({"answer": texts, "seconds": [-1.5] * 8})))
    assert found["answer"].to_list() == ["'=HYPERLINK(1)", "'+1", "'-1", "'@SUM(1)", "'\t=1", "a=b", "", None]
    assert found["seconds"].to_list() == [-1.5] * 8


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
    store = Store(history.layout, now=NOW)
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
        store = Store(history.layout, now=NOW)
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
