"""Scorers of answers that rest on passages: is each sentence supported, are citations right, does it abstain when it must.

Support is judged by words and by meaning: a sentence counts as supported by a passage when the mean of the share of its
words that the passage has and of the cosine to the passage's nearest sentence reaches a threshold. That is a heuristic; a
judge or an NLI model takes its place with `register_support`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.errors import NotFoundError, UsageError
from workbench.experiments.scorers.base import BaseScorer, Kind, OnError, ScoreInput, ScoreValue, as_text, brief
from workbench.experiments.scorers.forms import CITATION, squad_tokens
from workbench.experiments.scorers.text import check_pattern

DEFAULT_SUPPORT = "overlap"
THRESHOLD = 0.6
# What an answer says that does not answer.
ABSTAINING = (
    r"\b(cannot|can't|can not|could not|unable to) (be )?(answer|answered|tell|find|say)"
    r"|\b(do(es)? not|don't|doesn't) (say|mention|contain|know|answer|provide|state)"
    r"|\bno (answer|information|mention)\b|\bnot (mentioned|stated|answered|in the (passages|text|context))\b|\bunanswerable\b"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")

# From pairs of (sentence, passage) to how well the passage supports the sentence, in 0..1.
Support = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
_supports: dict[str, Support] = {}


def register_support(name: str, support: Support) -> None:
    """Let `support` (an NLI model, a judge) say how well passages support sentences, under the name `name`."""
    _supports[name] = support


def sentences(text: str) -> list[str]:
    """Sentences of an answer, with their citations."""
    return [part.strip() for part in _SENTENCE.split(text) if squad_tokens(CITATION.sub("", part))]


def overlap_support(pairs: Sequence[tuple[str, str]], model: str = "minilm") -> list[float]:
    """The mean of word coverage and of the cosine to the nearest sentence of the passage."""
    from workbench.retrieval.embedding import get_embedder

    parts = {passage: [passage, *sentences(passage)] for _, passage in pairs}
    texts = list(
        dict.fromkeys([sentence for sentence, _ in pairs] + [part for found in parts.values() for part in found])
    )
    vectors = dict(zip(texts, get_embedder(model).encode(texts), strict=True)) if texts else {}
    found = []
    for sentence, passage in pairs:
        words, there = set(squad_tokens(sentence)), set(squad_tokens(passage))
        covered = len(words & there) / len(words) if words else 0.0
        nearest = max(float(vectors[sentence] @ vectors[part]) for part in parts[passage])
        found.append((covered + max(0.0, nearest)) / 2)
    return found


def _support(name: str, pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
    if name == DEFAULT_SUPPORT:
        return overlap_support(pairs)
    if name not in _supports:
        raise NotFoundError(f"there is no support called {name!r}", hint="Register it with register_support.")
    return _supports[name](pairs)


@dataclass(frozen=True, kw_only=True)
class Abstention(BaseScorer):
    type: ClassVar[str] = "abstention"
    needs_target: ClassVar[bool] = False
    name: str = "abstention"
    pattern: str = ABSTAINING
    field: str = "answer"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pattern(self.pattern)

    def measure(self, item: ScoreInput) -> ScoreValue:
        abstains = re.search(self.pattern, as_text(item.result), re.IGNORECASE) is not None
        answerable = bool(_field(item.target, self.field))
        label = "abstained" if abstains else "answered"
        if abstains != answerable:
            return ScoreValue(1.0, label=label)
        what = "has an answer" if answerable else "has no answer"
        return ScoreValue(0.0, label=label, explanation=f"{label}, and the question {what}")


def abstention(
    *, pattern: str = ABSTAINING, field: str = "answer", name: str = "abstention", on_error: OnError = "fail"
) -> Abstention:
    """1 where an answer is given to a question that has one, or none to a question that has none.

    Args:
        pattern: what an answer that abstains looks like.
        field: of the target, which is empty where there is no answer.
    """
    return Abstention(name=name, pattern=pattern, field=field, on_error=on_error)


@dataclass(frozen=True, kw_only=True)
class Grounded(BaseScorer):
    """What groundedness and citations share."""

    needs_target: ClassVar[bool] = False
    kind: Kind = "continuous"
    support: str = DEFAULT_SUPPORT
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise UsageError(f"threshold is {self.threshold}", hint="Give a number above 0 and at most 1.")

    @property
    def bounds(self) -> tuple[float, float]:
        return (0.0, 1.0)

    def measure(self, item: ScoreInput) -> ScoreValue:
        return self.score_all([item])[0]

    def score_all(self, items: Sequence[ScoreInput]) -> list[ScoreValue]:
        """Every sentence of every answer against the passages it is held to, in one batch."""
        scores = [self.unscored(item) for item in items]
        claims = [self.claims(item) for item, score in zip(items, scores, strict=True) if score is None]
        pairs = list(dict.fromkeys(pair for found in claims for pair in found))
        supported = dict(zip(pairs, _support(self.support, pairs), strict=True)) if pairs else {}
        return [
            score if score is not None else self.value(item, supported)
            for item, score in zip(items, scores, strict=True)
        ]

    @abstractmethod
    def claims(self, item: ScoreInput) -> list[tuple[str, str]]:
        """The pairs of sentence and passage whose support decides the score."""

    @abstractmethod
    def value(self, item: ScoreInput, supported: Mapping[tuple[str, str], float]) -> ScoreValue:
        """The score, from how well each pair is supported."""

    def unscored(self, item: ScoreInput) -> ScoreValue | None:
        found = self.refusal(item)
        if found is not None:
            return found
        if re.search(ABSTAINING, as_text(item.result), re.IGNORECASE):
            return ScoreValue(None, label="abstained", explanation="the answer claims nothing")
        return None if item.passages else ScoreValue(None, explanation="no passages were shown")


@dataclass(frozen=True, kw_only=True)
class Groundedness(Grounded):
    type: ClassVar[str] = "groundedness"
    name: str = "groundedness"

    def claims(self, item: ScoreInput) -> list[tuple[str, str]]:
        return [(sentence, text) for sentence in _said(item) for _, text in item.passages]

    def value(self, item: ScoreInput, supported: Mapping[tuple[str, str], float]) -> ScoreValue:
        said = _said(item)
        if not said:
            return ScoreValue(0.0, explanation="the answer is empty")
        best = [max(supported[sentence, text] for _, text in item.passages) for sentence in said]
        loose = [sentence for sentence, support in zip(said, best, strict=True) if support < self.threshold]
        share = 1 - len(loose) / len(said)
        return ScoreValue(share, explanation=f"not supported: {brief(loose[0])}" if loose else None)


def groundedness(
    *,
    support: str = DEFAULT_SUPPORT,
    threshold: float = THRESHOLD,
    name: str = "groundedness",
    on_error: OnError = "fail",
) -> Groundedness:
    """Share of the answer's sentences that a passage it was shown supports, 0..1; an answer that abstains is not scored.

    Args:
        support: `overlap` (words and embeddings), or a name given to `register_support`.
        threshold: support from which a sentence counts.
    """
    return Groundedness(name=name, support=support, threshold=threshold, on_error=on_error)


@dataclass(frozen=True, kw_only=True)
class Citations(Grounded):
    type: ClassVar[str] = "citations"
    name: str = "citations"

    def claims(self, item: ScoreInput) -> list[tuple[str, str]]:
        return [(sentence, text) for sentence, _, text in _cited(item) if text is not None]

    def value(self, item: ScoreInput, supported: Mapping[tuple[str, str], float]) -> ScoreValue:
        found = _cited(item)
        if not found:
            return ScoreValue(0.0, explanation="nothing is cited")
        wrong = [
            number for sentence, number, text in found if text is None or supported[sentence, text] < self.threshold
        ]
        share = 1 - len(wrong) / len(found)
        return ScoreValue(share, explanation=f"wrong: {', '.join(f'[{n}]' for n in wrong)}" if wrong else None)


def citations(
    *,
    support: str = DEFAULT_SUPPORT,
    threshold: float = THRESHOLD,
    name: str = "citations",
    on_error: OnError = "fail",
) -> Citations:
    """Share of the citations `[n]` whose passage exists and supports the sentence, 0..1; an answer without any scores 0.

    Args: as of `groundedness`.
    """
    return Citations(name=name, support=support, threshold=threshold, on_error=on_error)


def _said(item: ScoreInput) -> list[str]:
    """The answer's sentences, without their citations."""
    return [CITATION.sub("", sentence) for sentence in sentences(as_text(item.result))]


