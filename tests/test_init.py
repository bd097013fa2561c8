"""`workbench init`: a new workspace, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from workbench.cli.init import init_command
from workbench.errors import WorkspaceError
from workbench.files import write_atomic
from workbench.init.init import init_workspace, template_folder
from workbench.workspace import Layout


def test_a_new_workspace_is_found_and_has_a_name(tmp_path: Path) -> None:
    made = init_workspace(tmp_path / "mine")
    assert made.kept == ()
    layout = Layout.find(tmp_path / "mine")
    assert layout.settings.name == "mine"
    assert layout.settings.model == "smollm2-135m"
    for folder in (layout.datasets, layout.prompts, layout.policies, layout.notebooks):
        assert folder.is_dir()


def test_it_holds_every_starter_file_as_it_is(tmp_path: Path) -> None:
    made = init_workspace(tmp_path / "mine")
    starters = [
        path
        for path in made.written
        if path.split("/")[0] in ("datasets", "experiments", "notebooks", "policies", "prompts")
    ]
    assert "policies/default.toml" in starters
    for path in starters:
        assert (made.root / path).read_bytes() == (template_folder() / path).read_bytes()
    assert not any("__" in path or "/." in path for path in starters)


def test_its_own_files_say_what_to_do_next(tmp_path: Path) -> None:
    root = init_workspace(tmp_path / "mine", "Ticket triage").root
    readme = (root / "README.md").read_text()
    assert readme.startswith("# Ticket triage\n")
    for command in ("workbench demo", "marimo edit notebooks/prompt_ab.py", "workbench data import my.csv"):
        assert command in readme
    assert {".workbench/", "*.pem"} <= set((root / ".gitignore").read_text().splitlines())
    workflow = yaml.safe_load((root / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["check"]["steps"][-1] == {"run": "workbench notebooks check"}
    assert "@" not in "".join(step.get("run", "") for step in workflow["jobs"]["check"]["steps"])


@pytest.mark.parametrize("name", ['say "hi"', r"back\slash", "Ümläut 漢字", "#1 = [x]"])
def test_any_printable_name_will_do(tmp_path: Path, name: str) -> None:
    assert Layout.find(init_workspace(tmp_path, name).root).settings.name == name


def test_files_that_exist_are_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    made = init_workspace(tmp_path)
    assert made.kept == ("README.md",)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_workspace_is_not_made_twice(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    with pytest.raises(WorkspaceError, match="is a workspace already"):
        init_workspace(tmp_path)


def test_an_interrupted_one_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def failing(path: Path, data: bytes) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write_atomic(path, data)

    monkeypatch.setattr("workbench.init.init.write_atomic", failing)
    with pytest.raises(KeyboardInterrupt):
        init_workspace(tmp_path)
    with pytest.raises(WorkspaceError):
        Layout.find(tmp_path)
    monkeypatch.undo()
    assert len(init_workspace(tmp_path).kept) == 2
    assert Layout.find(tmp_path).root == tmp_path.resolve()


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match="is a file"):
        init_workspace(tmp_path / "file")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        init_workspace(tmp_path / "file" / "below")


def test_a_name_of_control_characters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="cannot name a workspace"):
        init_workspace(tmp_path, "a\nb")


def test_the_command_prints_json(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(init_command)
    result = CliRunner().invoke(app, [str(tmp_path / "mine"), "--name", "n", "--json"])
    record = json.loads(result.output)
    assert (record["name"], record["kept"]) == ("n", [])
    assert "workbench.toml" in record["written"]
