"""The made-up history: marked in every row, the same each time, there once, and gone without a trace."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from tests.events.rows import a_call
from workbench import api
from workbench.analytics.synthetic import DAYS, INCIDENT, MODELS, make_history, remove_history, write_history
from workbench.cli.main import app
from workbench.events.store import Events

LAST = date(2026, 3, 31)
COUNTS = (
    "select (select count(*) from calls) as calls, (select count(*) from scores) as scores,"
    " (select count(*) from feedback) as feedback"
)


@pytest.fixture
def events(tmp_path: Path) -> Events:
    return Events(tmp_path)


def test_it_is_the_same_for_the_same_seed_and_day() -> None:
    first = make_history(LAST, days=3)
    assert first == make_history(LAST, days=3)
    assert first != make_history(LAST, days=3, seed=8)


def test_every_row_is_marked_and_it_comes_and_goes_without_touching_others(events: Events) -> None:
    with events.log() as log:
        log.record_many("calls", [a_call(n) for n in range(20)])
        # Made up by somebody else.
        log.record("calls", a_call(99, source="synthetic"))
        log.record("feedback", {"trace_id": "trace-1", "rating": 1})
    made = write_history(events, last=LAST, days=4)
    assert min(made.values()) > 0
    assert events.sql(COUNTS).row(0) == (made["calls"] + 21, made["scores"], made["feedback"] + 1)
    for table in made:
        rows = events.frame(table).filter(pl.col("trace_id").str.starts_with("demo-")).collect()
        assert len(rows) == made[table]
        assert rows["source"].unique().to_list() == ["synthetic"]
    # Again, also with more days, and it is there once.
    again = write_history(events, last=LAST, days=5)
    assert events.sql(COUNTS).row(0) == (again["calls"] + 21, again["scores"], again["feedback"] + 1)
    assert remove_history(events) == again
    assert events.sql(COUNTS).row(0) == (21, 0, 1)
    assert remove_history(events) == {"calls": 0, "scores": 0, "feedback": 0}


@pytest.mark.slow
def test_ninety_days_show_what_there_is_to_find(events: Events) -> None:
    made = write_history(events, last=LAST)
    assert 50_000 <= made["calls"] <= 100_000
    days = events.sql("select day, count(*) as n, count(error_kind) as errors from calls group by day order by day")
    assert len(days) == DAYS
    weekend = pl.col("day").dt.weekday() > 5
    assert days.filter(weekend)["n"].mean() < 0.5 * days.filter(~weekend)["n"].mean()  # type: ignore[operator]
    worst = days.sort("errors", descending=True).row(0, named=True)
    assert (LAST - worst["day"]).days == INCIDENT
    quality = events.sql(
        "select c.model, avg(value) as q, avg(cost_usd) as cost from calls c join scores s using (trace_id)"
        " where scorer = 'exact' group by all order by cost"
    )
    assert quality["model"].to_list() == [model.name for model in MODELS]
    assert quality["q"][0] == quality["q"].min()
    # One is dearer and worse than another.
    assert quality["q"][2] < quality["q"][1]
    price = events.sql(
        "select tokens_in, avg(cost_usd) filter (day < $at) > avg(cost_usd) filter (day > $at) as fell from calls"
        " where model = 'large-70b' and cost_usd > 0 and tokens_in between 200 and 210 group by all",
        {"at": date(2026, 2, 18)},
    )
    assert price["fell"].all()
    slower = events.sql(
        "select median(latency_s) filter (day > $late) / median(latency_s) filter (day < $early) from calls"
        " where model = 'medium-8b' and not cached",
        {"late": date(2026, 3, 25), "early": date(2026, 3, 1)},
    ).item()
    assert slower > 1.5
    pairs = events.sql(
        "select count(*) from calls a join calls b on a.input = b.input and a.trace_id <> b.trace_id"
        " where a.model = 'small-1b' and b.model = 'large-70b'"
    ).item()
    assert pairs > 500


@pytest.mark.slow
def test_the_command_writes_it_and_takes_it_out(workspace: api.Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.root)
    runner = CliRunner()
    found = runner.invoke(app, ["demo", "--history"])
    assert found.exit_code == 0, found.output
    assert "made-up calls" in found.output
    told = json.loads(runner.invoke(app, ["demo", "--remove-history", "--json"]).output)
    assert told["removed"] is True
    assert told["calls"] > 50_000
    assert workspace.sql(COUNTS).row(0) == (0, 0, 0)


@pytest.mark.parametrize("words", [["--history", "--remove-history"], ["--json"]])
def test_options_that_exclude_each_other_are_refused(words: list[str]) -> None:
    found = CliRunner().invoke(app, ["demo", *words])
    assert found.exit_code != 0
    assert found.exception is not None