def _cited(item: ScoreInput) -> list[tuple[str, int, str | None]]:
    """Each sentence that cites, without its citations; the number it names; that passage, None where there is none."""
    texts = dict(enumerate((text for _, text in item.passages), 1))
    return [
        (CITATION.sub("", sentence), int(number), texts.get(int(number)))
        for sentence in sentences(as_text(item.result))
        for match in CITATION.finditer(sentence)
        for number in match.group(1).split(",")
    ]


@dataclass(frozen=True, kw_only=True)
class EvidenceRecall(BaseScorer):
    type: ClassVar[str] = "evidence_recall"
    name: str = "evidence_recall"
    kind: Kind = "continuous"
    field: str = "evidence"

    @property
    def bounds(self) -> tuple[float, float]:
        return (0.0, 1.0)

    def measure(self, item: ScoreInput) -> ScoreValue:
        wanted = [_flat(quote["quote"]) for quote in _field(item.target, self.field) or []]
        if not wanted:
            return ScoreValue(None, explanation="the question has no evidence")
        shown = [_flat(text) for _, text in item.passages]
        missed = [quote for quote in wanted if not any(quote in text for text in shown)]
        share = 1 - len(missed) / len(wanted)
        return ScoreValue(share, explanation=f"not shown: {brief(missed[0])}" if missed else None)


def evidence_recall(
    *, field: str = "evidence", name: str = "evidence_recall", on_error: OnError = "fail"
) -> EvidenceRecall:
    """Share of the target's quotes that the passages hold whole, 0..1; white space does not matter."""
    return EvidenceRecall(name=name, field=field, on_error=on_error)


def _field(target: Any, name: str) -> Any:
    return target.get(name) if isinstance(target, Mapping) else target


def _flat(text: str) -> str:
    return " ".join(text.split())
