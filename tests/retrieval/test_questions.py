"""Questions: quotes become exact places, and those without one are reported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.retrieval.real_data import ROOT, real_data
from workbench.data.dataset import Dataset
from workbench.errors import DataError, NotFoundError, UsageError
from workbench.retrieval.corpus import Corpus, open_corpus, python_reference, read_corpus
from workbench.retrieval.questions import (
    QuestionSet,
    load_questions,
    locate,
    read_beir_questions,
    read_question_file,
    read_span_questions,
    read_squad,
)
from workbench.retrieval.types import Document, Question, Span

CORPUS = Corpus(
    "zoo", (Document("ants", "Ants are\n   small. Ants dig."), Document("bees", "Bees  fly 🙂 far. (They do.)"))
)


def dataset(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_frame(pl.DataFrame(rows, strict=False, infer_schema_length=None), id="id", name="zoo-qa")


def evidence(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"document": document, "quote": quote} for document, quote in pairs]


def test_quotes_are_found_whatever_their_whitespace_and_keep_exact_places() -> None:
    rows = [
        {"id": "1", "question": "How big?", "answer": "small", "evidence": evidence(("ants", "Ants are small."))},
        {
            "id": "2",
            "question": "Both?",
            "answer": "yes",
            "evidence": evidence(("bees", "🙂\nfar. (They"), ("ants", "dig")),
        },
    ]
    found = load_questions(dataset(rows), CORPUS)
    assert found.missing == ()
    first, second = found
    assert first == Question("1", "How big?", "small", (Span("ants", 0, 18),))
    text = {document.id: document.text for document in CORPUS}
    assert [text[span.document][span.start : span.end] for span in second.evidence] == ["🙂 far. (They", "dig"]


def test_a_quote_without_one_place_is_reported_and_its_question_left_out() -> None:
    rows = [
        {"id": "ok", "question": "?", "evidence": evidence(("bees", "far"))},
        {"id": "absent", "question": "?", "evidence": evidence(("bees", "far"), ("ants", "Ants are large"))},
        {"id": "twice", "question": "?", "evidence": evidence(("ants", "Ants"))},
        {"id": "nowhere", "question": "?", "evidence": evidence(("cats", "Cats"))},
    ]
    found = load_questions(dataset(rows), CORPUS)
    assert [question.id for question in found] == ["ok"]
    assert [(entry.question, entry.document, entry.quote, entry.reason) for entry in found.missing] == [
        ("absent", "ants", "Ants are large", "not found"),
        ("twice", "ants", "Ants", "found 2 times"),
        ("nowhere", "cats", "Cats", "no such document"),
    ]
    for shown in (str(found), found._repr_html_()):
        assert "3 left out" in shown
        assert "found 2 times" in shown


def test_evidence_in_one_of_two_equal_documents_is_found_in_the_one_that_was_kept(tmp_path: Path) -> None:
    corpus = Corpus("zoo", ()).add([Document("a", "Bees fly."), Document("b", "Bees fly.")])
    rows = [{"id": "1", "question": "?", "evidence": evidence(("b", "Bees"))}]
    assert load_questions(dataset(rows), corpus).questions[0].evidence == (Span("a", 0, 4),)
    judged = read_beir_questions(*beir(tmp_path / "zoo", "q1\ta\t1\nq1\tb\t2\n"), corpus)
    assert judged.questions[0].documents == {"a": 2}


def test_a_question_without_evidence_is_one_that_the_corpus_cannot_answer() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "1", "question": "a?", "answer": None, "evidence": [], "answerable": False},
        {"id": "2", "question": "b?", "answer": "far", "evidence": evidence(("bees", "far")), "answerable": True},
        {"id": "3", "question": "c?", "answer": "far", "evidence": [], "answerable": True},
    ]
    found = load_questions(dataset(rows), CORPUS)
    assert [(question.answerable, question.answer) for question in found] == [(False, None), (True, "far")]
    assert found.answerable == 1
    assert [(entry.question, entry.reason) for entry in found.missing] == [("3", "answerable, but without evidence")]


@pytest.mark.parametrize("wrong", ["far", [{"document": "bees"}], [{"document": "bees", "quote": " "}]])
def test_evidence_of_another_form_is_refused(wrong: Any) -> None:
    with pytest.raises(DataError, match="row '1'"):
        load_questions(dataset([{"id": "1", "question": "?", "evidence": wrong}]), CORPUS)


def test_a_data_set_without_the_columns_is_refused() -> None:
    with pytest.raises(DataError, match="'evidence'"):
        load_questions(dataset([{"id": "1", "question": "?"}]), CORPUS)
    with pytest.raises(DataError, match="must be text"):
        load_questions(dataset([{"id": "1", "question": " ", "evidence": []}]), CORPUS)


def test_a_split_is_a_part() -> None:
    rows = [{"id": str(n), "question": f"{n}?", "evidence": evidence(("bees", "far"))} for n in range(40)]
    whole = load_questions(dataset(rows), CORPUS)
    parts = [load_questions(dataset(rows), CORPUS, split=split) for split in dataset(rows).splits()]
    assert sum(map(len, parts)) == len(whole) == 40
    assert parts[0].name.startswith("zoo-qa/")
    with pytest.raises(NotFoundError):
        load_questions(dataset(rows), CORPUS, split="none")


@given(st.text("ab. \n\t🙂(", min_size=1, max_size=40), st.data())
def test_any_stretch_of_a_text_is_found_where_it_is(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    quote = text[start:end]
    if not quote.strip():
        with pytest.raises(UsageError):
            locate(text, quote)
        return
    found = locate(text, re.sub(r"\s+", "  ", quote))
    first = start + len(quote) - len(quote.lstrip())
    assert (first, start + len(quote.rstrip())) in found
    assert all(text[a:b].split() == quote.split() for a, b in found)


def test_overlapping_places_are_several() -> None:
    assert locate("aba ba aba", "aba") == [(0, 3), (7, 10)]
    assert locate("a a a", "a a") == [(0, 3), (2, 5)]


def test_the_digest_follows_the_questions_and_not_their_order() -> None:
    one, two = Question("1", "a?", "b", (Span("d", 0, 3),)), Question("2", "c?", documents={"d": 2})
    assert QuestionSet("x", (one, two)).digest == QuestionSet("y", (two, one)).digest
    moved = Question("1", "a?", "b", (Span("d", 1, 3),))
    regraded = Question("2", "c?", documents={"d": 1})
    assert len({QuestionSet("x", pair).digest for pair in ((one, two), (moved, two), (one, regraded))}) == 3
    with pytest.raises(UsageError, match="'1'"):
        QuestionSet("x", (one, moved))


def beir(folder: Path, judgements: str) -> tuple[Path, Path]:
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "one"}\n{"_id": "q2", "text": "two"}\n')
    (folder / "qrels" / "test.tsv").write_text(judgements)
    return folder / "queries.jsonl", folder / "qrels" / "test.tsv"


def test_beir_judges_whole_documents_by_grade(tmp_path: Path) -> None:
    paths = beir(tmp_path / "zoo", "query-id\tcorpus-id\tscore\nq1\tants\t2\nq1\tcats\t1\nq1\tbees\t0\nq2\tcats\t1\n")
    found = read_beir_questions(*paths)
    assert found.name == "zoo/test"
    assert [(q.id, q.text, q.documents) for q in found] == [
        ("q1", "one", {"ants": 2, "cats": 1}),
        ("q2", "two", {"cats": 1}),
    ]
    checked = read_beir_questions(*paths, CORPUS)
    assert [(q.id, q.documents) for q in checked] == [("q1", {"ants": 2})]
    assert [(entry.question, entry.document) for entry in checked.missing] == [("q1", "cats"), ("q2", "cats")]


@pytest.mark.parametrize("line", ["q9\tants\t1", "q1\tants", "q1\tants\thigh", "q1\tants\t0.5"])
def test_a_malformed_judgement_names_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"test\.tsv:2"):
        read_beir_questions(*beir(tmp_path / "zoo", f"q1\tants\t1\n{line}\n"))


def test_spans_that_are_given_are_checked_against_the_text(tmp_path: Path) -> None:
    references = [{"content": "Bees  fly", "start_index": 0, "end_index": 9}]
    wrong = [{"content": "Bees fly", "start_index": 1, "end_index": 9}]
    frame = pl.DataFrame(
        {
            "question": ["a?", "b?"],
            "references": [json.dumps(references), json.dumps(wrong)],
            "corpus_id": ["bees", "bees"],
        }
    )
    frame.write_csv(tmp_path / "q.csv")
    corpus = Corpus("zoo", (Document("bees.md", CORPUS.get("bees").text),))
    found = read_span_questions(tmp_path / "q.csv", corpus)
    assert [question.evidence for question in found] == [(Span("bees.md", 0, 9),)]
    assert [entry.reason for entry in found.missing] == ["not at character 1"]
    (tmp_path / "bad.csv").write_text("question,references,corpus_id\na?,nothing,bees\n")
    with pytest.raises(DataError, match=r"bad\.csv:2"):
        read_span_questions(tmp_path / "bad.csv", corpus)


def test_squad_paragraphs_are_documents_and_impossible_questions_have_no_evidence(tmp_path: Path) -> None:
    asked = [
        {
            "id": "1",
            "question": "Who?",
            "answers": [{"text": "Bees", "answer_start": 0}, {"text": "fly", "answer_start": 5}],
        },
        {"id": "2", "question": "Why?", "answers": [], "is_impossible": True},
        {"id": "3", "question": "How?", "answers": [{"text": "fly", "answer_start": 0}]},
    ]
    article = {"title": "The_Bees", "paragraphs": [{"context": "Bees fly.", "qas": asked}]}
    (tmp_path / "s.json").write_text(json.dumps({"data": [article]}))
    corpus, found = read_squad(tmp_path / "s.json")
    assert [(document.id, document.title) for document in corpus] == [("The_Bees/000", "The Bees")]
    assert [(q.id, q.answer, q.evidence) for q in found] == [
        ("1", "Bees", (Span("The_Bees/000", 0, 4),)),
        ("2", None, ()),
    ]
    assert [entry.question for entry in found.missing] == ["3"]
    (tmp_path / "s.json").write_text('{"data": [{"title": "x"}]}')
    with pytest.raises(DataError, match="SQuAD"):
        read_squad(tmp_path / "s.json")


def test_a_file_of_questions_is_known_by_its_suffix(tmp_path: Path) -> None:
    asked = [{"id": "1", "question": "Who?", "answers": [{"text": "Bees", "answer_start": 0}]}]
    article = {"title": "Bees", "paragraphs": [{"context": "Bees fly.", "qas": asked}]}
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"data": [article]}))
    corpus = open_corpus(path)
    assert [document.id for document in corpus] == ["Bees/000"]
    assert [question.id for question in read_question_file(path, corpus)] == ["1"]
    with pytest.raises(DataError, match=r"no document 'Bees/000'.*--corpus"):
        read_question_file(path, CORPUS)
    with pytest.raises(UsageError, match="no file of questions"):
        read_question_file(tmp_path / "s.txt", corpus)
    (tmp_path / "q.csv").write_text("question,references,corpus_id\na?,[],bees\n")
    assert len(read_question_file(tmp_path / "q.csv", CORPUS)) == 1


def test_xquad_has_every_answer_in_its_place() -> None:
    corpus, found = read_squad(real_data("xquad_en", "xquad.en.json"))
    assert (len(corpus), len(found), len(found.missing)) == (240, 1190, 0)
    text = {document.id: document.text for document in corpus}
    assert all(text[s.document][s.start : s.end] == q.answer for q in found for s in q.evidence)


def test_chunking_eval_has_every_reference_in_its_place() -> None:
    folder = real_data("chunking_eval")
    corpus = read_corpus(
        folder, include=[f"{name}.md" for name in pl.read_csv(folder / "questions_df.csv")["corpus_id"].unique()]
    )
    found = read_span_questions(folder / "questions_df.csv", corpus)
    assert (len(corpus), len(found), len(found.missing)) == (5, 472, 0)
    assert sum(len(question.evidence) for question in found) == 790


def test_the_questions_on_pythons_reference_have_their_evidence_in_this_python() -> None:
    folder = ROOT / "datasets" / "python-reference-qa"
    if not folder.exists():
        pytest.skip("the data set python-reference-qa is not here")
    found = load_questions(Dataset.read(folder / "data.jsonl", id="id"), python_reference())
    assert len(found) > 200
    # Quotes follow the text of one Python version; another may have changed some of them.
    assert len(found.missing) <= len(found) // 10
