"""The arguments with which the A/B notebook makes an experiment again."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import api
from workbench.errors import UsageError
from workbench.html import counted
from workbench.notebook_run import parse_arguments
from workbench.ui import lab
from workbench.ui.lab import Choices, build_experiment, prompt_texts

ROOT = Path(__file__).parents[2]


def as_marimo(words: list[str]) -> dict[str, object]:
    """What `mo.cli_args` makes of the words of a command line."""
    from marimo._cli.parse_args import parse_args

    return dict(parse_args(words))


@given(
    st.builds(
        Choices, limit=st.integers(0, 99), shots=st.integers(0, 9), seed=st.integers(0, 9), stop_early=st.booleans()
    )
)
def test_choices_survive_being_written_as_arguments(choices: Choices) -> None:
    # A notebook's own defaults do not count: whatever is not empty is written.
    assert Choices.from_arguments(parse_arguments(choices.to_arguments())) == choices
    assert Choices.from_arguments(as_marimo(choices.to_arguments())) == choices


@pytest.mark.parametrize(
    "text", ["## user\n{{ text }}\n", "---\na = b\n---\n## user\n--limit 5 {{ text }}", "{{ text }} x=1"]
)
def test_a_text_survives_whatever_is_in_it(text: str) -> None:
    choices = Choices(prompt_a_text=text)
    assert Choices.from_arguments(parse_arguments(choices.to_arguments())) == choices
    assert Choices.from_arguments(as_marimo(choices.to_arguments())) == choices


@pytest.fixture
def workspace(tmp_path: Path) -> api.Workspace:
    for name in ("datasets", "prompts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "workbench.toml", tmp_path)
    return api.open(tmp_path)


def test_only_an_edited_text_is_among_the_arguments(workspace: api.Workspace) -> None:
    choices = Choices(limit=4, shots=2)
    first, second = prompt_texts(workspace, choices)
    untouched = build_experiment(workspace, choices, first, second)
    assert untouched.arguments == [
        "--dataset=support-tickets",
        "--split=test",
        "--limit=4",
        "--model=smollm2-135m",
        "--shots=2",
        "--seed=1",
    ]
    edited = build_experiment(workspace, dataclasses.replace(choices, stop_early=True), first, f"{second}\nBe quick.")
    assert edited.arguments is not None
    assert edited.arguments[-2:] == ["--stop-early=True", f"--prompt-b-text={second}\nBe quick."]
    # What they make is the experiment itself.
    again = Choices.from_arguments(as_marimo(list(edited.arguments)))
    assert build_experiment(workspace, again, *prompt_texts(workspace, again)).digest == edited.digest
    assert edited.digest != untouched.digest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("notebook", "said"),
    [("prompt_ab", "--shots NUMBER "), ("finetune", "--max-steps NUMBER "), ("experiments", "--run TEXT ")],
)
def test_a_notebook_says_which_arguments_it_takes(notebook: str, said: str) -> None:
    command = [sys.executable, str(ROOT / "notebooks" / f"{notebook}.py"), "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert said in ran.stdout


def test_one_of_a_kind_is_no_plural() -> None:
    assert (counted(1, "row"), counted(0, "row"), counted(1200, "row")) == ("1 row", "0 rows", "1,200 rows")
    assert (counted(1, "alias", "aliases"), counted(2, "alias", "aliases")) == ("1 alias", "2 aliases")


def test_a_script_is_told_what_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    marimo = pytest.importorskip("marimo")
    given: dict[str, str] = {}
    monkeypatch.setattr(lab, "runs_as_script", lambda: True)
    monkeypatch.setattr(marimo, "cli_args", lambda: SimpleNamespace(to_dict=lambda: given))
    assert lab.wanted("run") == ""
    given["run"] = "2026"
    assert lab.wanted("run") == "2026"
    with pytest.raises(UsageError, match="unknown argument --run"):
        lab.wanted("artifact")
