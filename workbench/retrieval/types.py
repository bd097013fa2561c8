"""What retrieval is about: documents, the chunks cut from them, questions with their evidence, and hits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from workbench.files import digest_json

# A document that carries this label may be read by anyone.
PUBLIC = "public"
Format = Literal["text", "markdown", "html", "pdf", "notebook", "python"]


@dataclass(frozen=True)
class Document:
    """One text of a corpus.

    Attributes:
        id: unique within the corpus and stable between its versions: a relative path, a topic, an id of the source.
        text: what is searched; offsets count its characters.
        format: of `text`, by which chunkers that know it cut: HTML and PDF have become markdown or plain text here.
        access: the label that a reader needs; `PUBLIC` needs none.
        metadata: plain values by which a search may filter.
    """

    id: str
    text: str
    title: str = ""
    format: Format = "text"
    access: str = PUBLIC
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 over everything that reaches a reader."""
        return digest_json([self.id, self.text, self.title, self.format, self.access, dict(self.metadata)])


@dataclass(frozen=True)
class Span:
    """A stretch of a document: characters `start` up to, but without, `end`."""

    document: str
    start: int
    end: int


@dataclass(frozen=True)
class Chunk:
    """A stretch of a document that is found as a whole: `document.text[start:end] == text`, always.

    Attributes:
        number: 0-based place among the chunks of its document.
    """

    document: str
    number: int
    start: int
    end: int
    text: str
    title: str = ""
    access: str = PUBLIC
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """`DOCUMENT#START-END`: the same stretch has the same id in every index."""
        return f"{self.document}#{self.start}-{self.end}"

    @property
    def span(self) -> Span:
        return Span(self.document, self.start, self.end)


@dataclass(frozen=True)
class Question:
    """A question and what answers it.

    Attributes:
        answer: the expected answer; None for a question that the corpus cannot answer.
        evidence: the stretches that hold the answer; empty for a question without one. All of them are needed.
        documents: ids of relevant documents with their grade, for judgements that name whole documents (BEIR).
        copies: other places that say the same as a span of the evidence, word for word; finding one of them is as good.
    """

    id: str
    text: str
    answer: str | None = None
    evidence: tuple[Span, ...] = ()
    documents: Mapping[str, int] = field(default_factory=dict)
    copies: Mapping[Span, tuple[Span, ...]] = field(default_factory=dict)

    @property
    def answerable(self) -> bool:
        return bool(self.evidence or self.documents)


@dataclass(frozen=True)
class Hit:
    """A chunk that a search found.

    Attributes:
        score: of the ranking that was asked for; comparable within one search only.
        ranks: 1-based place in each ranking that took part, such as `{"dense": 1, "sparse": 7}`.
    """

    chunk: Chunk
    score: float
    ranks: Mapping[str, int] = field(default_factory=dict)
