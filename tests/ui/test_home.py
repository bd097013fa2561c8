"""The gallery and the state of the workspace, for whoever looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.registry.conftest import CLEAR, UNCLEAR, write_run
from workbench import api
from workbench.access import SERVED, Viewer, acting_as
from workbench.errors import AccessDenied, GateRefused
from workbench.registry.promote import promote
from workbench.ui import charts, header, home

VERA = Viewer("vera", frozenset({"viewer"}))
TOM = Viewer("tom <b>", frozenset({"viewer"}), ("acme",))
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)

NOTEBOOK = """# /// script
# [tool.workbench.app]
# summary = "{summary}"
# role = "{role}"
# order = {order}
# ///
import marimo

app = marimo.App(app_title="{title}")
"""


@pytest.fixture
def workspace(tmp_path: Path) -> api.Workspace:
    (tmp_path / "workbench.toml").write_text('name = "test"\n')
    (tmp_path / "notebooks").mkdir()
    apps = [("home", "Home", "viewer", 0), ("plan", "Plan & spend", "editor", 1), ("look", "Look", "viewer", 2)]
    for slug, title, role, order in apps:
        text = NOTEBOOK.format(summary=f"About {slug}.", role=role, order=order, title=title)
        (tmp_path / "notebooks" / f"{slug}.py").write_text(text)
    return api.open(tmp_path)


def test_a_card_for_each_app_that_one_may_open(workspace: api.Workspace) -> None:
    assert [app.slug for app in home.apps_here(workspace.layout)] == ["plan", "look"]
    cards = home.gallery(workspace.layout)._repr_html_()
    assert "Plan &amp; spend" in cards
    assert "About look." in cards
    assert "marimo run notebooks/look.py" in cards
    assert "href" not in cards
    with acting_as(VERA):
        assert "Plan" not in home.gallery(workspace.layout)._repr_html_()


def test_where_apps_are_served_cards_are_links_and_one_can_sign_out(
    workspace: api.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "/signout" not in header.who()._repr_html_()
    monkeypatch.setenv(SERVED, "1")
    with acting_as(TOM):
        assert "href='/look/'" in home.gallery(workspace.layout)._repr_html_()
        assert "marimo run" not in home.gallery(workspace.layout)._repr_html_()
        who = header.who()._repr_html_()
        assert "tom &lt;b&gt;" in who
        assert "viewer · tenants: acme" in who
        assert "action='/signout'" in who
    with pytest.raises(AccessDenied):
        header.who()


def test_somebody_without_a_role_is_told_so(workspace: api.Workspace) -> None:
    with acting_as(Viewer("tess", frozenset())):
        assert "no other app that you may open" in str(home.gallery(workspace.layout))


def test_an_empty_workspace_says_what_to_run(workspace: api.Workspace) -> None:
    state = home.state_of(workspace.layout)
    assert [value for _, value, _ in state.numbers] == ["0", "0", "0", "0"]
    assert "workbench demo --history" in str(home.newest_runs(state))
    assert "workbench demo promotes one" in str(home.newest_versions(state))
    assert isinstance(home.calls_chart(state), charts.Nothing)
    assert "Nothing that was read is damaged" in str(home.troubles(state))
    assert "Nothing was refused" in str(home.troubles(state))
    assert "look: Look. About look." in home.as_text(workspace.layout, state)


def test_the_state_names_runs_versions_and_refusals(workspace: api.Workspace) -> None:
    layout = workspace.layout
    promote(layout, write_run(layout, CLEAR, run_id="run-1"), "greet", "few", alias="staging")
    with pytest.raises(GateRefused):
        promote(layout, write_run(layout, UNCLEAR, run_id="run-2"), "greet", "few", actor="carl")
    (layout.runs / "run-3").mkdir()
    (layout.runs / "run-3" / "run.json").write_text("{")
    state = home.state_of(layout, NOW)
    assert [value for _, value, _ in state.numbers] == ["2", "1", "240", "1"]
    assert "staging" in str(home.newest_versions(state))
    assert "greet" in str(home.newest_runs(state))
    troubles = str(home.troubles(state))
    assert "run-3/run.json is malformed" in troubles
    assert "carl" in troubles
    assert "decision: few and base cannot be told apart" in troubles


def test_made_up_calls_are_called_that(workspace: api.Workspace) -> None:
    with workspace.events().log() as log:
        for number, source in enumerate(["served", "synthetic", "synthetic"]):
            at = NOW.replace(tzinfo=None).isoformat()
            log.record("calls", {"trace_id": f"t{number}", "started_at": at, "source": source})
    state = home.state_of(workspace.layout, NOW)
    assert state.numbers[2][1:] == ("3", "of which 0 failed · $0.00 · 2 made up")
    assert "with made-up ones" in str(home.calls_chart(state).to_dict()["title"])


def test_calls_of_the_last_seven_days_are_those_that_one_may_see(workspace: api.Workspace) -> None:
    with workspace.events().log() as log:
        for number, (tenant, back) in enumerate([("acme", 0), ("acme", 6), ("globex", 1), ("acme", 7)]):
            at = (NOW - timedelta(days=back)).replace(tzinfo=None).isoformat()
            kind = "timeout" if number == 1 else None
            row = {"trace_id": f"t{number}", "tenant": tenant, "started_at": at, "cost_usd": 0.5, "error_kind": kind}
            log.record("calls", row)
    state = home.state_of(workspace.layout, NOW)
    assert state.calls["calls"].to_list() == [1, 0, 0, 0, 0, 1, 1]
    assert state.numbers[2][1:] == ("3", "of which 1 failed · $1.50")
    assert not isinstance(home.calls_chart(state), charts.Nothing)
    assert "2026-01-05" in str(home.calls_table(state))
    with acting_as(TOM):
        state = home.state_of(workspace.layout, NOW)
        assert state.calls["calls"].to_list() == [1, 0, 0, 0, 0, 0, 1]
        assert state.numbers[2][0] == "Calls in 7 days, of your tenants"
