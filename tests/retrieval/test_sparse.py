"""Sparse search: what counts as a word, BM25 by its formula, and the same answers after saving."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workbench.errors import IntegrityError, UsageError
from workbench.retrieval.sparse import Method, SparseIndex, SparseSettings
from workbench.retrieval.words import Words

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

TEXTS = [
    "The with statement wraps the execution of a block with methods of a context manager.",
    "os.path.join joins paths; use collections.OrderedDict to keep an order.",
    "A function read_csv_file reads one file. The HTTPServer class serves.",
    "Straße and Größe are German words; naïve is French in origin.",
    "東京の天気は晴れです。",
    "",
    "Files are closed when the block ends.",
]
plain = Words(None, frozenset())


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("read_csv_file", ["read_csv_file", "read", "csv", "file"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("getUserName2", ["getusername2", "get", "user", "name2"]),
        ("__init__", ["__init__", "init"]),
        ("os.path.join", ["os.path.join", "os", "path", "join"]),
        ("collections.OrderedDict", ["collections.ordereddict", "ordereddict", "collections", "ordered", "dict"]),
        ("The end.", ["the", "end"]),
        ("v3.14", ["v3.14", "v3", "14"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("ﬁle ＡＢＣ e\u0301t\u00e9", ["file", "abc", "\u00e9t\u00e9"]),
        ("東京都 は", ["東京", "京都", "は"]),
        ("Python入門", ["python", "入門"]),
        ("हिन्दी", ["हिन्दी"]),
        ("-- … ++", []),
    ],
)
def test_words(text: str, terms: list[str]) -> None:
    assert plain(text) == terms


def test_wholes_are_not_stemmed_and_stop_words_stay_in_names() -> None:
    words = Words(lambda word: word.removesuffix("s"), frozenset({"is", "the"}))
    assert words("the is_files files") == ["is_files", "file", "file"]


@given(st.text(max_size=60))
def test_any_text_gives_words_that_are_small_and_not_empty(text: str) -> None:
    for term in plain(text):
        assert term
        assert term == term.casefold()


@given(st.lists(st.sampled_from(["open", "read", "file", "x1"]), min_size=1, max_size=4))
def test_the_three_ways_to_write_a_name_have_the_same_parts(parts: list[str]) -> None:
    snake, camel, prose = "_".join(parts), "".join(part.title() for part in parts), " ".join(parts)
    for written in (snake, camel, ".".join(parts)):
        assert plain(written)[-len(parts) :] == plain(prose)


def test_identifiers_are_found_whole_and_by_their_parts() -> None:
    index = SparseIndex.build(TEXTS)
    for query in ("read_csv_file", "csv reader", "READ_CSV_FILE", "readCsv"):
        assert index.search(query, 1)[0].tolist() == [2]
    for query in ("OrderedDict", "collections", "ordered dict", "os.path", "path join"):
        assert index.search(query, 1)[0].tolist() == [1]
    assert index.search("strasse", 3)[0].tolist() == [3]
    assert index.search("天気", 3)[0].tolist() == [4]
    assert index.search("closing a file", 1)[0].tolist() == [6]


def by_formula(texts: list[str], query: str, settings: SparseSettings) -> list[float]:
    """BM25 as Lucene scores it, written down anew."""
    words = Words(None, frozenset())
    rows = [Counter(words(text)) for text in texts]
    mean = sum(row.total() for row in rows) / len(rows)
    found = []
    for row in rows:
        score = 0.0
        for term in words(query):
            holding = sum(term in other for other in rows)
            idf = math.log(1 + (len(rows) - holding + 0.5) / (holding + 0.5))
            length = 1 - settings.b + settings.b * row.total() / mean
            score += idf * row[term] / (row[term] + settings.k1 * length) if row[term] else 0.0
        found.append(score)
    return found


@pytest.mark.parametrize("changes", [{}, {"k1": 0.9, "b": 0.4}, {"b": 0.0}, {"k1": 3.0, "b": 1.0}])
def test_scores_are_those_of_the_formula(changes: dict[str, float]) -> None:
    settings = SparseSettings(language=None, **changes)
    index = SparseIndex.build(TEXTS, settings)
    for query in ("the block", "file file read_csv_file", "order of words"):
        assert index.scores(query) == pytest.approx(by_formula(TEXTS, query, settings), rel=1e-5)


@pytest.mark.parametrize("method", get_args(Method))
def test_a_query_without_known_words_finds_nothing(method: Any) -> None:
    index = SparseIndex.build(TEXTS, SparseSettings(method=method))
    for query in ("", "xylophone zebra", "?!"):
        places, scores = index.search(query, 5)
        assert places.tolist() == scores.tolist() == []
        assert index.scores(query).tolist() == [0.0] * len(TEXTS)
    # And a text without a word of the query is no hit, though BM25+ has a score for it.
    assert sorted(index.search("block zebra", 99)[0].tolist()) == [0, 6]
    assert np.flatnonzero(index.scores("block")).tolist() in ([0, 6], [])


def test_results_are_best_first_with_ties_by_index() -> None:
    texts = ["one two", "two one", "three", "one two", "two one one"]
    index = SparseIndex.build(texts, SparseSettings(language=None))
    places, scores = index.search("one", 10)
    assert places.tolist() == [4, 0, 1, 3]
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    for k in range(5):
        assert index.search("one", k)[0].tolist() == [4, 0, 1, 3][:k]


def test_only_what_is_allowed_is_found_with_the_scores_it_has_anyway() -> None:
    index = SparseIndex.build(TEXTS)
    allowed = np.array([False, True, True, True, True, True, True])
    places, scores = index.search("the block of files", 10, allowed)
    assert 0 not in places
    assert scores.tolist() == index.scores("the block of files")[places].tolist()
    assert index.search("block", 10, np.zeros(7, bool))[0].size == 0
    with pytest.raises(UsageError, match="truth values"):
        index.search("block", 10, np.ones(3, bool))
    with pytest.raises(UsageError):
        index.search("block", 10, np.ones(7, int))
    with pytest.raises(UsageError):
        index.search("block", -1)


def test_stop_words_are_left_out_where_that_is_asked_for() -> None:
    assert SparseIndex.build(TEXTS).search("the with", 1)[0].tolist() == [0]
    bare = SparseIndex.build(TEXTS, SparseSettings(stopwords=True))
    assert bare.search("the with", 1)[0].size == 0
    german = SparseIndex.build(["der Hund", "die Katze"], SparseSettings(language="german", stopwords=True))
    assert german.search("der", 1)[0].size == 0
    assert german.search("Hunde", 1)[0].tolist() == [0]


@pytest.mark.parametrize("method", get_args(Method))
def test_a_saved_index_finds_the_same(method: Any, tmp_path: Path) -> None:
    settings = SparseSettings(method=method, k1=1.2, stopwords=True)
    index = SparseIndex.build(TEXTS, settings)
    index.save(tmp_path / "sparse")
    again = SparseIndex.load(tmp_path / "sparse")
    assert again.settings == settings
    assert len(again) == len(TEXTS)
    for query in ("block", "os.path", "天気 Größe", "nothing known", "file files reads"):
        assert again.scores(query).tobytes() == index.scores(query).tobytes()
        (places, scores), (places_again, scores_again) = index.search(query, 4), again.search(query, 4)
        assert (places.tobytes(), scores.tobytes()) == (places_again.tobytes(), scores_again.tobytes())


@pytest.mark.parametrize("texts", [[], ["", "?"]])
def test_an_index_of_nothing(texts: list[str], tmp_path: Path) -> None:
    index = SparseIndex.build(texts)
    index.save(tmp_path)
    for found in (index, SparseIndex.load(tmp_path)):
        assert found.scores("word").tolist() == [0.0] * len(texts)
        assert found.search("word", 3)[0].size == 0


def test_saved_files_hold_no_pickle(tmp_path: Path) -> None:
    SparseIndex.build(TEXTS, SparseSettings(method="bm25+")).save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"data.npy", "indices.npy", "indptr.npy", "nonoccurrence.npy", "sparse.json", "terms.json"}
    for path in tmp_path.glob("*.npy"):
        assert np.load(path, allow_pickle=False).dtype.kind in "fi"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _pickle(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _point_beyond(path: Path) -> None:
    np.save(path, np.load(path) + 1000)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("data.npy", Path.unlink),
        ("data.npy", _cut),
        ("indices.npy", _point_beyond),
        ("indptr.npy", _point_beyond),
        ("indices.npy", _pickle),
        ("terms.json", _cut),
        ("sparse.json", _cut),
        ("sparse.json", Path.unlink),
    ],
)
def test_a_damaged_index_is_refused(name: str, damage: Any, tmp_path: Path) -> None:
    SparseIndex.build(TEXTS).save(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(IntegrityError, match="sparse index"):
        SparseIndex.load(tmp_path)


def test_an_index_of_another_format_is_refused(tmp_path: Path) -> None:
    SparseIndex.build(TEXTS).save(tmp_path)
    path = tmp_path / "sparse.json"
    path.write_text(path.read_text().replace('"format_version":1', '"format_version":2'))
    with pytest.raises(IntegrityError, match="format 2"):
        SparseIndex.load(tmp_path)


@pytest.mark.parametrize("wrong", [{"k1": -1}, {"b": 1.5}, {"language": "klingon"}, {"method": "tfidf"}, {"k2": 1}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SparseSettings.model_validate(wrong)
