"""What a run records of the place where it is made."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from workbench.init.init import init_workspace
from workbench.surroundings import git_state

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace in a subfolder of a repository, all of it committed."""
    root = init_workspace(tmp_path / "repository" / "workspace").root
    git(root.parent, "init", "--quiet")
    assert git_state(root) is None
    git(root.parent, "add", ".")
    git(root.parent, "commit", "--quiet", "-m", "begin")
    return root


def dirty(root: Path) -> bool:
    state = git_state(root)
    assert state is not None
    assert len(state.commit) == 40
    return state.dirty


@pytest.mark.parametrize(
    "file",
    [
        "prompts/new.md",
        "experiments/mine.yaml",
        "policies/prod.toml",
        "notebooks/deep/er/mine.py",
        "adapters/new.yaml",
        "datasets/mine/train.jsonl",
        "steps/shout.py",
        "mine.yaml",
        "shout.py",
    ],
)
def test_a_file_that_a_run_reads_and_no_commit_has_makes_the_tree_dirty(root: Path, file: str) -> None:
    assert not dirty(root)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text("new")
    assert dirty(root)
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "new")
    assert not dirty(root)


def test_a_tracked_file_that_differs_makes_the_tree_dirty(root: Path) -> None:
    with (root / "prompts" / "triage.md").open("a") as file:
        file.write("Be kind.")
    assert dirty(root)


def test_what_commands_write_does_not(root: Path) -> None:
    """Runs and artifacts, a report, caches of Python and of notebooks, keys, and what lies outside of the workspace."""
    for file in (
        ".workbench/events/runs/one/run.json",
        "report.html",
        "notebooks/__pycache__/prompt_ab.pyc",
        "notebooks/__marimo__/session.json",
        "keys/team.pem",
        "team.pem",
        "../elsewhere/prompts/new.md",
    ):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("made")
    assert not dirty(root)


def test_there_is_no_state_outside_of_a_repository(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
