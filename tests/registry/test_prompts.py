"""Prompts by name: every save is a version, none is overwritten."""

from __future__ import annotations

import pytest

from workbench import api
from workbench.errors import NotFoundError, PromptError
from workbench.pipeline.prompt import Prompt
from workbench.registry.prompts import prompt_log, rollback_prompt

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


def test_what_is_not_there_says_where_to_look(workspace: api.Workspace) -> None:
    workspace.save_prompt("voice", FIRST)
    with pytest.raises(NotFoundError, match="prompt ls"):
        workspace.prompt("nothing")
    with pytest.raises(NotFoundError, match="no version 9"):
        workspace.prompt("voice@9")
    with pytest.raises(PromptError, match="no version 0"):
        rollback_prompt(workspace.layout, "voice")
