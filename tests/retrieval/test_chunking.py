"""Chunking: stretches with exact places, whatever the text, the unit and the chunker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from workbench.errors import UsageError
from workbench.retrieval.chunk_semantic import sentences
from workbench.retrieval.chunk_sizes import ruler_for
from workbench.retrieval.chunking import ChunkerSettings, Kind, chunk_corpus, chunk_document
from workbench.retrieval.corpus import Corpus
from workbench.retrieval.types import Chunk, Document, Format

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("semantic_text_splitter")
pytest.importorskip("tree_sitter_python")

WORDS = "The quick brown fox jumps over the lazy dog, unbelievably. Tokenizers tokenize! Ünïcode? 日本語です。"
PROSE = (
    "One fish swam. Two fish swam too.\n\nRed fish hid in the reef. Blue fish slept.\n\nThe sea was calm. It was late."
)


@cache
def byte_pairs() -> Any:
    """A byte-level tokenizer, in which an emoji is several tokens; with a limit on length, as models have."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([WORDS] * 3, trainer)
    made.enable_truncation(8)
    return made


@cache
def word_pieces() -> Any:
    """Like BERT's: lower case, without accents, a long word is one unknown token and spaces are none."""
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]"], show_progress=False)
    made.train_from_iterator([WORDS] * 3, trainer)
    made.enable_padding(length=16)
    return made


def words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


class Letters:
    """Embeds a text by its first letter: equal letters are the same subject."""

    def encode(self, texts: Sequence[str], **_: Any) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(texts), 32), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text):
                vectors[row, ord(word[0]) % 32] += 1
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[:, 0] += np.where(norms[:, 0] == 0, 1, 0)
        scaled: npt.NDArray[np.float32] = vectors / np.maximum(norms, 1).astype(np.float32)
        return scaled


def cut(document: Document | str, tokenizer: Any = None, **fields: Any) -> list[Chunk]:
    document = Document("d", document) if isinstance(document, str) else document
    embedder: Any = Letters()
    return chunk_document(document, ChunkerSettings(**fields), tokenizer=tokenizer, embedder=embedder)


pieces = st.sampled_from(
    ["word ", "a", ". ", "! ", "\n", "\r\n", "\r\n\r\n", "\n\n", " ", "   ", "\t", "🙂", "👩‍👩‍👧‍👦",
     "é", "e\u0301", "\u0301", "日本。",
     "# Heading\n", "## ", "- item\n", "```\ncode()\n```\n", "| a | b |\n|---|---|\n", "def f(x):\n    return x\n",
     "class A:\n    y = 1\n\n", "    ", "tokenize", "x" * 90, "\x1c", "\u00a0", "\u2028", "\f", "\ufeff", "İ", "ﬁ"]
)  # fmt: skip
texts = st.lists(pieces | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=40).map("".join)
kinds = st.sampled_from(["auto", "fixed", "recursive", "markdown", "code", "semantic"])
formats = st.sampled_from(["text", "markdown", "python"])
rulers = st.sampled_from(["characters", "estimate", "bytes", "pieces", "words"])


