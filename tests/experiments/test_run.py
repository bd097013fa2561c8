"""Runs on disk: one that cannot be read is named, and the others are there."""

from __future__ import annotations

import pytest

from tests.workspaces import make_experiment
from workbench import api
from workbench.errors import NotFoundError, RunError, WorkbenchWarning


def test_a_malformed_run_is_named_and_the_others_are_listed_and_gone_on_with(workspace: api.Workspace) -> None:
    experiment = make_experiment(workspace)
    run = experiment.run(show_progress=False)
    broken = workspace.layout.runs / "20260101-000000-broken-0000"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    with pytest.warns(WorkbenchWarning, match=r"broken-0000/run\.json is malformed"):
        assert [found.id for found in workspace.runs()] == [run.id]
    with pytest.warns(WorkbenchWarning, match="malformed"):
        assert experiment.run(show_progress=False).id == run.id
    with pytest.raises(RunError, match="malformed"):
        workspace.run(broken.name)


def test_a_run_is_not_looked_for_elsewhere(workspace: api.Workspace) -> None:
    make_experiment(workspace).run(show_progress=False)
    for name in ("../runs", "..", "/", "."):
        with pytest.raises(NotFoundError):
            workspace.run(name)
