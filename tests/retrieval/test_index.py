"""An index is built once, found again by what it was made from, never half there, and shows nobody what is not theirs."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retrieval.words_embedder import WordsEmbedder
from workbench.errors import DataError, IntegrityError, NotFoundError
from workbench.retrieval import dense, sparse
from workbench.retrieval import index as index_module
from workbench.retrieval.chunking import ChunkerSettings
from workbench.retrieval.corpus import Corpus
from workbench.retrieval.embedding import register_embedder
from workbench.retrieval.embedding_cache import CachedEmbedder, EmbeddingCache
from workbench.retrieval.index import Index, diff_indexes, list_indexes, unpack
from workbench.retrieval.index_files import CHUNKS
from workbench.retrieval.recipe import HnswSettings, IndexRecipe
from workbench.retrieval.rerank import register_reranker
from workbench.retrieval.search_settings import SearchSettings
from workbench.retrieval.types import Document
from workbench.workspace import Layout

ROOT = Path(__file__).parents[2]
RECIPE = IndexRecipe(chunker=ChunkerSettings(kind="recursive", size=12))
ANIMALS = ["otter", "heron", "badger", "lynx", "marten", "stoat", "hare", "vole"]


def corpus(count: int = 24, **labels: str) -> Corpus:
    documents = []
    for number in range(count):
        animal = ANIMALS[number % len(ANIMALS)]
        text = f"The {animal} number {number} eats dish{number}.\n\nIt sleeps in place{number} when the moon is new."
        access = labels.get(animal, "public")
        documents.append(Document(f"d{number:03}", text, title=animal, access=access, metadata={"animal": animal}))
    return Corpus("animals", tuple(documents), ())


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "workbench.toml").write_text("format_version = 1\n")
    return Layout.find(tmp_path)


@pytest.fixture
def index(layout: Layout) -> Index:
    return Index.build(layout, corpus(), RECIPE, embedder=WordsEmbedder(), show_progress=False)


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_every_mode_finds_the_chunk_that_answers(index: Index, mode: str) -> None:
    found = SearchSettings.model_validate({"mode": mode, "k": 3})
    hits = index.search("sleeps in place7", settings=found)
    assert hits[0].chunk.document == "d007"
    assert "place7" in hits[0].chunk.text
    assert set(hits[0].ranks) == {"dense": {"dense"}, "sparse": {"sparse"}, "hybrid": {"dense", "sparse"}}[mode]
    assert len(hits) == 3
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_exact_search_is_the_largest_cosines(index: Index) -> None:
    query = "a lynx eats dish3"
    vector = WordsEmbedder().encode([query])[0]
    best = np.argsort(-(index.vectors @ vector), kind="stable")[:5]
    hits = index.search(query, 5, settings=SearchSettings(mode="dense"))
    assert [hit.chunk.id for hit in hits] == [index.chunks[place].id for place in best]


def test_the_same_inputs_are_the_same_index_and_nothing_is_embedded_again(layout: Layout, index: Index) -> None:
    embedder = WordsEmbedder()
    again = Index.build(layout, corpus(), RECIPE, embedder=embedder, show_progress=False)
    assert (again.digest, embedder.texts, len(list_indexes(layout))) == (index.digest, [], 1)
    named = Index.build(layout, corpus(), RECIPE, name="other", embedder=embedder, show_progress=False)
    assert named.digest == index.digest
    assert Index.open(layout, "other").manifest.name == "other"


def test_a_changed_corpus_embeds_only_what_is_new_and_equals_a_full_build(layout: Layout, tmp_path: Path) -> None:
    embedder = WordsEmbedder()
    cached = CachedEmbedder(embedder, EmbeddingCache(tmp_path / "vectors.sqlite"))
    before = Index.build(layout, corpus(20), RECIPE, embedder=cached, show_progress=False)
    embedder.texts.clear()
    changed = corpus(24).without(["d003"])
    after = Index.build(layout, changed, RECIPE, embedder=cached, show_progress=False)
    assert {text for text in embedder.texts if "number" in text} == {
        chunk.text for chunk in after.chunks if chunk.document >= "d020" and "number" in chunk.text
    }
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "workbench.toml").write_text("format_version = 1\n")
    fresh = Layout.find(tmp_path / "fresh")
    full = Index.build(fresh, changed, RECIPE, embedder=WordsEmbedder(), show_progress=False)
    assert full.digest == after.digest
    for query in ("the otter", "place21", "dish3"):
        assert after.search(query) == full.search(query)
    found = diff_indexes(before, after)
    assert (found["added"], found["removed"], found["changed"]) == (["d020", "d021", "d022", "d023"], ["d003"], [])


def test_another_embedder_is_refused(layout: Layout, index: Index) -> None:
    with pytest.raises(IntegrityError, match="was built with embedder"):
        Index.open(layout, index.digest, embedder=WordsEmbedder(seed=1))
    opened = Index.open(layout, "animals", embedder=WordsEmbedder())
    assert opened.search("otter")


def test_words_that_another_version_indexed_are_indexed_anew(
    layout: Layout, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [hit.chunk.id for hit in index.search("sleeps in place7")]
    [old] = (index.folder / "derived").glob("bm25-*")
    (old / "sparse.json").write_text("{}")
    monkeypatch.setattr(sparse, "FORMAT", sparse.FORMAT + 1)
    again = Index.open(layout, index.digest, embedder=WordsEmbedder())
    assert [hit.chunk.id for hit in again.search("sleeps in place7")] == found
    assert len(list((index.folder / "derived").glob("bm25-*"))) == 2


def test_a_build_tells_how_far_it_is(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, list[int]] = {}

    class Told:
        def __init__(self, title: str) -> None:
            self.done = told.setdefault(title, [])

        def update(self, done: int, note: str = "") -> None:
            self.done.append(done)

    @contextlib.contextmanager
    def bar(total: int, title: str, *, show: bool = True) -> Iterator[Told]:
        yield Told(title)
        assert told[title][-1] == total

    monkeypatch.setattr(index_module, "progress_bar", bar)
    register_embedder("words", lambda name: WordsEmbedder())
    recipe = RECIPE.model_copy(update={"embedder": "words"})
    assert Index.build(layout, corpus(), recipe).manifest.documents == 24
    assert list(told) == ["Chunking animals", "Embedding animals"]
    assert told["Chunking animals"] == list(range(1, 25))


def test_a_changed_byte_is_refused(layout: Layout, index: Index) -> None:
    path = index.folder / CHUNKS
    data = bytearray(path.read_bytes())
    for place in random.Random(1).sample(range(len(data)), 5):
        changed = data.copy()
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(IntegrityError, match="not what was built"):
            Index.open(layout, "animals")
    (index.folder / "manifest.json").write_text("{}")
    with pytest.raises(IntegrityError, match="Build the index again"):
        Index.open(layout, "animals")


def test_an_index_travels_as_its_manifest_and_its_chunks(index: Index, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "workbench.toml").write_text("format_version = 1\n")
    there = Layout.find(tmp_path / "there")
    parts = [(index.folder / name).read_bytes() for name in ("manifest.json", CHUNKS)]
    arrived = unpack(there, *parts)
    assert arrived.digest == index.digest
    opened = Index.open(there, index.digest, embedder=WordsEmbedder())
    assert opened.search("the hare") == index.search("the hare")
    with pytest.raises(IntegrityError, match="not those"):
        unpack(there, parts[0], parts[1] + b"x")


def test_names_that_mean_nothing_say_so(layout: Layout, index: Index) -> None:
    with pytest.raises(NotFoundError, match="workbench index ls"):
        Index.open(layout, "nothing")
    assert Index.open(layout, index.digest[7:19]).digest == index.digest


LABELLED = corpus(24, otter="staff", lynx="vets", hare="staff")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "workbench.toml").write_text("format_version = 1\n")
    return Index.build(Layout.find(folder), LABELLED, RECIPE, embedder=WordsEmbedder(), show_progress=False)


@settings(max_examples=150)
@given(
    query=st.sampled_from([*ANIMALS, "dish0", "place3", "", "???", "moon"]),
    access=st.sets(st.sampled_from(["staff", "vets", "nobody", "public"])),
    mode=st.sampled_from(["dense", "sparse", "hybrid"]),
    fusion=st.sampled_from(["rrf", "weighted"]),
    k=st.integers(1, 60),
    mmr=st.sampled_from([None, 0.0, 0.5]),
    animal=st.sampled_from([None, "otter", ["hare", "vole"]]),
)
def test_no_search_ever_returns_what_the_reader_may_not_see(
    labelled: Index, query: str, access: set[str], mode: str, fusion: str, k: int, mmr: float | None, animal: object
) -> None:
    chosen = SearchSettings.model_validate(
        {"mode": mode, "fusion": fusion, "mmr": mmr, "k": k, "candidates": max(50, k)}
    )
    where = None if animal is None else {"animal": animal}
    hits = labelled.search(query, settings=chosen, access=access, where=where)
    assert len(hits) <= k
    assert len({hit.chunk.id for hit in hits}) == len(hits)
    for hit in hits:
        assert hit.chunk.access in {"public", *access}
        if animal is not None:
            assert hit.chunk.metadata["animal"] in (animal if isinstance(animal, list) else [animal])


def test_a_reranker_has_the_last_word(index: Index) -> None:
    class Longest:
        name = digest = "longest"

        def scores(self, query: str, texts: Sequence[str]) -> list[float]:
            return [float(len(text)) for text in texts]

    register_reranker("longest", Longest)
    hits = index.search("otter", settings=SearchSettings(k=4, candidates=20, reranker="longest"))
    lengths = [len(hit.chunk.text) for hit in hits]
    assert lengths == sorted(lengths, reverse=True)
    assert all("fused" in hit.ranks for hit in hits)


@pytest.mark.slow
def test_a_graph_finds_what_exact_search_finds_and_is_chosen_only_on_its_merits(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("chromadb")
    monkeypatch.setattr(dense, "EXACT_BELOW", 10)
    # However fast the others are.
    monkeypatch.setattr(dense, "GRAPH_ABOVE_MS", 0.0)
    graph = IndexRecipe(chunker=RECIPE.chunker, ann="hnsw", hnsw=HnswSettings(ef_search=200))
    found = Index.build(layout, corpus(300), graph, embedder=WordsEmbedder(), show_progress=False)
    exact = Index.build(
        layout, corpus(300), graph.model_copy(update={"ann": "exact"}), embedder=WordsEmbedder(), show_progress=False
    )
    alike = []
    for animal in ANIMALS:
        sides = [{hit.chunk.id for hit in side.search(f"{animal} dish11", 10)} for side in (found, exact)]
        alike.append(len(sides[0] & sides[1]) / 10)
    assert np.mean(alike) >= 0.95
    auto = Index.build(
        layout, corpus(300), graph.model_copy(update={"ann": "auto"}), embedder=WordsEmbedder(), show_progress=False
    )
    choice = auto.dense_choice
    assert choice.recall is not None
    assert choice.exact_ms is not None
    assert choice.hnsw_ms is not None
    merits = choice.recall >= dense.RECALL and choice.hnsw_ms < choice.exact_ms
    assert choice.chosen == ("hnsw" if merits else "exact")
    assert "recall@10" in choice.why
    # Another ef_search is a copy of the graph that is there, and is obeyed.
    folder = dense.graph_folder(auto.folder, HnswSettings(ef_search=400))
    again = dense.Graph.build(folder, auto.vectors, HnswSettings(ef_search=400))
    assert again._collection.configuration_json["hnsw"]["ef_search"] == 400
    assert again.search(auto.vectors[0], 1).places.tolist() == [0]


@pytest.mark.parametrize("query", ["", "???", "\n", "word " * 20_000, "x" * 100_000])
def test_any_query_is_answered(index: Index, query: str) -> None:
    for mode in ("dense", "sparse", "hybrid"):
        assert len(index.search(query, 3, settings=SearchSettings.model_validate({"mode": mode}))) <= 3


def test_a_corpus_of_one_and_one_without_text(layout: Layout) -> None:
    one = Index.build(layout, corpus(1), RECIPE, embedder=WordsEmbedder(), show_progress=False)
    assert one.search("otter", 50)
    with pytest.raises(DataError, match="no text"):
        Index.build(layout, Corpus("empty", (), ()), RECIPE, embedder=WordsEmbedder(), show_progress=False)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def _start(layout: Layout, delay: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.retrieval.build_worker", str(layout.root), str(delay)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n", process.stderr and process.stderr.read()
    return process


@pytest.mark.slow
def test_ten_kills_leave_no_half_index_and_lose_no_embedding(
    layout: Layout, started: list[subprocess.Popen[str]]
) -> None:
    chance = random.Random(5)
    for number in range(10):
        process = _start(layout, 0.004)
        started.append(process)
        if number == 0:
            # However slow the machine is, one kill comes after the first portion was kept.
            assert process.stdout is not None
            assert process.stdout.readline() == "kept\n"
        else:
            time.sleep(chance.uniform(0.0, 0.4))
        process.kill()
        process.communicate()
        for built in list_indexes(layout):
            Index.open(layout, built.digest, embedder=WordsEmbedder())
    embedder = WordsEmbedder()
    cached = CachedEmbedder(embedder, EmbeddingCache(layout.embeddings))
    index = Index.build(layout, corpus(120), RECIPE, embedder=cached, show_progress=False)
    assert Index.open(layout, index.digest).manifest.chunks == len(index.chunks)
    # What the killed builds had embedded was kept.
    assert len(embedder.texts) < len({chunk.text for chunk in index.chunks})


@pytest.mark.slow
def test_two_processes_that_build_the_same_index_make_one(layout: Layout, started: list[subprocess.Popen[str]]) -> None:
    started += [_start(layout, 0.001), _start(layout, 0.001)]
    # Not by communicate(), which does not see what was read along with the first line.
    said = [process.stdout.read().split()[-1] for process in started if process.stdout is not None]
    assert [process.wait() for process in started] == [0, 0]
    assert len(set(said)) == 1
    assert [index.digest for index in list_indexes(layout)] == [said[0]]
