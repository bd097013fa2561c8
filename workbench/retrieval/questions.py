"""Questions: what a search is judged by, with evidence as exact places in documents, so that judgements outlive chunks."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench.data.dataset import Dataset
from workbench.data.readers import read_bytes, read_csv, read_jsonl
from workbench.data.store import open_dataset
from workbench.data.values import as_text
from workbench.errors import DataError, UsageError
from workbench.retrieval.corpus import Corpus
from workbench.retrieval.question_set import MissingQuote, QuestionSet
from workbench.retrieval.types import Document, Question, Span
from workbench.workspace import Layout

__all__ = [
    "MissingQuote",
    "QuestionSet",
    "load_questions",
    "locate",
    "read_beir_questions",
    "read_question_file",
    "read_span_questions",
    "read_squad",
]


def locate(text: str, quote: str) -> list[tuple[int, int]]:
    """Every place of a quote in a text, as `(start, end)` in characters; any whitespace matches any other.

    Raises:
        UsageError: the quote is empty.
    """
    words = quote.split()
    if not words:
        raise UsageError("an empty quote")
    pattern = re.compile(r"\s+".join(map(re.escape, words)))
    found: list[tuple[int, int]] = []
    match = pattern.search(text)
    while match:
        found.append(match.span())
        match = pattern.search(text, match.start() + 1)
    return found


class _Judge:
    """Gathers questions, and those whose evidence has no one place."""

    def __init__(self, find: Callable[[str], Document | None]) -> None:
        self.find = find
        self.questions: list[Question] = []
        self.missing: list[MissingQuote] = []

    def add(self, id: str, text: str, answer: str | None, evidence: Iterable[tuple[str, str, int | None]]) -> None:
        """`evidence` is document, quote and where that begins, if that is known."""
        spans: list[Span] = []
        complete = True
        for document, quote, start in evidence:
            span, reason = self._span(document, quote, start)
            if span is None:
                self.missing.append(MissingQuote(id, document, quote, reason))
                complete = False
            else:
                spans.append(span)
        if complete:
            self.questions.append(Question(id, text, answer, tuple(dict.fromkeys(spans))))

    def _span(self, name: str, quote: str, start: int | None) -> tuple[Span | None, str]:
        document = self.find(name)
        if document is None:
            return None, "no such document"
        if start is not None:
            exact = document.text.startswith(quote, start)
            return (Span(document.id, start, start + len(quote)), "") if exact else (None, f"not at character {start}")
        found = locate(document.text, quote)
        if len(found) == 1:
            return Span(document.id, *found[0]), ""
        return None, f"found {len(found)} times" if found else "not found"

    def done(self, name: str) -> QuestionSet:
        return QuestionSet(name, tuple(self.questions), tuple(self.missing))


def load_questions(
    source: Dataset | Layout, corpus: Corpus, name: str = "", *, split: str | None = None
) -> QuestionSet:
    """Questions from a data set with the columns `question`, `evidence` and perhaps `answer` and `answerable`.

    `evidence` is a list of `{"document": id, "quote": text}`, each quote a stretch of the document, whitespace aside,
    that occurs in it once. Without evidence, or where `answerable` is false, a question is one that the corpus cannot
    answer. A question with a quote that has no one place is left out, and its quotes are listed in `missing`.

    Args:
        source: a data set, or a workspace's layout with the `name` of one.
        split: the part that is used; default: all of it.

    Raises:
        DataError: a column is absent, or a row's evidence has another form; names the row.
        NotFoundError: there is no such data set or split.
    """
    dataset = source if isinstance(source, Dataset) else open_dataset(source, name)
    dataset = dataset.split(split) if split is not None else dataset
    absent = [column for column in ("question", "evidence") if column not in dataset.columns]
    if absent:
        raise DataError(
            f"the data set {dataset.name!r} has no column {absent[0]!r}",
            hint=f"Its columns are: {', '.join(dataset.columns)}",
        )
    judge = _Judge(corpus.find)
    for record in dataset.records():
        question, answer = record["question"], record.get("answer")
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"row {record['id']!r} of {dataset.name!r}: the question must be text")
        evidence = _quotes(record, dataset.name) if record.get("answerable") is not False else []
        if record.get("answerable") is True and not evidence:
            judge.missing.append(MissingQuote(record["id"], "", "", "answerable, but without evidence"))
            continue
        answer = as_text(answer) if answer is not None and evidence else None
        judge.add(record["id"], question, answer, evidence)
    return judge.done(f"{dataset.name}/{dataset.split_name}" if dataset.split_name else dataset.name)


def _quotes(record: Mapping[str, Any], dataset: str) -> list[tuple[str, str, int | None]]:
    entries = record["evidence"] or []
    quotes: list[tuple[str, str, int | None]] = []
    for entry in entries if isinstance(entries, list) else [entries]:
        document, quote = (entry.get("document"), entry.get("quote")) if isinstance(entry, dict) else (None, None)
        if not isinstance(document, str) or not isinstance(quote, str) or not quote.strip():
            raise DataError(
                f"row {record['id']!r} of {dataset!r}: evidence is not a list of document and quote",
                hint='Write it as [{"document": "…", "quote": "…"}]',
            )
        quotes.append((document, quote, None))
    return quotes


def read_beir_questions(queries: str | Path, judgements: str | Path, corpus: Corpus | None = None) -> QuestionSet:
    """Questions in BEIR's form: `queries.jsonl` (`_id`, `text`) and `qrels/SPLIT.tsv` (query, document, grade).

    They are judged by whole documents: a grade of 0 or less is not relevant, and a query without a judgement is left out.

    Args:
        corpus: relevant documents that it lacks are listed in `missing` and not expected; a query that has no others is
            left out. Without it nothing is checked.

    Raises:
        DataError: a file is malformed, or a judgement names a query that isn't there; names the line.
    """
    table = read_jsonl(Path(queries))
    texts: dict[str, str] = {}
    for index, row in enumerate(table.rows):
        if row.get("_id") is None or not isinstance(row.get("text"), str):
            table.source.fail("a query needs '_id' and 'text'", row=index)
        texts[as_text(row["_id"])] = row["text"]
    path = Path(judgements)
    grades: dict[str, dict[str, int]] = {}
    lines = read_bytes(path).decode().splitlines()
    for number, cells in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
        if not cells or (number == 1 and cells[0] == "query-id"):
            continue
        try:
            query, document, score = cells
            grade = int(score.removesuffix(".0"))
        except ValueError:
            message = "a judgement is query-id, corpus-id and a whole score, separated by tabs"
            raise DataError(message, path=str(path), line=number) from None
        if query not in texts:
            raise DataError(f"the query {query!r} is not in {Path(queries).name}", path=str(path), line=number)
        judged = grades.setdefault(query, {})
        if grade > 0:
            judged[document] = grade
    if not grades:
        raise DataError("no judgements", path=str(path))
    questions: list[Question] = []
    missing: list[MissingQuote] = []
    for query, judged in grades.items():
        known: dict[str, int] = {}
        for id, grade in judged.items():
            kept = corpus.find(id) if corpus is not None else None
            if corpus is not None and kept is None:
                missing.append(MissingQuote(query, id, "", "no such document"))
                continue
            name = id if kept is None else kept.id
            known[name] = max(grade, known.get(name, 0))
        if known or not judged:
            questions.append(Question(query, texts[query], documents=known))
    return QuestionSet(f"{path.resolve().parent.parent.name}/{path.stem}", tuple(questions), tuple(missing))


def read_span_questions(path: str | Path, corpus: Corpus) -> QuestionSet:
    """Questions from CSV with the columns `question`, `references` and `corpus_id`, and `answer` if there is one.

    `references` is a JSON list of `{"content", "start_index", "end_index"}`, in characters of the document `corpus_id`
    (its id, with or without a suffix such as `.md`). Content that is not at its place is listed in `missing`. Questions
    are named `q1`, `q2` and so on, by their place in the file.

    Raises:
        DataError: the file is malformed; names the line.
    """
    file = Path(path)
    table = read_csv(file)
    absent = [column for column in ("question", "references", "corpus_id") if column not in table.columns]
    if absent:
        raise DataError(f"no column {absent[0]!r}", path=str(file))
    by_stem = {Path(document.id).with_suffix("").as_posix(): document for document in corpus}
    judge = _Judge(lambda id: corpus.find(id) or by_stem.get(id))
    for index, row in enumerate(table.rows):
        document = as_text(row["corpus_id"])
        try:
            references = json.loads(row["references"])
            evidence = [(document, str(entry["content"]), int(entry["start_index"])) for entry in references]
        except (TypeError, ValueError, KeyError):
            table.source.fail("references must be a JSON list of content, start_index and end_index", row=index)
        answer = row.get("answer")
        judge.add(f"q{index + 1}", as_text(row["question"]), None if answer is None else as_text(answer), evidence)
    return judge.done(file.stem)


def read_question_file(path: str | Path, corpus: Corpus) -> QuestionSet:
    """Questions from a file: CSV as in `read_span_questions`, or JSON in SQuAD's form, whose paragraphs are the corpus.

    Raises:
        DataError: the file is malformed, or asks about documents that the corpus lacks.
        UsageError: it is neither CSV nor JSON.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        return read_span_questions(path, corpus)
    if suffix != ".json":
        raise UsageError(f"{path} is no file of questions", hint="Give .csv with places, or .json in SQuAD's form.")
    found = read_squad(path)[1]
    absent = next((span.document for q in found for span in q.evidence if span.document not in corpus), None)
    if absent is not None:
        hint = f"Search the paragraphs of that file: --corpus {path}"
        raise DataError(f"the corpus {corpus.name!r} has no document {absent!r}", path=str(path), hint=hint)
    return found