@given(texts, kinds, formats, rulers, st.integers(1, 30), st.integers(0, 29))
@example("🙂" * 9, "fixed", "text", "bytes", 3, 1)
@example("e\u0301" * 9, "fixed", "text", "pieces", 2, 1)
@example(" " * 900 + "end", "recursive", "text", "pieces", 1, 0)
@example("x" * 101 + "tokenize", "recursive", "text", "pieces", 1, 0)
@example("word word " + "x" * 90 + "0:0", "recursive", "text", "words", 3, 2)
@settings(max_examples=150)
def test_chunks_are_in_order_exact_complete_and_small(
    text: str, kind: Kind, format: Format, unit: str, size: int, overlap: int
) -> None:
    overlap = min(overlap, size - 1)
    tokenizer = {"bytes": byte_pairs(), "pieces": word_pieces(), "words": words}.get(unit)
    of = "characters" if unit == "characters" else "tokens"
    asked = {"kind": kind, "size": size, "overlap": overlap, "unit": of, "percentile": 60, "minimum": size // 4}
    document = Document("d", text, "Title", format, "staff", {"year": 2026})
    chunks = cut(document, tokenizer, **asked)

    assert all(text[chunk.start : chunk.end] == chunk.text and chunk.text.strip() for chunk in chunks)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    for one, next_one in pairwise(chunks):
        assert one.start < next_one.start
        assert one.end < next_one.end
    covered = {place for chunk in chunks for place in range(chunk.start, chunk.end)}
    assert all(place in covered or character.isspace() for place, character in enumerate(text))
    ruler = ruler_for(of, tokenizer)
    for chunk in chunks:
        # A character may have more units than a chunk; nothing else may make one larger.
        assert ruler.count(chunk.text) <= size * ruler.per_token or len(chunk.text) == 1, chunk
        assert len(chunk.text) <= ruler.most_characters * size * ruler.per_token
    assert all((c.title, c.access, c.metadata) == ("Title", "staff", {"year": 2026}) for c in chunks)
    assert cut(document, tokenizer, **asked) == chunks


@pytest.mark.parametrize("kind", ["auto", "fixed", "recursive", "markdown", "code", "semantic"])
@pytest.mark.parametrize("text", ["", " \n\t\r\n", "\x1c\u2028"])
def test_a_document_without_text_has_no_chunks(kind: Kind, text: str) -> None:
    assert cut(text, kind=kind) == []
    assert cut(text, byte_pairs(), kind=kind) == []


def test_a_fixed_chunk_has_as_many_tokens_as_asked_and_repeats_the_overlap() -> None:
    text = "".join(f"w{number} " for number in range(100))
    chunks = cut(text, words, kind="fixed", size=10, overlap=3)
    assert chunks[0].text == "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9"
    assert chunks[1].text == "w7 w8 w9 w10 w11 w12 w13 w14 w15 w16"
    assert len(chunks) == 14


@given(st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=60), st.integers(8, 24), st.data())
def test_a_fixed_overlap_is_as_asked_to_within_a_word(parts: list[str], size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 8))
    chunks = cut(" ".join(parts), byte_pairs(), kind="fixed", size=size, overlap=overlap)
    count = ruler_for("tokens", byte_pairs()).count
    longest = max(count(" " + part) for part in parts)
    for one, next_one in pairwise(chunks):
        shared = one.text[next_one.start - one.start :]
        # A word's first token is another one where no space goes before it, so the bounds have a token of room.
        assert count(shared) <= overlap + 1
        assert count(shared) >= overlap - longest - 1


def test_words_are_not_cut_where_a_word_begins_near_by() -> None:
    text = "unbelievably tokenized words " * 20
    for chunk in cut(text, byte_pairs(), kind="fixed", size=40, overlap=10):
        assert set(chunk.text.split()) <= {"unbelievably", "tokenized", "words"}


def test_without_a_tokenizer_a_token_is_four_characters() -> None:
    text = "abcd" * 25
    assert [len(chunk.text) for chunk in cut(text, kind="fixed", size=10)] == [40, 40, 20]
    assert [len(chunk.text) for chunk in cut(text, kind="fixed", size=40, unit="characters")] == [40, 40, 20]


def test_a_tokenizers_own_limits_are_not_used_and_stay_as_they_are() -> None:
    tokenizer = byte_pairs()
    (chunk,) = cut(WORDS, tokenizer, size=1000)
    assert chunk.text == WORDS
    assert tokenizer.truncation["max_length"] == 8


def test_an_endless_word_that_is_one_token_is_cut_all_the_same() -> None:
    text = "x" * 10_000
    assert ruler_for("tokens", word_pieces()).count(text) == 1
    for kind in ("fixed", "recursive", "markdown"):
        chunks = cut(text, word_pieces(), kind=kind, size=50)
        assert {len(chunk.text) for chunk in chunks} == {800, 400}


def test_recursive_keeps_paragraphs_then_sentences() -> None:
    assert [chunk.text for chunk in cut(PROSE, kind="recursive", size=50, unit="characters")] == PROSE.split("\n\n")
    first, *_ = cut(PROSE, kind="recursive", size=20, unit="characters")
    assert first.text == "One fish swam."


MARKDOWN = """# Guide

Intro.

## Install

Run this:

```
# not a heading
pip install it
```

## Use

- one
- two
"""
CODE = '''"""A module."""

import os


def first(x):
    """Doc, ünï 🙂."""
    return x


class Second:
    def method(self):
        return os.name
'''


def test_auto_follows_the_format() -> None:
    markdown = cut(Document("d", MARKDOWN, format="markdown"), size=75, unit="characters")
    assert [chunk.text.splitlines()[0] for chunk in markdown] == ["# Guide", "## Install", "## Use"]
    assert cut(Document("d", MARKDOWN, format="html"), size=75, unit="characters") == markdown
    code = cut(Document("d", CODE, format="python"), size=70, unit="characters")
    assert [chunk.text.splitlines()[0] for chunk in code] == ['"""A module."""', "def first(x):", "class Second:"]
    for kind in ("auto", "code"):
        prose = cut(Document("d", PROSE, format="text"), kind=kind, size=50, unit="characters")
        assert prose == cut(PROSE, kind="recursive", size=50, unit="characters")


