"""Chunking: documents cut into stretches that are found as a whole, each with its exact place in the document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workbench.errors import UsageError
from workbench.retrieval.chunk_cuts import Stretch, by_structure, fixed, stripped
from workbench.retrieval.chunk_semantic import semantic
from workbench.retrieval.chunk_sizes import CharacterRuler, Ruler, ruler_for
from workbench.retrieval.corpus import Corpus
from workbench.retrieval.types import Chunk, Document

if TYPE_CHECKING:
    from workbench.progress import Progress
    from workbench.retrieval.embedding import Embedder

Kind = Literal["auto", "fixed", "recursive", "markdown", "code", "semantic"]
_MARKDOWN = ("markdown", "html", "notebook")


class ChunkerSettings(BaseModel):
    """How documents are cut.

    Attributes:
        kind: `fixed` cuts every `size`, between words; `recursive` keeps paragraphs, then sentences, then words whole;
            `markdown` keeps sections, lists and code blocks whole; `code` keeps Python's classes, functions and
            statements whole, and cuts what is not Python as `auto` does; `semantic` cuts where the subject changes;
            `auto` is `markdown`, `code` or `recursive` by the document's format.
        size: the most of a chunk, in `unit`.
        overlap: the most that a chunk repeats of the one before it. `fixed` repeats as much, less at most a word;
            the others repeat whole units (sentences, blocks), or nothing where none is so small.
        unit: `tokens` of the tokenizer that is given, special ones not counted; of 4 characters where none is given.
        percentile: of `semantic`: of the distances between neighbouring sentences of a document, those above this
            percentile are breaks. A stretch that is still larger than `size` is cut where its distance is largest.
        minimum: of `semantic`: no break leaves less than this before or after it, if there is another place for it.
            None: an eighth of `size`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind = "auto"
    size: int = Field(default=200, ge=1)
    overlap: int = Field(default=0, ge=0)
    unit: Literal["tokens", "characters"] = "tokens"
    percentile: float = Field(default=90, ge=0, le=100)
    minimum: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _smaller_than_size(self) -> Self:
        for name in ("overlap", "minimum"):
            if (getattr(self, name) or 0) >= self.size:
                raise ValueError(f"{name} ({getattr(self, name)}) must be less than size ({self.size})")
        return self


def chunk_corpus(
    corpus: Corpus | Iterable[Document],
    settings: ChunkerSettings | None = None,
    *,
    tokenizer: Any = None,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
) -> list[Chunk]:
    """The chunks of every document, in the order of the documents; arguments and errors as in `chunk_document`.

    Args:
        progress: told how many documents are done.
    """
    settings = settings or ChunkerSettings()
    ruler = ruler_for(settings.unit, tokenizer)
    chunks: list[Chunk] = []
    for done, document in enumerate(corpus, start=1):
        chunks += _chunks(document, settings, ruler, embedder)
        if progress is not None:
            progress.update(done, document.id)
    return chunks


def chunk_document(
    document: Document,
    settings: ChunkerSettings | None = None,
    *,
    tokenizer: Any = None,
    embedder: Embedder | None = None,
) -> list[Chunk]:
    """The chunks of a document, in its order; none where it has no text.

    Every character but whitespace is in a chunk, and a chunk is at most `settings.size`, unless that is less than one
    character has. It has at most 16 characters a token, so that neither an endless word, which some tokenizers take for
    one token, nor a table full of spaces makes a chunk endless.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, a fast tokenizer of `transformers`, or a function from a text to the
            `(start, end)` of each of its tokens. None: a token is 4 characters.
        embedder: compares sentences; needed for `semantic` only.

    Raises:
        UsageError: `semantic` without an embedder, or a tokenizer that does not say where its tokens are.
        MissingExtraError: the library that splits is not installed.
    """
    settings = settings or ChunkerSettings()
    return _chunks(document, settings, ruler_for(settings.unit, tokenizer), embedder)


def _chunks(document: Document, settings: ChunkerSettings, ruler: Ruler, embedder: Embedder | None) -> list[Chunk]:
    text = document.text
    return [
        Chunk(document.id, number, start, end, text[start:end], document.title, document.access, document.metadata)
        for number, (start, end) in enumerate(
            _tidy(text, _stretches(document, settings, ruler, embedder), ruler, settings)
        )
    ]


def _stretches(
    document: Document, settings: ChunkerSettings, ruler: Ruler, embedder: Embedder | None
) -> Iterable[Stretch]:
    kind = kind_for(document, settings.kind)
    size, overlap = settings.size * ruler.per_token, settings.overlap * ruler.per_token
    if kind == "fixed":
        return fixed(document.text, ruler, size, overlap)
    if kind != "semantic":
        return by_structure(document.text, kind, ruler, size, overlap)
    if embedder is None:
        raise UsageError("the semantic chunker needs an embedder", hint="Pass embedder=, or take another kind")
    return semantic(
        document.text,
        ruler,
        embedder,
        size=size,
        overlap=overlap,
        minimum=(settings.size // 8 if settings.minimum is None else settings.minimum) * ruler.per_token,
        percentile=settings.percentile,
    )


def kind_for(document: Document, kind: Kind) -> Kind:
    """The chunker that a document gets: `auto`, and `code` for what is not Python, are decided by its format."""
    if kind == "code" or kind == "auto":
        if document.format == "python":
            return "code"
        return "markdown" if document.format in _MARKDOWN else "recursive"
    return kind


def _tidy(text: str, stretches: Iterable[Stretch], ruler: Ruler, settings: ChunkerSettings) -> list[Stretch]:
    """The stretches without whitespace around them, none within another, and none endless."""
    size = settings.size * ruler.per_token
    kept: list[Stretch] = []
    for found in stretches:
        for start, end in _bounded(text, *found, ruler, size):
            if kept and end <= kept[-1][1]:
                continue
            while kept and start <= kept[-1][0]:
                kept.pop()
            kept.append((start, end))
    return kept


def _bounded(text: str, start: int, end: int, ruler: Ruler, size: int) -> Iterator[Stretch]:
    """A stretch without whitespace around it, cut where it is endless or, against all measuring, too large.

    Tokenizers are not additive: WordPiece makes one token of a word of 101 letters, and 16 of its first 16.
    """
    start, end = stripped(text, start, end)
    part = text[start:end]
    if len(part) > size * ruler.most_characters:
        cuts = list(fixed(part, CharacterRuler(), size * ruler.most_characters, 0))
    elif len(part) > 1 and ruler.count(part) > size:
        cuts = list(fixed(part, ruler, size, 0))
        if len(cuts) == 1:
            cuts = [(0, len(part) // 2), (len(part) // 2, len(part))]
    elif part:
        yield start, end
        return
    else:
        return
    for first, last in cuts:
        yield from _bounded(text, start + first, start + last, ruler, size)
