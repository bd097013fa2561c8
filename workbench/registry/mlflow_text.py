"""A prompt as MLflow can hold it: the text that it shows and fills in, and the tags that bring the whole prompt back."""

from __future__ import annotations

import contextlib
import re
from typing import Any, TypeAlias

from pydantic import ValidationError

from workbench.errors import PromptError
from workbench.files import canonical_json
from workbench.models.engine import Message
from workbench.pipeline.prompt import Prompt

# Without dots, which Unity Catalog does not take.
PROMPT_TAG = "workbench_prompt"

Template: TypeAlias = str | list[dict[str, Any]]

# What MLflow fills in where a template has no {% %}; anything else it leaves as it is.
_FILLED = re.compile(r"\{\{\s*[a-zA-Z_][a-zA-Z0-9_]*\s*\}\}")
_JINJA = re.compile(r"\{\{|\{%|\{#")
_MESSAGE = {"role", "content"}


def mlflow_template(prompt: Prompt) -> Template:
    """The prompt as MLflow can show and fill it in. Examples that hold braces are not in it, since MLflow would take
    those for variables.
    """
    messages = [*prompt.messages[:-1], *shots(prompt), prompt.messages[-1]]
    if len(messages) == 1:
        return messages[0].content
    return [message.model_dump() for message in messages]


def shots(prompt: Prompt) -> list[Message]:
    """The examples as messages; none where MLflow would take braces in them for variables."""
    question = Prompt.from_messages([prompt.messages[-1]])
    shown: list[Message] = []
    try:
        for example in prompt.examples:
            shown += [*question.render(example.inputs), Message(role="assistant", content=example.output)]
    except PromptError:
        return []
    return [] if any(_JINJA.search(shot.content) for shot in shown) else shown


def prompt_json(prompt: Prompt) -> str:
    """What the tag `PROMPT_TAG` holds: the whole prompt."""
    return canonical_json(prompt.model_dump(mode="json")).decode()


def read_version(one: Any) -> tuple[Prompt, bool]:
    """The prompt of a version in MLflow, and whether its text is another than the one exported with it.

    Raises:
        PromptError: it cannot be a prompt here.
    """
    template: Template = one.template
    try:
        stored = Prompt.model_validate_json(one.tags.get(PROMPT_TAG, ""))
    except (ValidationError, PromptError):
        _check_foreign(template)
        return _from_template(template), False
    # Held against the text itself: what nobody sees in MLflow must not say something else.
    if mlflow_template(stored) == template:
        return stored, False
    return _edited(template, stored), True


def _edited(template: Template, stored: Prompt) -> Prompt:
    """The text in MLflow with the examples of the export, where they are still among it or never were."""
    whole = _from_template(template)
    count = 2 * len(stored.examples)
    heads = [whole.messages[:-1]] + ([whole.messages[: -1 - count]] if count < len(whole.messages) else [])
    for head in heads if count else ():
        with contextlib.suppress(PromptError):
            prompt = Prompt.from_messages([*head, whole.messages[-1]], examples=stored.examples)
            if mlflow_template(prompt) == mlflow_template(whole):
                return prompt
    return whole


def _from_template(template: Template) -> Prompt:
    messages = [{"role": "user", "content": template}] if isinstance(template, str) else template
    built = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ("system", "user", "assistant") or not isinstance(content, str) or set(message) != _MESSAGE:
            raise PromptError(
                f"a message of the role {role!r} is not a text of system, user or assistant alone",
                hint="Change it in MLflow.",
            )
        # As in a prompt file, the white space around a message is not part of it.
        built.append({"role": role, "content": content.strip()})
    return Prompt.from_messages(built)


def _check_foreign(template: Template) -> None:
    """Refuse a template that MLflow fills in otherwise than Jinja does here."""
    texts = [template] if isinstance(template, str) else [str(message.get("content")) for message in template]
    if any("{%" in text and "%}" in text for text in texts):
        return  # MLflow too uses Jinja then
    for text in texts:
        if match := _JINJA.search(_FILLED.sub("", text)):
            rest = _FILLED.sub("", text)[match.start() :].splitlines()[0][:40]
            raise PromptError(
                f"MLflow leaves {rest!r} as it is, and here it would be filled in", hint="Change it there."
            )
