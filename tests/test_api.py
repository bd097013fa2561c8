"""The public names, and the path from an experiment to an artifact, without a real model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import workbench
from tests.finetune.small import make_layout, make_recipe
from tests.workspaces import make_experiment
from workbench import api
from workbench.errors import GateRefused, NotFoundError, UsageError, WorkspaceError


def test_every_public_name_is_there() -> None:
    for name in workbench.__all__:
        assert getattr(workbench, name) is not None
    assert set(workbench.__all__) <= set(dir(workbench))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        workbench.nothing_like_it  # noqa: B018


def test_without_a_workspace_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="workbench init"):
        workbench.open(tmp_path)


def test_from_an_experiment_to_a_refusal_and_to_an_artifact(workspace: api.Workspace, tmp_path: Path) -> None:
    run = make_experiment(workspace).run()
    decision = run.compare().decision("loud")
    assert decision.outcome == "worse"
    with pytest.raises(GateRefused, match="worse"):
        workspace.promote(run, "voice", variant="loud", alias="staging")
    assert workspace.artifacts() == []
    policy = tmp_path / "lenient.toml"
    policy.write_text('format_version = 1\n[decision]\nminimum = "better"\nmin_rows = 10\n')
    artifact = workspace.promote(run, "voice", variant="quiet", over="loud", alias="staging", policy=policy)
    assert artifact.version == 1
    artifact.verify()
    assert workspace.artifact("voice@staging").pipeline()(text="so it goes") == "goes"
    assert workspace.promote(run, "voice", variant="quiet", over="loud", policy=policy).digest == artifact.digest


@pytest.mark.slow
def test_from_a_recipe_to_an_adapter_that_answers(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "workspace")
    workspace = api.open(layout.root)
    recipe = make_recipe(layout)
    plan = workspace.plan_finetune(recipe, pilot=False, max_steps=2)
    assert (plan.fits, plan.steps, plan.train_rows) == (True, 2, 48)
    result = workspace.finetune(recipe, max_steps=2, show_progress=False)
    assert result.steps == 2
    assert workspace.finetune(recipe, max_steps=2, show_progress=False).id == result.id
    again = workspace.finetune(recipe, max_steps=2, fresh=True, show_progress=False)
    assert again.adapter.digest == result.adapter.digest
    tuned = workbench.Pipeline(model=recipe.model, prompt=recipe.prompt, adapter=result.adapter.digest)
    assert isinstance(tuned(text="der"), str)
    with pytest.raises(UsageError, match=r"colours: settings\.rank"):
        workspace.plan_finetune(recipe, rank=0)
    with pytest.raises(NotFoundError, match="no fine-tuning recipe 'triage'"):
        workspace.finetune("triage")


def test_without_the_model_the_command_says_what_to_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workbench", "demo"]
    empty = {"WORKBENCH_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=empty, capture_output=True, text=True)
    assert done.returncode == 1
    assert "workbench model pull smollm2-135m" in done.stderr
    assert "Traceback" not in done.stderr
