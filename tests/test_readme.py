"""The README's session and the guides' blocks run, and the README shows what the session really prints."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest
import yaml

from workbench import api
from workbench.experiments.spec import read_experiment

ROOT = Path(__file__).parents[1]


def _blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text("utf-8"), re.DOTALL)


def _workspace(folder: Path) -> Path:
    for name in ("datasets", "prompts", "policies"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "workbench.toml", folder)
    return folder


def _without_time(text: str) -> list[str]:
    # The pace is the machine's; everything else is the data's and the model's.
    return [line for line in text.strip().splitlines() if not line.startswith("time")]


@pytest.mark.slow
@pytest.mark.model
def test_the_session_of_the_readme_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_workspace(tmp_path))
    [session], [shown] = _blocks("README.md", "python"), _blocks("README.md", "text")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(session, "README.md", "exec"), {})
    assert _without_time(said.getvalue()) == _without_time(shown)


def test_the_guides_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_workspace(tmp_path))
    for guide in sorted((ROOT / "docs").glob("*.md")):
        for block in _blocks(f"docs/{guide.name}", "python"):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block, guide.name, "exec"), {})


def test_the_experiment_in_the_guide_is_one(tmp_path: Path) -> None:
    workspace = api.open(_workspace(tmp_path))
    [block] = _blocks("docs/experiments.md", "yaml")
    assert yaml.safe_load(block)["format_version"] == 1
    (tmp_path / "triage.yaml").write_text(block)
    experiment = read_experiment(workspace.layout, tmp_path / "triage.yaml")
    assert list(experiment.variants) == ["zero-shot", "few-shot"]
    assert len(experiment.variants["few-shot"].prompt.examples) == 8
    assert len(experiment.rows) == 6


def test_every_command_that_the_documentation_names_exists() -> None:
    from typer.main import get_command

    from workbench.cli.main import app

    command = get_command(app)
    text = "\n".join(path.read_text("utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    named = set(re.findall(r"^workbench ([a-z]+)", text, re.MULTILINE))
    assert named
    assert named <= set(command.commands)  # type: ignore[attr-defined]
