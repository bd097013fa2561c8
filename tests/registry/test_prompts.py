"""Prompts by name: every save is a version, none is overwritten."""

from __future__ import annotations

import pytest

from tests.registry.conftest import UNCLEAR, MakeRun, pipelines
from workbench import api
from workbench.errors import GateRefused, NotFoundError, PromptError, UsageError
from workbench.pipeline.prompt import Prompt
from workbench.registry import names
from workbench.registry.promote import promote
from workbench.registry.prompts import find_prompt, prompt_log, rollback_prompt, save_prompt, tag_prompt
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
