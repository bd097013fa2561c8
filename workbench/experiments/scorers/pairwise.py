"""Scorer of pairs: a model says which of two answers to one row is better.

Models favour a position, often the first. So each pair is asked twice with the positions swapped, and only a verdict that
survives the swap counts; the others are ties, labelled "inconsistent" so that their share can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from workbench.errors import UsageError
from workbench.experiments.scorers.base import OnError, ScoreInput, ScoreValue, brief
from workbench.experiments.scorers.judge import (
    CASE,
    REASONING_CHARACTERS,
    ModelScorer,
    ask,
    asked,
    fault,
    judging_pipeline,
    material,
)

if TYPE_CHECKING:
    from workbench.models.engine import Quantization
    from workbench.pipeline.pipeline import Answer, Pipeline

Side = Literal["baseline", "variant", "tie"]

LATER = "judged once both variants have answered"
_WIN, _TIE, _LOSS = 1.0, 0.5, 0.0
_PAIRWISE = (
    "Compare two answers to one question by this rubric:"
    + CASE
    + """<first>
{{ first }}
</first>
<second>
{{ second }}
</second>

First write your reasoning in one to three sentences, then the winner by the rubric: "first", "second", or "tie" where
neither is better. Which answer stands first says nothing about it.
Write JSON only: {"reasoning": "...", "winner": "..."}"""
)


@dataclass(frozen=True, kw_only=True)
class Pairwise(ModelScorer):
    type: ClassVar[str] = "pairwise"
    name: str = "pairwise"

    @cached_property
    def pipeline(self) -> Pipeline:
        return judging_pipeline(
            self, _PAIRWISE, {"winner": {"type": "string", "enum": ["first", "second", "tie"]}}, ("first", "second")
        )

    @property
    def bounds(self) -> tuple[float, float]:
        return (0.0, 1.0)

    def measure(self, item: ScoreInput) -> ScoreValue:
        return ScoreValue(None, explanation=LATER)

    def refusal(self, item: ScoreInput) -> ScoreValue | None:
        """None: a failed answer too is judged beside the other one."""
        return None

    def score_pairs(self, pairs: Sequence[tuple[ScoreInput, ScoreInput]]) -> list[ScoreValue]:
        """Judge all pairs in one call of the model, the baseline's answer first and then the variant's first.

        Raises:
            UsageError: a pair is of two rows.
            ModelError: the judge's model is not here.
        """
        for baseline, variant in pairs:
            if baseline.row_id != variant.row_id:
                raise UsageError(f"a pair is of one row, not of {baseline.row_id} and {variant.row_id}")
        settled = [self._settled(*pair) for pair in pairs]
        questions = []
        for (baseline, variant), score in zip(pairs, settled, strict=True):
            if score is None:
                shared, ours, theirs = asked(self, baseline), material(variant.result), material(baseline.result)
                questions += [shared | {"first": theirs, "second": ours}, shared | {"first": ours, "second": theirs}]
        answers = iter(ask(self.pipeline, questions))
        return [_verdict(next(answers), next(answers)) if score is None else score for score in settled]

    def _settled(self, baseline: ScoreInput, variant: ScoreInput) -> ScoreValue | None:
        """The score of a pair that needs no model; None where one has to judge."""
        failed = baseline.error_kind is not None, variant.error_kind is not None
        if any(failed) and self.on_error == "exclude":
            kinds = {"the baseline": baseline.error_kind, "the variant": variant.error_kind}
            return ScoreValue(
                None, explanation="; ".join(f"{side} failed: {kind}" for side, kind in kinds.items() if kind)
            )
        if failed == (True, True):
            return ScoreValue(_TIE, "tie", f"both failed: {baseline.error_kind}, {variant.error_kind}")
        if failed == (False, True):
            return ScoreValue(_LOSS, "loss", f"the variant failed: {variant.error_kind}")
        if failed == (True, False):
            return ScoreValue(_WIN, "win", f"the baseline failed: {baseline.error_kind}")
        if material(baseline.result) == material(variant.result):
            return ScoreValue(_TIE, "tie", "the answers are the same")
        return None


def pairwise(
    rubric: str,
    *,
    model: str,
    name: str = "pairwise",
    system: str | None = None,
    max_new_tokens: int = 256,
    quantization: Quantization = "none",
    on_error: OnError = "fail",
) -> Pairwise:
    """Compare every variant's answer with the baseline's on the same row, by a model that reads a rubric.

    1 where the variant wins, 0.5 for a tie, 0 where the baseline wins; the label is "win", "tie", "loss", or
    "inconsistent" for a tie that the order of the answers made. A failed answer loses against one that did not fail
    (`on_error` "exclude": the pair is not scored); equal answers tie without being judged.

    Raises:
        UsageError: no rubric.
    """
    return Pairwise(
        name=name,
        on_error=on_error,
        rubric=rubric,
        model=model,
        system=system,
        max_new_tokens=max_new_tokens,
        quantization=quantization,
    )


def _verdict(as_asked: Answer, swapped: Answer) -> ScoreValue:
    for answer in (as_asked, swapped):
        if answer.error_kind is not None:
            return ScoreValue(None, explanation=fault(answer))
    one = _side(as_asked, first="baseline", second="variant")
    two = _side(swapped, first="variant", second="baseline")
    explanation = f"first order: {_told(one, as_asked)}; swapped: {_told(two, swapped)}"
    if one != two:
        return ScoreValue(_TIE, "inconsistent", explanation)
    value, label = {"variant": (_WIN, "win"), "baseline": (_LOSS, "loss"), "tie": (_TIE, "tie")}[one]
    return ScoreValue(value, label, explanation)


def _side(answer: Answer, *, first: Side, second: Side) -> Side:
    winner = answer.value["winner"]
    return first if winner == "first" else second if winner == "second" else "tie"


def _told(side: Side, answer: Answer) -> str:
    return f"{side} ({brief(answer.value['reasoning'], REASONING_CHARACTERS // 2)})"
