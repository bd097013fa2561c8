"""How well a ranking of chunks answers a question: per-question measures, whose means over questions one reports.

A question is judged by its evidence (spans of documents, all of them needed) or else by graded documents.

By evidence, a chunk is *relevant* to a span if it holds at least half of the span's characters. Less is no find: a chunk
that touches a span with its last words cannot answer from it. At half, chunks that do not overlap find a span once (twice
only if they cut it exactly in the middle), so cutting finer does not make finding easier; and a span that is cut into more
pieces is found by none of them, which is what such a cut does to a reader of one chunk. `recall_at_k` has no threshold: it
counts the characters that the chunks hold together.

A span counts once, at the first chunk that is relevant to it. The j-th span that is found counts at rank j at the earliest:
so one chunk that holds all spans is as perfect a ranking as one chunk for each of them, and no value passes 1.

By documents (the judgements of BEIR and TREC), the chunks stand for their documents, each at its first place, and k counts
documents. The measures are then those of trec_eval.

Every measure is None for a question that the corpus cannot answer: there is nothing to find.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from workbench.errors import UsageError
from workbench.retrieval.types import Chunk, Question, Span

# The share of a span's characters that a chunk must hold to be relevant to it.
LEAST_SHARE = 0.5
_WORD = re.compile(r"\S+")


def recall_at_k(ranking: Sequence[Chunk], question: Question, k: int) -> float | None:
    """By evidence, the share of its characters that the first k chunks hold together, 0..1.

    By documents, the share of the relevant ones among the first k documents.
    """
    _check(k)
    if question.evidence:
        wanted = _union(question.evidence)
        held = _union(chunk.span for chunk in ranking[:k])
        total = sum(end - start for pieces in wanted.values() for start, end in pieces)
        found = sum(_common(pieces, held.get(document, [])) for document, pieces in wanted.items())
        return found / total if total else None
    if not (relevant := _relevant_documents(question)):
        return None
    return len(relevant & set(ranked_documents(ranking)[:k])) / len(relevant)


def hit_at_k(ranking: Sequence[Chunk], question: Question, k: int) -> float | None:
    """1.0 if any of the first k is relevant, else 0.0."""
    _check(k)
    found = _finds(ranking, question)
    return None if found is None else float(any(found[:k]))


def precision_at_k(ranking: Sequence[Chunk], question: Question, k: int) -> float | None:
    """The share of relevant ones among the first k, 0..1; where there are fewer than k, the missing ones are not relevant.

    A chunk that is relevant to a span counts even where another one before it was.
    """
    _check(k)
    found = _finds(ranking, question)
    return None if found is None else sum(map(bool, found[:k])) / k


def mrr(ranking: Sequence[Chunk], question: Question, k: int | None = None) -> float | None:
    """The reciprocal rank: 1 / the rank of the first relevant one, 0 where none of the first k is. Its mean is the MRR."""
    _check(k)
    found = _finds(ranking, question)
    if found is None:
        return None
    return next((1 / rank for rank, new in enumerate(found[:k], 1) if new), 0.0)


def average_precision(ranking: Sequence[Chunk], question: Question, k: int | None = None) -> float | None:
    """The mean, over all there is to find, of the precision at the rank where it is found; 0 for what is not found.

    Its mean over questions is MAP (Voorhees & Harman 2005, "TREC: experiment and evaluation in information retrieval").
    """
    _check(k)
    found = _finds(ranking, question)
    if found is None:
        return None
    return math.fsum(place / rank for place, rank in enumerate(_ranks(found[:k]), 1)) / _how_many(question)


def ndcg_at_k(ranking: Sequence[Chunk], question: Question, k: int) -> float | None:
    """Normalised discounted cumulative gain, 0..1 (Järvelin & Kekäläinen 2002), with the discount 1 / log2(1 + rank).

    By evidence, each span gains 1. By documents, a document gains its grade, as trec_eval's `ndcg_cut` and BEIR count.
    """
    _check(k)
    if question.evidence:
        found = _finds(ranking, question) or []
        gained = math.fsum(_discount(rank) for rank in _ranks(found[:k]) if rank <= k)
        best = math.fsum(_discount(rank) for rank in range(1, min(k, _how_many(question)) + 1))
        return gained / best if best else None
    if not _relevant_documents(question):
        return None
    grades = [max(0, question.documents.get(document, 0)) for document in ranked_documents(ranking)[:k]]
    ideal = sorted((grade for grade in question.documents.values() if grade > 0), reverse=True)[:k]
    return _dcg(grades) / _dcg(ideal)


def token_iou(ranking: Sequence[Chunk], question: Question, k: int, texts: Mapping[str, str]) -> float | None:
    """Intersection over union of the tokens of the evidence and of the first k chunks, 0..1: how little else is read.

    Tokens are words between white space, each told from others by its place in its document. A token that several chunks
    hold counts in the union as often as it is read (Smith & Troynikov 2024, "Evaluating chunking strategies for
    retrieval", Chroma's technical report). None where a question has no evidence.

    Args:
        texts: of at least the documents that the evidence names, by id.

    Raises:
        UsageError: a document of the evidence is not among `texts`.
    """
    _check(k)
    wanted: set[tuple[str, int]] = set()
    for span in question.evidence:
        if span.document not in texts:
            raise UsageError(f"question {question.id}: no text of {span.document}", hint="Give the corpus's documents.")
        wanted |= _tokens(span.document, span.start, texts[span.document][span.start : span.end])
    if not wanted:
        return None
    read = [token for chunk in ranking[:k] for token in _tokens(chunk.document, chunk.start, chunk.text)]
    common = len(wanted.intersection(read))
    return common / (len(wanted) + len(read) - common)


def measures(
    ranking: Sequence[Chunk], question: Question, k: int, texts: Mapping[str, str] | None = None
) -> dict[str, float | None]:
    """All measures at k by name; `token_iou` only where `texts` are given.

    `mrr` and `average_precision` look at the first k like the others.
    """
    found = {
        "recall_at_k": recall_at_k(ranking, question, k),
        "hit_at_k": hit_at_k(ranking, question, k),
        "precision_at_k": precision_at_k(ranking, question, k),
        "ndcg_at_k": ndcg_at_k(ranking, question, k),
        "mrr": mrr(ranking, question, k),
        "average_precision": average_precision(ranking, question, k),
    }
    return found if texts is None else found | {"token_iou": token_iou(ranking, question, k, texts)}


def is_relevant(chunk: Chunk, span: Span) -> bool:
    """Whether the chunk holds at least half of the span's characters."""
    if chunk.document != span.document or span.end <= span.start:
        return False
    held = min(chunk.end, span.end) - max(chunk.start, span.start)
    return held >= LEAST_SHARE * (span.end - span.start)


def held_characters(ranking: Sequence[Chunk], span: Span) -> int:
    """How many of the span's characters the chunks hold together."""
    held = _union(chunk.span for chunk in ranking if chunk.document == span.document)
    return _common([(span.start, span.end)], held.get(span.document, []))


def ranked_documents(ranking: Sequence[Chunk]) -> list[str]:
    """The documents of the chunks, each at its first place."""
    return list(dict.fromkeys(chunk.document for chunk in ranking))


def _finds(ranking: Sequence[Chunk], question: Question) -> list[frozenset[int]] | None:
    """For each rank, which spans (or documents) it is relevant to, by number; None where there is nothing to find."""
    if question.evidence:
        if not _how_many(question):
            return None
        spans = list(enumerate(dict.fromkeys(question.evidence)))
        return [frozenset(place for place, span in spans if is_relevant(chunk, span)) for chunk in ranking]
    if not (relevant := _relevant_documents(question)):
        return None
    return [
        frozenset([place]) if document in relevant else frozenset()
        for place, document in enumerate(ranked_documents(ranking))
    ]


def _ranks(found: Sequence[frozenset[int]]) -> list[int]:
    """The rank at which each find counts, in the order of finding; the j-th counts at rank j at the earliest."""
    seen: set[int] = set()
    ranks: list[int] = []
    for rank, places in enumerate(found, 1):
        new = places - seen
        seen |= new
        ranks += [max(rank, len(ranks) + number) for number in range(1, len(new) + 1)]
    return ranks


def _how_many(question: Question) -> int:
    """What there is to find: distinct spans that hold something, or relevant documents."""
    if question.evidence:
        return len({span for span in question.evidence if span.end > span.start})
    return len(_relevant_documents(question))


def _relevant_documents(question: Question) -> set[str]:
    return {document for document, grade in question.documents.items() if grade > 0}


def _union(spans: Iterable[Span]) -> dict[str, list[tuple[int, int]]]:
    """By document, the stretches that the spans cover together, sorted and apart from one another."""
    merged: dict[str, list[tuple[int, int]]] = {}
    for span in sorted(spans, key=lambda span: (span.document, span.start, span.end)):
        pieces = merged.setdefault(span.document, [])
        if pieces and span.start <= pieces[-1][1]:
            pieces[-1] = (pieces[-1][0], max(pieces[-1][1], span.end))
        else:
            pieces.append((span.start, span.end))
    return merged


def _common(first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]) -> int:
    """Characters in both of two unions."""
    return sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in first for b in second)


def _tokens(document: str, start: int, text: str) -> set[tuple[str, int]]:
    return {(document, start + match.start()) for match in _WORD.finditer(text)}


def _dcg(grades: Sequence[int]) -> float:
    return math.fsum(grade * _discount(rank) for rank, grade in enumerate(grades, 1))


def _discount(rank: int) -> float:
    return 1 / math.log2(1 + rank)


def _check(k: int | None) -> None:
    if k is not None and k < 1:
        raise UsageError(f"k of {k}", hint="Give a number of at least 1.")
