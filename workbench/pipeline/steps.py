"""Post-processing steps: from a model's text to the value that is scored and served.

Each step is named data, so a pipeline's digest covers it; a step that cannot make sense of its input raises
`PostprocessError`, which is recorded as a wrong answer.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workbench.errors import PipelineError, PostprocessError
from workbench.files import canonical_json, digest_bytes


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Strip(_Step):
    """Remove white space, and optionally other characters, from both ends of a text."""

    kind: Literal["strip"] = "strip"
    characters: str | None = None

    def apply(self, value: Any) -> Any:
        return _text(value, self.kind).strip(self.characters)


class Regex(_Step):
    """Keep one group of the first match of a pattern."""

    kind: Literal["regex"] = "regex"
    pattern: str
    group: int = 0

    @model_validator(mode="after")
    def _check(self) -> Regex:
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise PipelineError(f"the pattern {self.pattern!r} does not compile: {error}", hint="Correct it.") from None
        if self.group > groups:
            raise PipelineError(
                f"the pattern {self.pattern!r} has {groups} groups, not {self.group}", hint="Count them."
            )
        return self

    def apply(self, value: Any) -> Any:
        match = re.search(self.pattern, _text(value, self.kind))
        if match is None:
            raise PostprocessError(f"no match of {self.pattern!r}", step=self.kind)
        return match.group(self.group)


class Json(_Step):
    """Parse the first JSON object or list in a text, ignoring fences and chatter; `repair` mends commas, quotes and cut ends.

    A text that is a JSON value as a whole, such as `"spam"` or `4`, is that value.
    """

    kind: Literal["json"] = "json"
    repair: bool = True

    def apply(self, value: Any) -> Any:
        text = _text(value, self.kind)
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text)
        start = min((place for place in (text.find("{"), text.find("[")) if place >= 0), default=-1)
        if start < 0:
            raise PostprocessError("no JSON in the answer", step=self.kind)
        try:
            return json.JSONDecoder().raw_decode(text[start:])[0]
        except json.JSONDecodeError as error:
            if not self.repair:
                raise PostprocessError(f"not JSON: {error}", step=self.kind) from None
        import json_repair

        repaired = json_repair.loads(text[start:])
        if repaired in ("", {}, []):
            raise PostprocessError("nothing to repair in the JSON", step=self.kind)
        return repaired


class Schema(_Step):
    """Accept only values that a JSON Schema (draft 2020-12) accepts."""

    kind: Literal["schema"] = "schema"
    # `schema` would shadow a method of pydantic's BaseModel.
    json_schema: dict[str, Any]

    @model_validator(mode="after")
    def _check(self) -> Schema:
        check_schema(self.json_schema)
        return self

    def apply(self, value: Any) -> Any:
        from jsonschema.exceptions import best_match

        error = best_match(_validator(canonical_json(self.json_schema).decode()).iter_errors(value))
        if error is not None:
            place = "/".join(str(part) for part in error.absolute_path)
            raise PostprocessError(f"{place + ': ' if place else ''}{error.message}", step=self.kind)
        return value


class Labels(_Step):
    """Map a text, or one field of an object, to a closed set of labels, ignoring case and punctuation.

    `synonyms` maps other spellings to labels; `default` stands in where nothing fits (without one that is an error).
    """

    kind: Literal["labels"] = "labels"
    labels: tuple[str, ...]
    field: str | None = None
    synonyms: dict[str, str] = Field(default_factory=dict)
    default: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Labels:
        for label in [*self.synonyms.values(), *([self.default] if self.default else [])]:
            if label not in self.labels:
                raise PipelineError(f"{label!r} is not one of the labels", hint=f"Labels: {', '.join(self.labels)}.")
        return self

    def apply(self, value: Any) -> Any:
        if self.field is None:
            return self._map(_text(value, self.kind))
        if not isinstance(value, dict) or self.field not in value:
            raise PostprocessError(f"no field {self.field!r}", step=self.kind)
        return {**value, self.field: self._map(str(value[self.field]))}

    def _map(self, text: str) -> str:
        table = {_plain(label): label for label in self.labels} | {_plain(k): v for k, v in self.synonyms.items()}
        plain = _plain(text)
        if plain in table:
            return table[plain]
        found = {label for key, label in table.items() if key and re.search(rf"\b{re.escape(key)}\b", plain)}
        if len(found) == 1:
            return found.pop()
        if self.default is not None:
            return self.default
        raise PostprocessError(f"{text[:60]!r} is not one of {', '.join(self.labels)}", step=self.kind)


class Python(_Step):
    """A function of a Python file, kept as source and digest, never as a serialized object.

    The file runs with the rights of the process: promote only files that were read.
    """

    kind: Literal["python"] = "python"
    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    source: str
    digest: str = ""
    function: str = "postprocess"

    @classmethod
    def from_file(cls, path: str | Path, *, function: str = "postprocess") -> Python:
        """Read a file. Its stem names the step."""
        path = Path(path)
        if not path.is_file():
            raise PipelineError(f"no post-processing file {path}", hint="Check the path.")
        return cls(name=path.stem, source=path.read_text("utf-8"), function=function)

    @model_validator(mode="after")
    def _check(self) -> Python:
        actual = digest_bytes(self.source.encode())
        if self.digest and self.digest != actual:
            raise PipelineError(f"{self.name}.py is not the file with digest {self.digest}", hint="Restore that file.")
        object.__setattr__(self, "digest", actual)
        try:
            tree = ast.parse(self.source, f"{self.name}.py")
        except SyntaxError as error:
            raise PipelineError(f"{self.name}.py, line {error.lineno}: {error.msg}", hint="Mend the file.") from None
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if self.function not in names:
            raise PipelineError(
                f"{self.name}.py has no function {self.function}", hint=f"Define: def {self.function}(value): ..."
            )
        return self

    def apply(self, value: Any) -> Any:
        step = f"python {self.name}.py"
        try:
            result = _function(self.source, self.name, self.function)(value)
            canonical_json(result)
        except Exception as error:  # a user's code may raise anything, and its failure is data
            raise PostprocessError(f"{type(error).__name__}: {error}", step=step) from error
        return result


Step = Annotated[Strip | Regex | Json | Schema | Labels | Python, Field(discriminator="kind")]


def apply_steps(steps: Iterable[Step], text: str) -> Any:
    """Run `text` through `steps` in order.

    Raises:
        PostprocessError: a step rejects what it is given.
    """
    value: Any = text
    for step in steps:
        value = step.apply(value)
    return value


def check_schema(schema: dict[str, Any]) -> None:
    """Refuse what is not a JSON Schema.

    Raises:
        PipelineError: with the place that is wrong.
    """
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise PipelineError(f"not a JSON Schema: {error.message}", hint="Correct the schema.") from None


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(json.loads(schema))


@lru_cache(maxsize=64)
def _function(source: str, name: str, function: str) -> Callable[[Any], Any]:
    namespace: dict[str, Any] = {"__name__": f"workbench_postprocess_{name}"}
    exec(compile(source, f"{name}.py", "exec"), namespace)
    return namespace[function]  # type: ignore[no-any-return]


def _text(value: Any, step: str) -> str:
    if not isinstance(value, str):
        raise PostprocessError(f"needs text, got {type(value).__name__}", step=step)
    return value


def _plain(text: str) -> str:
    return re.sub(r"[^\w]+", " ", text.casefold().replace("_", " ")).strip()
