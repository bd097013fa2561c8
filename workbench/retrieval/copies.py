"""Copies: passages that a corpus holds more than once, so that evidence may be found in any of its places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from workbench.retrieval.metrics import held_characters, is_relevant
from workbench.retrieval.questions import locate
from workbench.retrieval.types import Chunk, Document, Question, Span


def with_copies(questions: Iterable[Question], documents: Sequence[Document]) -> list[Question]:
    """The questions, each with every other place where a document says the same as its evidence, white space aside."""
    texts = {document.id: document.text for document in documents}
    flat = {name: " ".join(text.split()) for name, text in texts.items()}
    found: dict[Span, tuple[Span, ...]] = {}
    asked = list(questions)
    for span in dict.fromkeys(span for question in asked for span in question.evidence):
        if span.document not in texts:
            continue
        quote = texts[span.document][span.start : span.end]
        words = " ".join(quote.split())
        places = [
            Span(name, *place)
            for name in texts
            if words and words in flat[name]
            for place in locate(texts[name], quote)
        ]
        found[span] = tuple(place for place in places if place != span)
    return [
        replace(question, copies={span: found[span] for span in question.evidence if found.get(span)})
        for question in asked
    ]


def settled(ranking: Sequence[Chunk], question: Question) -> Question:
    """The question with each span of its evidence at the place where this ranking does best.

    That is the place that a chunk is relevant to first; where none is relevant to any, the one most of which was read.
    """
    if not question.copies:
        return question
    return replace(
        question, evidence=tuple(_best(ranking, span, question.copies.get(span, ())) for span in question.evidence)
    )


def _best(ranking: Sequence[Chunk], span: Span, copies: Sequence[Span]) -> Span:
    def order(place: Span) -> tuple[int, int]:
        first = next((rank for rank, chunk in enumerate(ranking) if is_relevant(chunk, place)), len(ranking))
        return first, -held_characters(ranking, place)

    return min((span, *copies), key=order)
