"""`workbench finetune`: from a file to an adapter, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.finetune.small import PROMPT, make_layout, model_of
from tests.models.tiny import make_adapter
from workbench.cli.main import app
from workbench.errors import NotFoundError, OutOfMemoryError, UsageError
from workbench.finetune import plan as planning
from workbench.workspace import Layout

SETTINGS = {"quantization": "none", "rank": 4, "alpha": 8, "batch_size": 4, "max_steps": 4, "eval_every": 2}


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    layout = make_layout(tmp_path / "workspace")
    monkeypatch.chdir(layout.root)
    (layout.root / "prompt.md").write_text(PROMPT)
    fields: dict[str, object] = {"format_version": 1, "name": "colours", "dataset": "colours", "prompt": "prompt.md"}
    fields["model"] = str(model_of(layout.root))
    Path("colours.yaml").write_text(yaml.safe_dump({**fields, "settings": SETTINGS}))
    return layout


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["finetune", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_plan_run_list_and_show(layout: Layout) -> None:
    told = json.loads(call("plan", "colours.yaml", "--no-pilot", "--json"))
    assert (told["fits"], told["steps"], told["evaluations"]) == (True, 4, 2)
    assert "4 of 4 rows" in call("plan", "colours.yaml", "--no-pilot")

    said = call("run", "colours.yaml")
    [folder] = layout.adapters.iterdir()
    assert f"adapter: {folder}" in said
    assert f'adapter="sha256:{folder.name}"' in said
    assert "adapter: colours" in said
    assert "dev loss" in said
    result = json.loads(call("run", "colours.yaml", "--json"))
    assert (result["steps"], result["path"], result["stopped"]) == (4, str(folder), "steps")

    listed = json.loads(call("ls", "--json"))
    assert [adapter["name"] for adapter in listed["adapters"]] == ["colours"]
    assert listed["trainings"] == []
    assert folder.name[:12] in call("ls")
    shown = json.loads(call("show", "colours", "--json"))
    assert (shown["digest"], shown["rank"], shown["path"]) == (f"sha256:{folder.name}", 4, str(folder))
    assert "dev_loss" in call("show", folder.name[:8])


def test_what_cannot_fit_is_refused_before_it_starts(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "available_mb", lambda device: 0.01)
    with pytest.raises(OutOfMemoryError, match="colours does not fit"):
        call("run", "colours.yaml")
    result = CliRunner().invoke(app, ["finetune", "plan", "colours.yaml"])
    assert result.exit_code == 1
    assert "colours does not fit" in result.output
    assert not layout.adapters.exists()
    assert not layout.trainings.exists()


def test_bad_input_is_one_error(layout: Layout) -> None:
    with pytest.raises(UsageError):
        call("plan", "nowhere.yaml")
    with pytest.raises(NotFoundError, match="workbench finetune ls"):
        call("show", "nowhere")
    Path("colours.yaml").write_text("name: colours\nsettings: {rank: 0}\n")
    with pytest.raises(UsageError, match=r"colours\.yaml"):
        call("run", "colours.yaml")


def test_adapters_from_elsewhere_are_listed_too(layout: Layout) -> None:
    adapter = make_adapter(layout, model_of(layout.root), "other")
    assert "other" in call("ls")
    assert json.loads(call("show", "other", "--json"))["digest"] == adapter.digest
