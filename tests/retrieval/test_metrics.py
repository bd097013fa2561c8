"""Measures of a ranking: what counts as found, and agreement with trec_eval where that has a say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import UsageError
from workbench.retrieval import metrics
from workbench.retrieval.types import Chunk, Question, Span

TEXT = "The sea is salt because rivers carry minerals into it for millions of years without end."
TEXTS = {"a": TEXT, "b": TEXT[::-1]}


def chunk(document: str, start: int, end: int) -> Chunk:
    return Chunk(document, 0, start, end, TEXTS.get(document, "x" * end)[start:end])


def question(*evidence: Span, **documents: int) -> Question:
    return Question("q", "why?", answer="minerals", evidence=evidence, documents=documents)


def whole_documents(*names: str) -> list[Chunk]:
    return [Chunk(name, 0, 0, 10, "some text.") for name in names]


spans = st.builds(
    lambda document, start, length: Span(document, start, start + length),
    st.sampled_from("ab"),
    st.integers(0, 60),
    st.integers(1, 25),
)
chunks = st.builds(
    lambda document, start, length: chunk(document, start, min(len(TEXT), start + length)),
    st.sampled_from("ab"),
    st.integers(0, 70),
    st.integers(1, 40),
)
evidence_questions = st.builds(lambda found: question(*found), st.lists(spans, min_size=1, max_size=4))
graded_questions = st.builds(
    lambda grades: question(**grades),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-1, 3), min_size=1),
)
rankings = st.lists(chunks, max_size=12)


def test_a_chunk_is_relevant_from_half_of_the_span_on() -> None:
    span = Span("a", 10, 20)
    assert metrics.is_relevant(chunk("a", 0, 15), span)
    assert not metrics.is_relevant(chunk("a", 0, 14), span)
    assert metrics.is_relevant(chunk("a", 12, 17), span)
    assert metrics.is_relevant(chunk("a", 0, 60), span)
    assert not metrics.is_relevant(chunk("b", 0, 60), span)
    assert not metrics.is_relevant(chunk("a", 20, 60), span)


def test_recall_counts_the_characters_that_the_chunks_hold_together() -> None:
    asked = question(Span("a", 0, 20), Span("b", 0, 20))
    ranking = [chunk("a", 0, 10), chunk("a", 5, 15), chunk("b", 18, 40)]
    found = [metrics.recall_at_k(ranking, asked, k) for k in (1, 2, 3, 9)]
    assert found == [10 / 40, 15 / 40, 17 / 40, 17 / 40]
    # What two spans have in common is needed once.
    assert metrics.recall_at_k(ranking, question(Span("a", 0, 10), Span("a", 5, 15)), 1) == 10 / 15


def test_a_span_is_not_found_twice() -> None:
    asked = question(Span("a", 0, 10), Span("b", 0, 10))
    twice = [chunk("a", 0, 12), chunk("a", 0, 14), chunk("b", 0, 12)]
    once = [chunk("a", 0, 12), chunk("b", 0, 12)]
    discounts = [1 / math.log2(1 + rank) for rank in (1, 2, 3)]
    ideal = discounts[0] + discounts[1]
    assert metrics.ndcg_at_k(twice, asked, 3) == pytest.approx((discounts[0] + discounts[2]) / ideal)
    assert metrics.ndcg_at_k(once, asked, 3) == 1
    assert metrics.average_precision(twice, asked) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.average_precision(twice, asked, 2) == pytest.approx(1 / 2)
    assert metrics.precision_at_k(twice, asked, 4) == 3 / 4
    assert metrics.hit_at_k(twice, asked, 1) == 1
    assert metrics.mrr(twice[::-1], asked) == 1


def test_one_chunk_with_everything_is_as_perfect_as_one_for_each() -> None:
    asked = question(Span("a", 0, 10), Span("a", 20, 30), Span("a", 40, 45))
    together = [chunk("a", 0, 60)]
    apart = [chunk("a", 0, 10), chunk("a", 20, 30), chunk("a", 40, 45)]
    for ranking in (together, apart, together + apart):
        assert metrics.ndcg_at_k(ranking, asked, 5) == pytest.approx(1)
        assert metrics.average_precision(ranking, asked) == pytest.approx(1)
        assert metrics.recall_at_k(ranking, asked, 5) == 1
    # With k of 1, one span is all that a ranking of single chunks can show.
    assert metrics.ndcg_at_k(apart, asked, 1) == 1


def test_the_reciprocal_rank_is_of_the_first_relevant_chunk() -> None:
    asked = question(Span("a", 0, 10))
    ranking = [chunk("b", 0, 10), chunk("a", 8, 20), chunk("a", 4, 20), chunk("a", 0, 10)]
    assert metrics.mrr(ranking, asked) == 1 / 3
    assert metrics.mrr(ranking, asked, 2) == 0


def test_token_iou_tells_how_little_else_is_read() -> None:
    start = TEXT.index("rivers")
    asked = question(Span("a", start, TEXT.index(" for")))
    exact = [chunk("a", start, TEXT.index(" for"))]
    assert TEXT[start : TEXT.index(" for")].split() == ["rivers", "carry", "minerals", "into", "it"]
    assert metrics.token_iou(exact, asked, 1, TEXTS) == 1
    everything = [chunk("a", 0, len(TEXT))]
    assert metrics.token_iou(everything, asked, 1, TEXTS) == 5 / len(TEXT.split())
    # Five tokens of evidence, ten tokens read.
    assert metrics.token_iou(exact * 2, asked, 2, TEXTS) == 5 / 10
    assert metrics.token_iou([chunk("b", 0, 20)], asked, 1, TEXTS) == 0
    assert metrics.token_iou([], asked, 1, TEXTS) == 0
    with pytest.raises(UsageError, match="no text of a"):
        metrics.token_iou(exact, asked, 1, {})


def test_a_question_without_an_answer_has_no_measure() -> None:
    ranking = [chunk("a", 0, 10)]
    for asked in (question(), question(a=0), question(Span("a", 5, 5))):
        assert set(metrics.measures(ranking, asked, 3, TEXTS).values()) == {None}


def test_k_is_at_least_one() -> None:
    for measure in (metrics.recall_at_k, metrics.ndcg_at_k, metrics.mrr, metrics.average_precision):
        with pytest.raises(UsageError):
            measure([], question(a=1), 0)


def test_documents_count_once_at_their_first_chunk() -> None:
    ranking = [chunk("b", 0, 10), chunk("b", 10, 20), chunk("a", 0, 10)]
    asked = question(a=1)
    assert metrics.ranked_documents(ranking) == ["b", "a"]
    assert metrics.mrr(ranking, asked) == 1 / 2
    assert metrics.recall_at_k(ranking, asked, 2) == 1
    assert metrics.recall_at_k(ranking, asked, 1) == 0


@given(rankings, st.one_of(evidence_questions, graded_questions), st.integers(1, 12))
def test_measures_are_shares(ranking: list[Chunk], asked: Question, k: int) -> None:
    for value in metrics.measures(ranking, asked, k, TEXTS).values():
        assert value is None or 0 <= value <= 1 + 1e-12


@given(rankings, st.one_of(evidence_questions, graded_questions))
def test_finding_more_never_lowers_recall_and_hits(ranking: list[Chunk], asked: Question) -> None:
    for measure in (metrics.recall_at_k, metrics.hit_at_k, metrics.mrr, metrics.average_precision):
        values = [measure(ranking, asked, k) for k in range(1, 13)]
        if values[0] is not None:
            assert all(value is not None for value in values)
            assert values == sorted(values, key=float)  # type: ignore[arg-type]


@given(evidence_questions, st.integers(1, 6))
def test_the_evidence_itself_is_a_perfect_ranking(asked: Question, k: int) -> None:
    ranking = [chunk(span.document, span.start, span.end) for span in dict.fromkeys(asked.evidence)]
    found = metrics.measures(ranking, asked, k, TEXTS)
    assert found["ndcg_at_k"] == pytest.approx(1)
    assert found["hit_at_k"] == found["mrr"] == 1
    if k >= len(ranking):
        assert found["recall_at_k"] == 1
        assert found["average_precision"] == pytest.approx(1)


@given(graded_questions, st.integers(1, 10))
def test_documents_by_grade_are_a_perfect_ranking(asked: Question, k: int) -> None:
    relevant = {document: grade for document, grade in asked.documents.items() if grade > 0}
    ranking = whole_documents(*sorted(relevant, key=lambda document: -relevant[document]))
    found = metrics.measures(ranking, asked, k)
    assert found["ndcg_at_k"] == (pytest.approx(1) if relevant else None)
    assert found["recall_at_k"] == (pytest.approx(min(1, k / len(relevant))) if relevant else None)


@given(st.permutations("abcdefghij"), st.integers(0, 10), graded_questions, st.sampled_from([1, 3, 5, 10]))
def test_trec_eval_agrees(order: list[str], length: int, asked: Question, k: int) -> None:
    ir = pytest.importorskip("ir_measures", reason="ir-measures is not installed")
    ours = metrics.measures(whole_documents(*order[:length]), asked, k)
    if ours["ndcg_at_k"] is None:
        assert not any(grade > 0 for grade in asked.documents.values())
        return
    names = {
        ir.nDCG @ k: "ndcg_at_k",
        ir.R @ k: "recall_at_k",
        ir.P @ k: "precision_at_k",
        ir.RR @ k: "mrr",
        ir.AP @ k: "average_precision",
        ir.Success @ k: "hit_at_k",
    }
    run = {"q": {document: float(10 - place) for place, document in enumerate(order[:length])}}
    theirs = ir.calc_aggregate(list(names), {"q": dict(asked.documents)}, run if length else {"q": {"nowhere": 1.0}})
    assert {name: ours[name] for name in names.values()} == pytest.approx(
        {name: theirs[measure] for measure, name in names.items()}, abs=1e-6
    )
