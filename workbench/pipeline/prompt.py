"""Prompt: messages with variables and few-shot examples."""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, model_validator

from workbench.data.row import Row
from workbench.errors import PromptError
from workbench.files import canonical_json, digest_json
from workbench.models.engine import Message

_HEADING = re.compile(r"^##[ \t]*(system|user|assistant)[ \t]*$", re.IGNORECASE | re.MULTILINE)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=False
    )
    environment.filters["json"] = lambda value: canonical_json(value).decode()
    return environment


@lru_cache(maxsize=512)
def _template(source: str) -> jinja2.Template:
    return _environment().from_string(source)


def output_text(value: Any) -> str:
    """A target as the text a model is expected to write: text as it is, anything else as readable JSON."""
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Example(BaseModel):
    """A few-shot example: the variables of one question and the text of its answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    inputs: dict[str, Any]
    output: str


class Prompt(BaseModel):
    """Messages as Jinja2 templates (sandboxed), the variables they need, and few-shot examples.

    An example is shown as the last user message rendered with the example's inputs, followed by its output as an
    assistant message, all before the real last user message.

    Raises (when built):
        PromptError: a template does not parse, a variable is used but not declared or declared but not used, there is no
            user message, or an example lacks a variable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))
    format_version: Literal[1] = 1
    messages: tuple[Message, ...]
    variables: tuple[str, ...]
    examples: tuple[Example, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Prompt:
        if not self.messages or self.messages[-1].role != "user":
            raise PromptError("the last message of a prompt must be a user message", hint="End it with a ## user part.")
        used: set[str] = set()
        for message in self.messages:
            try:
                used |= meta.find_undeclared_variables(_environment().parse(message.content))
            except jinja2.TemplateSyntaxError as error:
                raise PromptError(
                    f"the {message.role} message does not parse, line {error.lineno}: {error.message}",
                    hint="Write literal braces as {{ '{{' }}.",
                ) from None
        if missing := sorted(used - set(self.variables)):
            raise PromptError(
                f"the prompt uses {_names(missing)} but does not declare it",
                hint=f"Declare it (variables: [{', '.join([*self.variables, *missing])}]), or correct the template.",
            )
        if unused := sorted(set(self.variables) - used):
            raise PromptError(
                f"the prompt declares {_names(unused)} but no message uses it",
                hint=f"Use it as {{{{ {unused[0]} }}}}, or remove the declaration.",
            )
        last_user_needs = meta.find_undeclared_variables(_environment().parse(self.messages[-1].content))
        for number, example in enumerate(self.examples, 1):
            if lacking := sorted(last_user_needs - set(example.inputs)):
                raise PromptError(f"example {number} lacks {_names(lacking)}", hint="Give the example every variable.")
        return self

    @classmethod
    def from_text(cls, text: str) -> Prompt:
        """Read the Markdown form: optional YAML front matter with `variables` and `examples`, then `## system`, `## user` parts.

        Text without such headings is one user message. Where the front matter does not declare `variables`, those of the
        templates are taken.
        """
        text = text.replace("\r\n", "\n")
        header: dict[str, Any] = {}
        if match := _FRONT_MATTER.match(text):
            try:
                header = yaml.safe_load(match.group(1)) or {}
            except yaml.YAMLError as error:
                raise PromptError(
                    f"the front matter is not YAML: {error}", hint="Mend it between the --- lines."
                ) from None
            if not isinstance(header, dict) or set(header) - {"variables", "examples"}:
                raise PromptError("the front matter may hold variables and examples only", hint="Remove other keys.")
            text = text[match.end() :]
        parts = _HEADING.split(text)
        if len(parts) == 1:
            messages = [Message(role="user", content=text.strip())]
        elif parts[0].strip():
            raise PromptError("text before the first ## heading", hint="Move it under ## system or ## user.")
        else:
            messages = [
                Message.model_validate({"role": role.lower(), "content": content.strip()})
                for role, content in zip(parts[1::2], parts[2::2], strict=True)
            ]
        variables = header.get("variables")
        return cls.from_messages(messages, variables=variables, examples=header.get("examples") or ())

    @classmethod
    def from_file(cls, path: str | Path) -> Prompt:
        """Read a prompt file; see `from_text` for its form.

        Raises:
            PromptError: no such file, not UTF-8, or its content is malformed.
        """
        try:
            text = Path(path).read_text("utf-8")
        except FileNotFoundError:
            raise PromptError(f"no prompt file {path}", hint="Check the path; prompts lie in prompts/.") from None
        except UnicodeDecodeError:
            raise PromptError(f"{path} is not UTF-8 text", hint="Save it as UTF-8.") from None
        try:
            return cls.from_text(text)
        except PromptError as error:
            raise PromptError(f"{path}: {error.message}", hint=error.hint) from None

    @classmethod
    def from_messages(
        cls,
        messages: Iterable[Message | Mapping[str, str]],
        *,
        variables: Iterable[str] | None = None,
        examples: Iterable[Any] = (),
    ) -> Prompt:
        """Build from messages; `variables` default to those the templates use."""
        built = tuple(m if isinstance(m, Message) else Message.model_validate(dict(m)) for m in messages)
        if variables is None:
            found: set[str] = set()
            for message in built:
                try:
                    found |= meta.find_undeclared_variables(_environment().parse(message.content))
                except jinja2.TemplateSyntaxError:
                    continue  # reported with its line by the validator below
            variables = sorted(found)
        return cls(messages=built, variables=tuple(variables), examples=tuple(examples))

    def with_examples(self, rows: Iterable[Row | Example]) -> Prompt:
        """The same prompt with these few-shot examples (rows of a data set, or a data set itself) in place of its own."""
        source = rows.rows() if hasattr(rows, "rows") else rows
        examples = tuple(
            row
            if isinstance(row, Example)
            else Example(
                inputs={name: row.inputs[name] for name in self.variables if name in row.inputs},
                output=output_text(row.target),
            )
            for row in source
        )
        return Prompt(messages=self.messages, variables=self.variables, examples=examples)

    def render(self, inputs: Mapping[str, Any]) -> tuple[Message, ...]:
        """The messages for one question, examples included.

        Raises:
            PromptError: `inputs` lacks a declared variable, or a template fails on these values.
        """
        if missing := [name for name in self.variables if name not in inputs]:
            raise PromptError(
                f"the prompt needs {_names(missing)}, which the inputs do not have",
                hint=f"The inputs have: {', '.join(sorted(inputs)) or 'nothing'}.",
            )
        values = {name: inputs[name] for name in self.variables}
        head = [self._fill(message, values) for message in self.messages[:-1]]
        return (*head, *self._shots, self._fill(self.messages[-1], values))

    @cached_property
    def _shots(self) -> tuple[Message, ...]:
        shots: list[Message] = []
        for example in self.examples:
            shots.append(self._fill(self.messages[-1], example.inputs))
            shots.append(Message(role="assistant", content=example.output))
        return tuple(shots)

    @staticmethod
    def _fill(message: Message, values: Mapping[str, Any]) -> Message:
        try:
            return Message(role=message.role, content=_template(message.content).render(values))
        except (jinja2.TemplateError, TypeError, ValueError, ZeroDivisionError) as error:
            raise PromptError(
                f"the {message.role} message cannot be rendered: {error}", hint="Check the inputs."
            ) from None

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON."""
        return digest_json(self.model_dump(mode="json"))

    def to_text(self) -> str:
        """The Markdown form that `from_text` reads back to an equal prompt."""
        header: dict[str, Any] = {"variables": list(self.variables)}
        if self.examples:
            header["examples"] = [example.model_dump(mode="json") for example in self.examples]
        front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=110)
        if "\x85" in front:
            # PyYAML writes this end of a line as it is, and reads it as another.
            front = yaml.safe_dump(header, sort_keys=False, allow_unicode=False, width=110)
        parts = "\n\n".join(f"## {message.role}\n{message.content}" for message in self.messages)
        return f"---\n{front}---\n{parts}\n"

    def diff(self, other: Prompt) -> PromptDiff:
        """What changed from this prompt to `other`."""
        return PromptDiff(self.to_text(), other.to_text())

    def _repr_html_(self) -> str:
        blocks = "".join(
            f"<p style='margin:.4em 0 0'><b>{message.role}</b></p>"
            f"<pre style='white-space:pre-wrap;margin:0'>{html.escape(message.content)}</pre>"
            for message in self.messages
        )
        shots = f"<p style='margin:.4em 0 0'>{len(self.examples)} examples</p>" if self.examples else ""
        return f"<div>{blocks}{shots}</div>"


class PromptDiff:
    """A readable difference of two prompts: a unified diff in a terminal, coloured lines in a notebook."""

    def __init__(self, before: str, after: str) -> None:
        self.lines = tuple(
            difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="")
        )

    def __bool__(self) -> bool:
        return bool(self.lines)

    def __str__(self) -> str:
        return "\n".join(self.lines) or "the prompts are the same"

    def _repr_html_(self) -> str:
        if not self.lines:
            return "<p>The prompts are the same.</p>"
        tints = {"+": "rgba(46,160,67,.22)", "-": "rgba(248,81,73,.22)", "@": "rgba(130,130,130,.18)"}
        rows = "".join(
            f"<div style='background:{tints.get(line[:1], 'transparent')}'>{html.escape(line) or '&nbsp;'}</div>"
            for line in self.lines[2:]
        )
        return f"<div style='font-family:monospace;font-size:12px;white-space:pre-wrap'>{rows}</div>"


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
