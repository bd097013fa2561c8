"""JSON Schema of experiments in YAML, by which editors complete and check them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from workbench.experiments.scorers.base import BaseScorer
from workbench.experiments.scorers.registry import FACTORIES
from workbench.experiments.spec import ExperimentSpec
from workbench.models.engine import Quantization

# Names in the factories' annotations that their modules import for type checkers only.
_NAMES: dict[str, Any] = {"BaseModel": BaseModel, "Quantization": Quantization}


def experiment_schema() -> dict[str, Any]:
    """JSON Schema of the YAML file, by which an editor completes and checks it."""
    schema = ExperimentSpec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Experiment of the LLMOps workbench"
    schema["properties"]["scorers"] = {
        "description": "Scorers, the primary one first; by default those that fit the data set's targets.",
        "type": "array",
        "items": scorers_schema(),
    }
    return schema


def scorers_schema() -> dict[str, Any]:
    """JSON Schema of one scorer's settings: its type alone, or an object with a type."""
    objects: list[dict[str, Any]] = [_settings_schema(kind, factory) for kind, factory in sorted(FACTORIES.items())]
    objects.append({"type": "object", "properties": {"type": {"const": "custom"}}, "required": ["type", "function"]})
    alone = [entry["properties"]["type"]["const"] for entry in objects if entry["required"] == ["type"]]
    return {"anyOf": [{"enum": alone}, *objects]}


def _settings_schema(kind: str, factory: Callable[..., BaseScorer]) -> dict[str, Any]:
    """The schema of one factory's arguments, read off its signature; what JSON Schema cannot say is left open."""
    properties: dict[str, Any] = {"type": {"const": kind}}
    hints = get_type_hints(factory, localns=_NAMES)
    parameters = inspect.signature(factory).parameters
    for name, parameter in parameters.items():
        try:
            properties[name] = TypeAdapter(hints[name]).json_schema()
        except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
            properties[name] = {}
        if parameter.default is not inspect.Parameter.empty and isinstance(parameter.default, (str, int, float, bool)):
            properties[name]["default"] = parameter.default
    needed = [name for name, p in parameters.items() if p.default is inspect.Parameter.empty]
    first = (factory.__doc__ or "").strip().splitlines()
    return {
        "type": "object",
        "description": first[0] if first else kind,
        "properties": properties,
        "required": ["type", *needed],
        "additionalProperties": False,
    }
