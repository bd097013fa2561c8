"""Prompts by name: every save is a version, none is overwritten."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.registry.conftest import UNCLEAR, MakeRun, pipelines
from workbench import api
from workbench.cli.main import app
from workbench.errors import GateRefused, NotFoundError, PromptError, UsageError
from workbench.models.engine import Message
from workbench.pipeline.prompt import Prompt
from workbench.registry import names
from workbench.registry.promote import promote
from workbench.registry.prompts import find_prompt, in_style, prompt_log, rollback_prompt, save_prompt, tag_prompt
from workbench.workspace import Layout

FIRST, SECOND = Prompt.from_text("Say {{ text }}"), Prompt.from_text("Shout {{ text }}")


def test_each_change_is_a_version_and_no_change_is_none(workspace: api.Workspace) -> None:
    assert workspace.save_prompt("voice", FIRST, message="begin") == 1
    assert workspace.save_prompt("voice", FIRST) == 1
    assert workspace.save_prompt("voice", SECOND) == 2
    assert [(saved.version, saved.message) for saved in prompt_log(workspace.layout, "voice")] == [
        (2, ""),
        (1, "begin"),
    ]
    assert workspace.prompt("voice@1") == FIRST
    assert workspace.prompt("voice@latest") == workspace.prompt("voice") == SECOND


def test_rolling_back_adds_a_version_and_writes_the_file(workspace: api.Workspace) -> None:
    workspace.save_prompt("voice", FIRST)
    workspace.save_prompt("voice", SECOND)
    assert rollback_prompt(workspace.layout, "voice") == 3
    assert len(prompt_log(workspace.layout, "voice")) == 3
    assert workspace.prompt("voice@3") == FIRST
    assert Prompt.from_file(workspace.layout.prompts / "voice.md") == FIRST


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # As the starter prompts are written; without a header; with variables that differ; with examples.
        (
            "---\nvariables: [text]\n---\n## system\nBe brief.\n\n## user\n{{ text }}\n",
            "---\nvariables: [text]\n---\n## system\nBe rude.\n\n## user\n{{ text }}\n",
        ),
        ("Say {{ text }}\n", "Shout {{ text }}\n"),
        ("## user\nSay {{ text }}\n", "## user\nShout {{ text }}\n"),
        (
            "---\nvariables: [text]\n---\n## user\nSay {{ text }}\n",
            "---\nvariables: [text, tone]\n---\n## user\nSay {{ text }} in {{ tone }}\n",
        ),
        (
            "---\nvariables: [text]\nexamples:\n- {inputs: {text: a}, output: b}\n---\n## user\nSay {{ text }}\n",
            "---\nvariables: [text]\nexamples:\n- {inputs: {text: a}, output: b}\n---\n## user\nShout {{ text }}\n",
        ),
    ],
)
def test_rolling_back_shows_in_git_no_more_than_what_changed(workspace: api.Workspace, before: str, after: str) -> None:
    workspace.layout.prompts.mkdir()
    path = workspace.layout.prompts / "voice.md"
    for text in (before, after):
        path.write_text(text)
        workspace.save_prompt("voice", Prompt.from_file(path))
    rollback_prompt(workspace.layout, "voice")
    assert path.read_text() == before


def test_rolling_back_to_what_the_file_says_leaves_the_file(workspace: api.Workspace) -> None:
    workspace.layout.prompts.mkdir()
    path = workspace.layout.prompts / "voice.md"
    workspace.save_prompt("voice", FIRST)
    workspace.save_prompt("voice", SECOND)
    for text in ("---\nvariables:\n  - text\n---\n\n## user\n\nSay {{ text }}\n\n", "## user\r\nSay {{ text }}"):
        path.write_bytes(text.encode())
        rollback_prompt(workspace.layout, "voice", to=1)
        assert path.read_bytes() == text.encode()
    # What is no prompt, or no text, is written over.
    for data in (b"---\n[", b"\xff\xfe## user", b"---\nvariables: 3\n---\n"):
        path.write_bytes(data)
        rollback_prompt(workspace.layout, "voice", to=1)
        assert Prompt.from_file(path) == FIRST


@given(
    st.lists(st.sampled_from(["text", "yes", "null", "tone"]), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from(["{{ text }}", "# one", "---", "## user", "a: [b", "\n", " "]), max_size=4),
    st.sampled_from(["", "## user\nhi\n", "---\nvariables: [text]\n---\nhi\n", "---\n", "---\n\n---\n## user\nhi"]),
)
def test_whatever_the_file_holds_the_prompt_comes_back(variables: list[str], parts: list[str], file: str) -> None:
    words = " ".join(["".join(f"{{{{ {name} }}}}" for name in variables), *parts])
    try:
        prompt = Prompt.from_messages([Message(role="user", content=words.strip())], variables=[*variables, "text"])
    except PromptError:
        return
    if Prompt.from_text(prompt.to_text()) == prompt:
        assert Prompt.from_text(in_style(file, prompt)) == prompt


def test_saving_what_is_kept_already_says_so(workspace: api.Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.root)
    workspace.layout.prompts.mkdir()
    (workspace.layout.prompts / "voice.md").write_text("Say {{ text }}")

    def save(*options: str) -> str:
        done = CliRunner().invoke(app, ["prompt", "save", "voice", *options])
        assert done.exit_code == 0
        return done.stdout

    assert save("-m", "begin").startswith("voice@1  ")
    assert save("-m", "again") == "voice is unchanged: still version 1; the message was not kept\n"
    assert save() == "voice is unchanged: still version 1\n"
    assert json.loads(save("--json"))["new"] is False
    (workspace.layout.prompts / "voice.md").write_text("Shout {{ text }}")
    assert json.loads(save("--json", "-m", "[/louder]")) == {
        "name": "voice",
        "version": 2,
        "digest": SECOND.digest,
        "new": True,
    }
    for command in (["ls"], ["log", "voice"]):
        assert "[/louder]" in CliRunner().invoke(app, ["prompt", *command]).stdout


def test_a_tag_means_the_newest_version_that_has_it(workspace: api.Workspace) -> None:
    layout = workspace.layout
    workspace.save_prompt("voice", FIRST)
    workspace.save_prompt("voice", SECOND)
    tag_prompt(layout, "voice", 1, "draft", actor="ada")
    tag_prompt(layout, "voice", 1, "draft", actor="ada")
    assert workspace.prompt("voice@draft") == FIRST
    assert [saved.tags for saved in prompt_log(layout, "voice")] == [(), ("draft",)]
    assert [(move.kind, move.to_version, move.actor) for move in names.history(layout, "prompt/voice")] == [
        ("tag", 1, "ada")
    ]
    tag_prompt(layout, "voice", 2, "draft")
    assert workspace.prompt("voice@draft") == SECOND
    with pytest.raises(NotFoundError, match="no version 3"):
        tag_prompt(layout, "voice", 3, "draft")
    with pytest.raises(NotFoundError, match="no tag best"):
        workspace.prompt("voice@best")
    for tag in ("7", "Draft", "tested"):
        with pytest.raises(UsageError):
            tag_prompt(layout, "voice", 1, tag)


def test_a_prompt_is_tested_when_a_gate_let_it_pass(layout: Layout, make_run: MakeRun) -> None:
    few = pipelines()["few"].prompt
    save_prompt(layout, "greet", FIRST)
    save_prompt(layout, "greet", few)
    with pytest.raises(GateRefused):
        promote(layout, make_run(UNCLEAR, run_id="run-0"), "greet", "few")
    assert prompt_log(layout, "greet")[0].tags == ()
    promote(layout, make_run(), "greet", "few", actor="ada")
    assert [saved.tags for saved in prompt_log(layout, "greet")] == [("tested",), ()]
    assert find_prompt(layout, "greet@tested") == few
    [line] = names.history(layout, "prompt/greet")
    assert (line.actor, dict(line.detail)) == ("ada", {"tag": "tested", "run_id": "run-1", "variant": "few"})


def test_what_is_not_there_says_where_to_look(workspace: api.Workspace) -> None:
    workspace.save_prompt("voice", FIRST)
    with pytest.raises(NotFoundError, match="prompt ls"):
        workspace.prompt("nothing")
    with pytest.raises(NotFoundError, match="no version 9"):
        workspace.prompt("voice@9")
    with pytest.raises(PromptError, match="no version 0"):
        rollback_prompt(workspace.layout, "voice")