def read_squad(path: str | Path) -> tuple[Corpus, QuestionSet]:
    """The paragraphs and questions of a file in SQuAD's form, versions 1 and 2.

    A paragraph is a document, `TITLE/NUMBER`. The evidence of a question is its first answer, of which annotators may
    have given several; a question marked impossible has none.

    Raises:
        DataError: the file has another form.
    """
    file = Path(path)
    try:
        articles = json.loads(read_bytes(file))["data"]
        documents: list[Document] = []
        asked: list[tuple[str, str, str | None, list[tuple[str, str, int | None]]]] = []
        for number, article in enumerate(articles):
            title = str(article.get("title") or number)
            for place, paragraph in enumerate(article["paragraphs"]):
                document = Document(f"{title}/{place:03d}", paragraph["context"], title.replace("_", " "))
                documents.append(document)
                for entry in paragraph["qas"]:
                    answers = [] if entry.get("is_impossible") else entry["answers"][:1]
                    found = [(document.id, answer["text"], int(answer["answer_start"])) for answer in answers]
                    answer = found[0][1] if found else None
                    asked.append((str(entry["id"]), entry["question"], answer, [*found]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"not in SQuAD's form: {error}", path=str(file)) from None
    corpus = Corpus(file.stem, tuple(documents))
    judge = _Judge(corpus.find)
    for id, text, answer, evidence in asked:
        judge.add(id, text, answer, evidence)
    return corpus, judge.done(file.stem)