def test_the_indentation_of_a_first_line_stays() -> None:
    code = "class A:\n    def one(self):\n        return 1\n\n    def two(self):\n        return 2\n"
    chunks = cut(Document("d", code, format="python"), size=45, unit="characters")
    assert "    def two(self):\n        return 2" in [chunk.text for chunk in chunks]


@given(texts)
def test_sentences_follow_one_another_without_a_gap(text: str) -> None:
    found = sentences(text)
    assert "".join(text[start:end] for start, end in found) == text
    assert all(text[start:end].strip() for start, end in found[1:])


def test_sentences_of_several_scripts() -> None:
    text = 'He said "no." Then Dr. A. Smith left, e.g. home. 日本語です。終わり。\n\nA heading\n\nEnd'
    parts = [text[start:end].strip() for start, end in sentences(text)]
    assert parts == [
        'He said "no."',
        "Then Dr. A. Smith left, e.g. home.",
        "日本語です。",
        "終わり。",
        "A heading",
        "End",
    ]


def test_semantic_cuts_where_the_subject_changes() -> None:
    text = "Ants act. Apes ask. Aunts add. Zoos zip. Zebras zoom. Zones zag. "
    chunks = cut(text, kind="semantic", size=60, unit="characters")
    assert [chunk.text for chunk in chunks] == ["Ants act. Apes ask. Aunts add.", "Zoos zip. Zebras zoom. Zones zag."]
    assert len(cut(text, kind="semantic", size=80, minimum=40, unit="characters")) == 1
    repeated = cut(text, kind="semantic", size=60, overlap=12, unit="characters")
    assert repeated[1].text == "Aunts add. Zoos zip. Zebras zoom. Zones zag."


def test_semantic_splits_what_is_too_large_at_its_largest_distance() -> None:
    text = "Ants act. Apes ask. Bats bite. Bees buzz. " * 4
    chunks = cut(text, kind="semantic", size=30, percentile=100, unit="characters")
    assert all(len(chunk.text) <= 30 for chunk in chunks)
    assert {chunk.text for chunk in chunks} == {"Ants act. Apes ask.", "Bats bite. Bees buzz."}


def test_semantic_leaves_no_crumbs_where_there_is_another_place() -> None:
    text = "Ants act. Zoo. Apes ask. Ants add. Aunts air. Apes act. Ants ask. "
    shortest = [
        min(len(c.text) for c in cut(text, kind="semantic", size=40, minimum=n, unit="characters")) for n in (0, 10)
    ]
    assert shortest[0] < 10 <= shortest[1]


def test_semantic_needs_an_embedder() -> None:
    with pytest.raises(UsageError, match="embedder"):
        chunk_document(Document("d", PROSE), ChunkerSettings(kind="semantic"))


def test_a_tokenizer_must_say_where_its_tokens_are() -> None:
    class Slow:
        def encode(self, text: str) -> list[int]:
            return [1]

        __call__ = encode

    with pytest.raises(UsageError, match="Slow"):
        chunk_document(Document("d", PROSE), tokenizer=Slow())


@pytest.mark.parametrize("fields", [{"size": 0}, {"size": 5, "overlap": 5}, {"size": 5, "minimum": 5}, {"sise": 5}])
def test_settings_that_cannot_be_met_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ChunkerSettings.model_validate(fields)


def test_a_large_document_is_cut_piece_by_piece() -> None:
    text = "".join(f"## Part {number}\n\n" + "Some words here. " * 40 + "\n\n" for number in range(900))
    chunks = cut(Document("d", text, format="markdown"), size=800, unit="characters")
    assert len(chunks) == 900
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)


def test_chunks_of_a_corpus_keep_the_order_of_its_documents() -> None:
    told: list[tuple[int, str]] = []

    class Told:
        def update(self, done: int, note: str = "") -> None:
            told.append((done, note))

    corpus = Corpus("c", (Document("b", PROSE), Document("a", "Short."), Document("e", " ")))
    chunks = chunk_corpus(corpus, ChunkerSettings(size=50, unit="characters"), progress=Told())
    assert [chunk.id for chunk in chunks] == ["a#0-6", "b#0-33", "b#35-77", "b#79-109"]
    assert told == [(1, "a"), (2, "b"), (3, "e")]
