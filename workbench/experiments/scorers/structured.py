"""Scorers of structured answers: against a JSON schema, and field by field against the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.errors import UsageError
from workbench.experiments.scorers.base import (
    BaseScorer,
    Kind,
    OnError,
    ScoreInput,
    ScoreValue,
    as_json,
    brief,
    same_json,
)

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True, kw_only=True)
class JsonSchema(BaseScorer):
    type: ClassVar[str] = "json_schema"
    needs_target: ClassVar[bool] = False
    name: str = "json_schema"
    schema: Mapping[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        from jsonschema import exceptions, validators

        if not isinstance(self.schema, Mapping):
            raise UsageError(f"a JSON schema must be an object, not {brief(self.schema)}")
        schema = dict(self.schema)
        try:
            validators.validator_for(schema, default=validators.Draft202012Validator).check_schema(schema)
        except exceptions.SchemaError as error:
            raise UsageError(f"the JSON schema is malformed: {error.message}") from None

    def config(self) -> dict[str, Any]:
        return super().config() | {"schema": dict(self.schema)}

    def measure(self, item: ScoreInput) -> ScoreValue:
        fault = self._fault(item.result)
        if fault is not None and isinstance(item.result, str):
            parsed = as_json(item.result)
            fault = self._fault(parsed) if not isinstance(parsed, str) else fault
        return ScoreValue(1.0) if fault is None else ScoreValue(0.0, explanation=fault)

    def _fault(self, value: Any) -> str | None:
        """The first thing wrong with `value`, with its place; None where it is valid."""
        from jsonschema import exceptions, validators
        from referencing import Registry
        from referencing.exceptions import Unresolvable

        kind = validators.validator_for(self.schema, default=validators.Draft202012Validator)
        # An empty registry: without one, a remote $ref would be fetched from the network.
        validator = kind(self.schema, registry=Registry())
        try:
            error = exceptions.best_match(validator.iter_errors(value))
        except Unresolvable as missing:
            raise UsageError(f"the JSON schema refers to {missing.ref!r}, which it does not hold") from None
        return None if error is None else f"{error.json_path}: {brief(error.message)}"


def json_schema(
    schema: Mapping[str, Any] | type[BaseModel], *, name: str = "json_schema", on_error: OnError = "fail"
) -> JsonSchema:
    """1 where the answer is valid under a JSON schema, or under that of a pydantic model class. Needs no target.

    An answer in text is valid where the text itself or the JSON in it is.

    Raises:
        UsageError: the schema is malformed.
    """
    found = schema.model_json_schema() if isinstance(schema, type) else schema
    return JsonSchema(name=name, schema=found, on_error=on_error)


_ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class JsonFields(BaseScorer):
    type: ClassVar[str] = "json_fields"
    name: str = "json_fields"
    kind: Kind = "continuous"
    fields: tuple[str, ...] | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        return (0.0, 1.0)

    def measure(self, item: ScoreInput) -> ScoreValue:
        target, result = as_json(item.target), as_json(item.result)
        if not isinstance(target, Mapping):
            return ScoreValue(None, explanation=f"the target {brief(item.target)} is no object")
        wanted = [field for field in (target if self.fields is None else self.fields) if field in target]
        if not wanted:
            return ScoreValue(None, explanation="the target has none of the fields")
        if not isinstance(result, Mapping):
            return ScoreValue(0.0, explanation=f"the answer {brief(result)} is no object")
        wrong = [field for field in wanted if field not in result or not same_json(result[field], target[field])]
        share = (len(wanted) - len(wrong)) / len(wanted)
        return ScoreValue(share, explanation=f"wrong: {', '.join(wrong)}" if wrong else None)


def json_fields(
    fields: Sequence[str] | None = None, *, name: str = "json_fields", on_error: OnError = "fail"
) -> JsonFields:
    """Share of the target's fields (or of `fields` among them) that the answer has equal, 0..1."""
    if isinstance(fields, str):
        raise UsageError(f"fields must be a list of names, not {fields!r}", hint=f"Use json_field({fields!r})")
    return JsonFields(name=name, fields=None if fields is None else tuple(fields), on_error=on_error)


@dataclass(frozen=True, kw_only=True)
class JsonField(BaseScorer):
    type: ClassVar[str] = "json_field"
    field: str

    def measure(self, item: ScoreInput) -> ScoreValue:
        target, result = as_json(item.target), as_json(item.result)
        wanted = target.get(self.field, _ABSENT) if isinstance(target, Mapping) else item.target
        if wanted is _ABSENT:
            return ScoreValue(None, explanation=f"the target has no field {self.field}")
        if not isinstance(result, Mapping):
            return ScoreValue(0.0, explanation=f"the answer {brief(result)} is no object")
        if self.field not in result:
            return ScoreValue(0.0, explanation=f"the answer has no field {self.field}")
        got = result[self.field]
        if same_json(got, wanted):
            return ScoreValue(1.0, label=brief(got))
        return ScoreValue(0.0, label=brief(got), explanation=f"expected {brief(wanted)}, got {brief(got)}")


def json_field(field: str, *, name: str | None = None, on_error: OnError = "fail") -> JsonField:
    """1 where one field of the answer equals the target's (or the target itself, where that is no object).

    The scorer is named after the field, and its label is the answer's value.
    """
    return JsonField(name=name or field, field=field, on_error=on_error)
