"""QuestionSet: questions about one corpus with a content digest, and the evidence that has no place in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench.errors import UsageError
from workbench.files import digest_json, short
from workbench.retrieval.types import Question

SHOWN = 20


@dataclass(frozen=True)
class MissingQuote:
    """Evidence without one place in the corpus.

    Attributes:
        question: id of the question, which is left out of the set unless other documents answer it too (BEIR).
        quote: empty where evidence is a whole document.
        reason: `not found`, `found 3 times`, `no such document` and the like.
    """

    question: str
    document: str
    quote: str
    reason: str


@dataclass(frozen=True, eq=False)
class QuestionSet:
    """Questions about one corpus.

    Attributes:
        missing: evidence that has no one place in the corpus; a question that cannot be judged without it is left out.

    Raises:
        UsageError: two questions have one id.
    """

    name: str
    questions: tuple[Question, ...]
    missing: tuple[MissingQuote, ...] = ()

    def __post_init__(self) -> None:
        twice = [id for id, count in Counter(question.id for question in self.questions).items() if count > 1]
        if twice:
            raise UsageError(f"the question set {self.name!r} has two questions {twice[0]!r}")

    @cached_property
    def digest(self) -> str:
        """Over questions, answers and evidence, in whatever order they come."""
        return digest_json(sorted((_plain(question) for question in self.questions), key=lambda entry: entry[0]))

    @property
    def answerable(self) -> int:
        """How many of the questions the corpus answers."""
        return sum(question.answerable for question in self.questions)

    def __len__(self) -> int:
        return len(self.questions)

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions)

    def __str__(self) -> str:
        head = f"questions {self.name} {short(self.digest)}: {len(self):,}, {self.answerable:,} with evidence"
        if not self.missing:
            return head
        lines = [f"  {entry.question}: {entry.reason}: {entry.document} {entry.quote}" for entry in self._shown()]
        more = len(self.missing) - SHOWN
        return "\n".join([f"{head}; {self._without_place()}", *lines, *([f"  and {more:,} more"] if more > 0 else [])])

    __repr__ = __str__

    def _shown(self) -> list[MissingQuote]:
        clip = [entry.quote if len(entry.quote) <= 80 else entry.quote[:79] + "…" for entry in self.missing[:SHOWN]]
        return [
            MissingQuote(entry.question, entry.document, quote, entry.reason)
            for entry, quote in zip(self.missing, clip, strict=False)
        ]

    def _without_place(self) -> str:
        asked = len({entry.question for entry in self.missing})
        left_out = asked - len({entry.question for entry in self.missing} & {question.id for question in self})
        return f"evidence of {asked:,} has no one place in the corpus ({left_out:,} left out):"

    def _repr_html_(self) -> str:
        from workbench.html import callout, escape, table

        rows = [("questions", len(self)), ("with evidence", self.answerable), ("digest", short(self.digest))]
        shown = f"<b>{escape(self.name)}</b>" + table(("", ""), rows)
        if self.missing:
            shown += callout(self._without_place(), "warn")
            cells = [(entry.question, entry.document, entry.quote, entry.reason) for entry in self._shown()]
            shown += table(("question", "document", "quote", "reason"), cells)
        return f"<div>{shown}</div>"


def _plain(question: Question) -> list[Any]:
    evidence = [[span.document, span.start, span.end] for span in question.evidence]
    return [question.id, question.text, question.answer, evidence, dict(question.documents)]
