"""What an answer took: seconds, tokens, dollars. Less is better; these are reported beside quality, not as quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from workbench.errors import UsageError
from workbench.experiments.scorers.base import BaseScorer, Direction, Kind, OnError, ScoreInput, ScoreValue


@dataclass(frozen=True, kw_only=True)
class Resource(BaseScorer):
    """Base of the scorers of what a call took."""

    needs_target: ClassVar[bool] = False
    kind: Kind = "continuous"
    direction: Direction = "min"
    on_error: OnError = "exclude"

    def refusal(self, item: ScoreInput) -> ScoreValue | None:
        # An answer that post-processing rejected was generated and paid for all the same.
        return None if item.error_kind == "invalid_output" else super().refusal(item)


@dataclass(frozen=True, kw_only=True)
class Latency(Resource):
    type: ClassVar[str] = "latency"
    name: str = "latency"

    def measure(self, item: ScoreInput) -> ScoreValue:
        return ScoreValue(float(item.latency_s))


def latency(*, name: str = "latency") -> Latency:
    """Seconds from request to answer."""
    return Latency(name=name)


@dataclass(frozen=True, kw_only=True)
class Tokens(Resource):
    type: ClassVar[str] = "tokens"
    name: str = "tokens"
    which: Literal["total", "in", "out"] = "total"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.which not in ("total", "in", "out"):
            raise UsageError(f"which must be total, in or out, not {self.which!r}")

    def measure(self, item: ScoreInput) -> ScoreValue:
        counted = {"in": item.tokens_in, "out": item.tokens_out, "total": item.tokens_in + item.tokens_out}
        return ScoreValue(float(counted[self.which]))


def tokens(which: Literal["total", "in", "out"] = "total", *, name: str | None = None) -> Tokens:
    """Tokens of the prompt ("in"), of the answer ("out") or of both."""
    return Tokens(name=name or ("tokens" if which == "total" else f"tokens_{which}"), which=which)


@dataclass(frozen=True, kw_only=True)
class Cost(Resource):
    type: ClassVar[str] = "cost"
    name: str = "cost"

    def measure(self, item: ScoreInput) -> ScoreValue:
        if item.cached:
            return ScoreValue(None, explanation="the answer came from the cache")
        if item.cost_usd is None:
            return ScoreValue(None, explanation="the model's price is not known")
        return ScoreValue(float(item.cost_usd))


def cost(*, name: str = "cost") -> Cost:
    """US dollars; an answer from the cache is not scored, since it says nothing of what the variant costs."""
    return Cost(name=name)


# The comparison keeps these in a family of their own, so that reporting them costs the quality scorers no power.
RESOURCE_TYPES = frozenset({Latency.type, Tokens.type, Cost.type})
