"""A scorer made of a plain function."""

from __future__ import annotations

import importlib
import inspect
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from workbench.errors import NotFoundError, UsageError
from workbench.experiments.scorers.base import BaseScorer, Direction, Kind, OnError, ScoreInput, ScoreValue
from workbench.files import digest_bytes

ScoreFunction: TypeAlias = Callable[[ScoreInput], "ScoreValue | float | bool | None"]


@dataclass(frozen=True, kw_only=True)
class Custom(BaseScorer):
    type: ClassVar[str] = "custom"
    needs_target: ClassVar[bool] = False
    kind: Kind = "continuous"
    target: bool = False
    function: ScoreFunction = field(compare=False)
    source: str

    def config(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "name": self.name,
            "function": f"{self.function.__module__}:{self.function.__qualname__}",
            "source": self.source,
            "kind": self.kind,
            "direction": self.direction,
            "on_error": self.on_error,
            "needs_target": self.target,
        }

    def refusal(self, item: ScoreInput) -> ScoreValue | None:
        if self.target and item.target is None:
            return ScoreValue(None, explanation="the row has no target")
        return super().refusal(item)

    def measure(self, item: ScoreInput) -> ScoreValue:
        try:
            found = self.function(item)
        except Exception as error:
            # The function is the user's: one row it cannot judge is a row not scored, with the reason beside it.
            return ScoreValue(None, explanation=f"{type(error).__name__}: {error}")
        if found is None:
            return ScoreValue(None, explanation="the function returned None")
        score = found if isinstance(found, ScoreValue) else _score(found, self.name)
        if score.value is None:
            return score
        value = float(score.value)
        if not math.isfinite(value):
            return ScoreValue(None, label=score.label, explanation=f"the function returned {value}")
        if self.kind == "binary" and value not in (0.0, 1.0):
            raise UsageError(f"the binary scorer {self.name} returned {value}", hint="Declare kind='continuous'")
        return ScoreValue(value, label=score.label, explanation=score.explanation)


def _score(found: Any, name: str) -> ScoreValue:
    try:
        return ScoreValue(float(found))
    except (TypeError, ValueError):
        raise UsageError(
            f"the scorer {name} returned {type(found).__name__}", hint="Return a number, a bool, a ScoreValue or None"
        ) from None


def custom(
    function: ScoreFunction,
    *,
    name: str | None = None,
    kind: Kind = "continuous",
    direction: Direction = "max",
    on_error: OnError = "fail",
    needs_target: bool = False,
    version: str | None = None,
) -> Custom:
    """A scorer from a function of a `ScoreInput` that returns a number, a bool, a `ScoreValue` or None (not scored).

    Its digest is that of the function's source, so that scores by unlike code are told apart; what the function calls
    or closes over is not in it. Give `version` for a function whose source cannot be read, and change it with the code.
    A row on which the function raises is not scored.

    Raises:
        UsageError: the source cannot be read and no version is given.
    """
    if not hasattr(function, "__qualname__"):
        raise UsageError("custom() takes a function", hint="Wrap the object: custom(lambda item: scorer(item), …)")
    default = function.__qualname__.rsplit(".", 1)[-1]
    return Custom(
        name=name or ("custom" if default == "<lambda>" else default),
        kind=kind,
        direction=direction,
        on_error=on_error,
        target=needs_target,
        function=function,
        source=f"version:{version}" if version is not None else _source_digest(function),
    )


def _source_digest(function: ScoreFunction) -> str:
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        raise UsageError(
            f"the source of {function.__qualname__} cannot be read", hint="Give custom(…, version='1')"
        ) from None
    return digest_bytes(textwrap.dedent(source).strip().encode())


def custom_from_config(config: dict[str, Any]) -> Custom:
    """Rebuild a custom scorer from its config: its function is imported by name, and its source must be unchanged.

    Raises:
        NotFoundError: the function cannot be imported (it was defined in a notebook, or is gone) or has changed.
        UsageError: the config names no function or has unknown settings.
    """
    settings = {key: value for key, value in config.items() if key not in ("type", "function", "source")}
    reference = config.get("function")
    if not isinstance(reference, str) or reference.count(":") != 1:
        raise UsageError(f"a custom scorer needs function: 'module:name', not {reference!r}")
    module, path = reference.split(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise NotFoundError(
            f"the scorer's function {reference} cannot be imported", hint="Move it from the notebook into a module"
        ) from None
    recorded = config.get("source")
    if isinstance(recorded, str) and recorded.startswith("version:"):
        settings.setdefault("version", recorded.removeprefix("version:"))
    unknown = set(settings) - {"name", "kind", "direction", "on_error", "needs_target", "version"}
    if unknown:
        raise UsageError(f"the scorer custom has no setting {', '.join(sorted(unknown))}")
    scorer = custom(found, **settings)
    if recorded is not None and scorer.source != recorded:
        raise NotFoundError(
            f"{reference} has changed since it was recorded", hint="Check out the commit that the run names"
        )
    return scorer
