"""The README's session runs, and the README shows what it really prints. The pages of docs/ are in test_docs.py."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path

import pytest

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
