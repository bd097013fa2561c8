"""What a scorer is: one answer in, one number out, with a declared policy for answers that failed.

A new one is a frozen dataclass under `BaseScorer` with a `type` and a `measure`, a factory, and a line in `registry`;
`custom` makes one of a plain function.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from workbench.errors import UsageError
from workbench.files import canonical_json, digest_json

Kind = Literal["binary", "continuous"]
Direction = Literal["max", "min"]
OnError = Literal["fail", "exclude"]


@dataclass(frozen=True)
class ScoreInput:
    """One answer and what was expected.

    Attributes:
        result: the post-processed value; None where the call or its post-processing failed (`error_kind` says how).
        output: the model's raw text; None where there is none.
        latency_s: seconds. cost_usd: US dollars; None where the price is not known.
        cached: the answer came from the response cache and cost nothing this time.
        passages: id and text of what the prompt showed, in the order of their numbers.
    """

    row_id: str
    inputs: Mapping[str, Any]
    target: Any
    result: Any
    output: str | None = None
    error_kind: str | None = None
    latency_s: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0
    cached: bool = False
    passages: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ScoreValue:
    """A score. `value` None means not scored, and `explanation` says why; a mean never counts it as 0."""

    value: float | None
    label: str | None = None
    explanation: str | None = None


class Scorer(Protocol):
    """What a run needs of a scorer; `BaseScorer` implements all but the measuring."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def direction(self) -> Direction: ...
    @property
    def on_error(self) -> OnError: ...
    @property
    def digest(self) -> str: ...
    def config(self) -> dict[str, Any]: ...
    @property
    def bounds(self) -> tuple[float, float] | None:
        """The least and the largest score there can be; None where there is no limit."""
        ...

    def score(self, item: ScoreInput) -> ScoreValue: ...
    def score_all(self, items: Sequence[ScoreInput]) -> list[ScoreValue]: ...


@runtime_checkable
class PairScorer(Protocol):
    """A scorer that compares two answers to the same question, once both are there."""

    # Nothing else is asked for: the check at run time reads what it asks for, and a judge's digest loads its model.
    def score_pairs(self, pairs: Sequence[tuple[ScoreInput, ScoreInput]]) -> list[ScoreValue]:
        """Of each (baseline, variant): 1 where the variant wins, 0.5 for a tie, 0 where it loses; None: not judged."""
        ...


@dataclass(frozen=True, kw_only=True)
class BaseScorer(ABC):
    """A scorer as plain settings and one method, `measure`.

    A subclass raises `version` whenever the same settings would give other numbers: scores of unlike digests are not
    compared with each other.

    Attributes:
        kind: "binary" scores are 0 or 1; "continuous" ones any finite number.
        direction: whether more ("max") or less ("min") is better.
        on_error: what a failed answer scores. "fail": 0 (with direction "min", where 0 would be the best, not scored);
            "exclude": not scored. Failures are counted beside the mean either way.
    """

    type: ClassVar[str]
    version: ClassVar[int] = 1
    needs_target: ClassVar[bool] = True

    name: str
    kind: Kind = "binary"
    direction: Direction = "max"
    on_error: OnError = "fail"

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise UsageError(f"a scorer's name must be text without outer spaces, not {self.name!r}")
        for field, allowed in (
            ("kind", ("binary", "continuous")),
            ("direction", ("max", "min")),
            ("on_error", ("fail", "exclude")),
        ):
            if getattr(self, field) not in allowed:
                raise UsageError(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}")

    @property
    def bounds(self) -> tuple[float, float] | None:
        return (0.0, 1.0) if self.kind == "binary" else None

    @abstractmethod
    def measure(self, item: ScoreInput) -> ScoreValue:
        """Score an answer that did not fail and, where one is needed, has a target."""

    def config(self) -> dict[str, Any]:
        """The settings as JSON; `scorer_from_config` rebuilds the scorer from them."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        fixed = {"kind", "direction"}
        return {"type": self.type} | {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in settings.items()
            if name not in fixed
        }

    @property
    def digest(self) -> str:
        """Digest of type, settings and version: two scorers of one digest give the same scores."""
        return digest_json({"type": self.type, "config": self.config(), "version": self.version})

    def score(self, item: ScoreInput) -> ScoreValue:
        """Score one answer under the error policy."""
        unscored = self.refusal(item)
        return unscored if unscored is not None else self.measure(item)

    def score_all(self, items: Sequence[ScoreInput]) -> list[ScoreValue]:
        """Score many answers, in their order; scorers that are faster in batches override it."""
        return [self.score(item) for item in items]

    def refusal(self, item: ScoreInput) -> ScoreValue | None:
        """The score of an answer that cannot be measured; None where it can."""
        if self.needs_target and item.target is None:
            return ScoreValue(None, explanation="the row has no target")
        if item.error_kind is None:
            return None
        failed = self.on_error == "fail" and self.direction == "max"
        return ScoreValue(0.0 if failed else None, explanation=item.error_kind)


def verdict(right: bool, item: ScoreInput, *, label: str | None = None, got: Any = None) -> ScoreValue:
    """A binary score that explains a wrong answer."""
    if right:
        return ScoreValue(1.0, label=label)
    seen = item.result if got is None else got
    return ScoreValue(0.0, label=label, explanation=f"expected {brief(item.target)}, got {brief(seen)}")


def brief(value: Any, limit: int = 120) -> str:
    """A value as one short line."""
    try:
        text = value if isinstance(value, str) else canonical_json(value).decode()
    except (TypeError, ValueError):
        text = repr(value)
    text = " ".join(text.split()) or "nothing"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def as_text(value: Any) -> str:
    """The text that a text scorer reads: a string as it is, anything else as canonical JSON."""
    return value if isinstance(value, str) else canonical_json(tidy(value)).decode()


def as_json(value: Any) -> Any:
    """The value that a JSON scorer reads: a string that is JSON is parsed, anything else stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def tidy(value: Any) -> Any:
    """A value with outer spaces of its strings removed and whole floats as integers, so that 1.0 equals 1.

    NaN and infinities, which no JSON has, become their names.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {str(key): tidy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tidy(item) for item in value]
    return value


def same_json(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: key order, outer spaces and 1 against 1.0 do not matter; true is not 1."""
    return canonical_json(tidy(a)) == canonical_json(tidy(b))
