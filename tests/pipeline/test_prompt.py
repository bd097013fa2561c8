"""Prompts refuse at build time what would fail at run time, and read back what they write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workbench.data.row import Row
from workbench.errors import PromptError
from workbench.models.engine import Message
from workbench.pipeline.prompt import Example, Prompt


def test_a_variable_that_is_not_declared_is_named() -> None:
    with pytest.raises(PromptError, match="'mood'"):
        Prompt.from_messages([{"role": "user", "content": "{{ text }} {{ mood }}"}], variables=["text"])
    with pytest.raises(PromptError, match="declares 'mood'"):
        Prompt.from_messages([{"role": "user", "content": "{{ text }}"}], variables=["text", "mood"])


def test_a_question_without_its_variable_is_refused() -> None:
    with pytest.raises(PromptError, match=r"needs 'text'.*have: body"):
        Prompt.from_text("{{ text }}").render({"body": "hello"})


def test_a_template_that_does_not_parse_names_its_line() -> None:
    with pytest.raises(PromptError, match="line 2"):
        Prompt.from_text("one\n{{ text }")


@pytest.mark.parametrize("attack", ["{{ text.__class__.__mro__ }}", "{{ ''.__class__.__base__.__subclasses__() }}"])
def test_templates_run_in_a_sandbox(attack: str) -> None:
    prompt = Prompt.from_text(attack + "{{ text }}")
    with pytest.raises(PromptError, match="cannot be rendered"):
        prompt.render({"text": "x"})


def test_examples_come_between_the_system_message_and_the_question() -> None:
    prompt = Prompt.from_text("## system\nSort.\n\n## user\nMessage: {{ text }}")
    shown = prompt.with_examples([Row("1", {"text": "hi", "mood": "sunny"}, {"intent": "other"})]).render(
        {"text": "bye"}
    )
    assert [(message.role, message.content) for message in shown] == [
        ("system", "Sort."),
        ("user", "Message: hi"),
        ("assistant", '{"intent": "other"}'),
        ("user", "Message: bye"),
    ]


def test_an_example_must_have_every_variable() -> None:
    with pytest.raises(PromptError, match="example 1 lacks 'text'"):
        Prompt.from_text("{{ text }}").with_examples([Example(inputs={}, output="x")])


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"no prompt file .*none\.md"):
        Prompt.from_file(tmp_path / "none.md")
    (tmp_path / "latin.md").write_bytes(b"caf\xe9 {{ text }}")
    with pytest.raises(PromptError, match="UTF-8"):
        Prompt.from_file(tmp_path / "latin.md")
    (tmp_path / "front.md").write_text("---\nmodel: big\n---\n{{ text }}")
    with pytest.raises(PromptError, match=r"front\.md.*variables and examples"):
        Prompt.from_file(tmp_path / "front.md")


def test_a_diff_shows_what_changed_and_only_that() -> None:
    before, after = Prompt.from_text("Say\n{{ text }}"), Prompt.from_text("Shout\n{{ text }}")
    assert "-Say" in str(before.diff(after))
    assert "+Shout" in str(before.diff(after))
    assert not before.diff(before)


WORDS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="{}#%"), min_size=1, max_size=30)


@example(system="a", user="b", examples=[("c", "one\x85two")])
@given(system=WORDS, user=WORDS, examples=st.lists(st.tuples(WORDS, st.text(max_size=40)), max_size=3))
def test_the_text_form_reads_back_to_the_same_prompt(system: str, user: str, examples: list[tuple[str, str]]) -> None:
    prompt = Prompt(
        messages=(Message(role="system", content=system), Message(role="user", content=user + "\n{{ text }}")),
        variables=("text",),
        examples=tuple(Example(inputs={"text": text}, output=output) for text, output in examples),
    )
    assert Prompt.from_text(prompt.to_text()).digest == prompt.digest
