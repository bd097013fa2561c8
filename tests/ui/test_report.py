"""Pictures and the report, also where there is nothing to show and where data tries to be HTML."""

from __future__ import annotations

import html

from tests.workspaces import make_experiment
from workbench import api
from workbench.ui import charts
from workbench.ui.lab import Choices, Problem, disagreements, safely
from workbench.ui.report import html_report


def test_the_report_has_the_decision_pictures_and_rows(workspace: api.Workspace) -> None:
    run = make_experiment(workspace).run()
    comparison = run.compare()
    page = html_report(run, comparison, workspace.gate(run, variant="loud", over="quiet"))
    assert html.escape(comparison.decision("loud").sentence) in page
    assert page.count("<svg") >= 2
    assert "question 7 word7" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_what_comes_from_a_run_is_escaped(workspace: api.Workspace) -> None:
    run = make_experiment(workspace, name="<script>alert(1)</script>").run()
    assert "<script>" not in html_report(run, run.compare())


def test_the_difference_plot_has_a_point_for_each_quality_scorer(workspace: api.Workspace) -> None:
    comparison = make_experiment(workspace).run().compare()
    rows = charts.difference_plot(comparison).to_dict()["layer"][1]["data"]["values"]
    assert [row["scorer"] for row in rows] == ["exact"]
    assert rows[0]["difference"] < 0


def test_without_a_closed_set_of_targets_it_says_so(workspace: api.Workspace) -> None:
    chart = charts.accuracy_by_target(make_experiment(workspace).run(), "exact")
    assert isinstance(chart, charts.Nothing)
    assert "no small set" in str(chart)


def test_disagreements_can_be_narrowed(workspace: api.Workspace) -> None:
    comparison = make_experiment(workspace).run().compare()
    assert "32 rows" in str(disagreements(comparison, "loud", change="broke", limit=50))
    assert "8 rows" in str(disagreements(comparison, "loud", change="fixed"))


def test_an_error_is_shown_not_raised() -> None:
    problem = safely(lambda: Choices.from_arguments({"limt": 3}))
    assert isinstance(problem, Problem)
    assert not problem
    assert "--limit" in problem._repr_html_()
