"""The embedding cache: a vector is computed once, read back bit for bit, and nothing that happens to its file is an error."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.counting_embedder import CountingEmbedder
from tests.retrieval.embedding_worker import PORTION, TEXTS
from workbench import api
from workbench.errors import ModelError, WorkbenchWarning
from workbench.retrieval.embedding import cached_embedder, close_embedders, register_embedder
from workbench.retrieval.embedding_cache import CachedEmbedder, EmbeddingCache, vector_key

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    found = EmbeddingCache(tmp_path / "cache" / "embeddings.sqlite")
    yield found
    found.close()


class Told:
    def __init__(self) -> None:
        self.done: list[int] = []

    def update(self, done: int, note: str = "") -> None:
        self.done.append(done)


def test_a_text_is_embedded_once_and_read_back_bit_for_bit(cache: EmbeddingCache) -> None:
    embedder = CountingEmbedder()
    plain = CountingEmbedder().encode(["a", "b", "a", "c", ""])
    cached = CachedEmbedder(embedder, cache)
    assert cached.encode(["a", "b", "a"]).tobytes() == plain[:3].tobytes()
    assert cached.encode(["a", "b", "a", "c", ""]).tobytes() == plain.tobytes()
    assert embedder.asked == [["a", "b"], ["c", ""]]
    again = CachedEmbedder(CountingEmbedder(), EmbeddingCache(cache.path))
    assert again.encode(["", "c", "b"]).tobytes() == plain[[4, 3, 1]].tobytes()
    assert again.embedder.asked == []  # type: ignore[attr-defined]
    again.cache.close()


def test_everything_that_decides_a_vector_is_in_its_key(cache: EmbeddingCache) -> None:
    CachedEmbedder(CountingEmbedder(), cache).encode(["a"])
    other = CountingEmbedder("sha256:two")
    CachedEmbedder(other, cache).encode(["a"])
    same = CountingEmbedder()
    CachedEmbedder(same, cache).encode(["a"], kind="query")
    assert other.asked == same.asked == [["a"]]
    keys = {vector_key(*parts) for parts in (("d", "passage", "t"), ("d", "query", "t"), ("e", "passage", "t"))}
    assert len(keys | {vector_key("d", "passage", "u"), vector_key("d", "passage", "\ud800")}) == 5


def test_the_settings_say_how_large_it_may_grow(tmp_path: Path) -> None:
    (tmp_path / "workbench.toml").write_text("format_version = 1\n[cache]\nembeddings_mb = 1\n")
    layout = api.open(tmp_path).layout
    register_embedder("counting", lambda name: CountingEmbedder())
    vectors = {f"key {number}": np.ones(1500, np.float32) for number in range(400)}
    full = EmbeddingCache(layout.embeddings)
    full.put(vectors)
    assert len(full.get(list(vectors))) == 400
    full.close()
    embedder = cached_embedder(layout, "counting")
    assert isinstance(embedder, CachedEmbedder)
    kept = embedder.cache.get(list(vectors))
    assert "key 0" not in kept
    assert "key 399" in kept
    embedder.cache.close()


def test_nothing_to_embed(cache: EmbeddingCache) -> None:
    assert CachedEmbedder(CountingEmbedder(dimensions=5), cache).encode([]).shape == (0, 5)


def test_it_is_what_its_embedder_is(cache: EmbeddingCache) -> None:
    cached = CachedEmbedder(CountingEmbedder(), cache)
    assert (cached.name, cached.digest, cached.dimensions) == ("counting", "sha256:one", 8)
    assert cached.max_tokens is cached.tokenizer is None


def test_progress_counts_texts_kept_ones_and_repetitions_included(cache: EmbeddingCache) -> None:
    cached = CachedEmbedder(CountingEmbedder(), cache, portion=2)
    cached.encode(["a", "b"])
    told = Told()
    cached.encode(["a", "a", "b", "c", "d", "d", "e"], progress=told)
    assert told.done[0] == 3
    assert told.done[-1] == 7
    assert told.done == sorted(told.done)


def test_what_was_done_before_a_fault_is_kept(cache: EmbeddingCache) -> None:
    class Failing(CountingEmbedder):
        def encode(self, texts, *, kind="passage", progress=None):  # type: ignore[no-untyped-def]
            if "bad" in texts:
                raise ModelError("no")
            return super().encode(texts, kind=kind, progress=progress)

    with pytest.raises(ModelError):
        CachedEmbedder(Failing(), cache, portion=2).encode(["a", "b", "c", "d", "bad"])
    embedder = CountingEmbedder()
    CachedEmbedder(embedder, cache).encode(["a", "b", "c", "d", "bad"])
    assert embedder.asked == [["bad"]]


def test_a_damaged_entry_is_a_miss(cache: EmbeddingCache) -> None:
    cached = CachedEmbedder(CountingEmbedder(), cache)
    right = cached.encode(["a", "b", "c"])
    cache.close()
    key = vector_key("sha256:one", "passage", "b")
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        changed = connection.execute("UPDATE vectors SET body = zeroblob(32) WHERE key = ?", [key])
        assert changed.rowcount == 1
        connection.execute("UPDATE vectors SET body = 'text' WHERE key = ?", [vector_key("sha256:one", "passage", "c")])
    embedder = CountingEmbedder()
    assert CachedEmbedder(embedder, cache).encode(["a", "b", "c"]).tobytes() == right.tobytes()
    assert embedder.asked == [["b", "c"]]


def test_a_damaged_file_is_set_aside(cache: EmbeddingCache) -> None:
    cached = CachedEmbedder(CountingEmbedder(), cache)
    right = cached.encode(["a"])
    cache.close()
    cache.path.write_bytes(b"not a database, but long enough to be read as the head of one" * 20)
    with pytest.warns(WorkbenchWarning, match="the embedding cache was damaged"):
        assert cached.encode(["a"]).tobytes() == right.tobytes()
    assert list(cache.path.parent.glob("*.damaged-*"))
    embedder = CountingEmbedder()
    CachedEmbedder(embedder, cache).encode(["a"])
    assert embedder.asked == []


def test_a_file_that_cannot_be_written_is_only_slower(tmp_path: Path) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder.sqlite", tmp_path / "file" / "below.sqlite"):
        cached = CachedEmbedder(CountingEmbedder(), EmbeddingCache(path))
        with pytest.warns(WorkbenchWarning, match="off for now"):
            first = cached.encode(["a"])
        assert cached.encode(["a"]).tobytes() == first.tobytes()


def test_a_server_whose_model_was_changed_is_an_error(cache: EmbeddingCache) -> None:
    CachedEmbedder(CountingEmbedder(dimensions=8), cache).encode(["a"])
    changed = CachedEmbedder(CountingEmbedder(dimensions=6), cache)
    with pytest.raises(ModelError, match="6 and 8 numbers"):
        changed.encode(["a", "b"])


def test_the_oldest_go_when_the_file_is_too_large(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "embeddings.sqlite", most_bytes=1)
    CachedEmbedder(CountingEmbedder(), cache).encode([f"text {number}" for number in range(40)])
    cache.trim()
    kept = cache.get([vector_key("sha256:one", "passage", f"text {number}") for number in range(40)])
    assert 0 < len(kept) < 40
    cache.close()


def test_a_workspace_has_one_cache(workspace: api.Workspace) -> None:
    embedder = CountingEmbedder()
    register_embedder("counting", lambda name: embedder)
    try:
        for _ in range(2):
            cached = cached_embedder(workspace.layout, "counting")
            cached.encode(["a"])
            cached.cache.close()  # type: ignore[attr-defined]
    finally:
        close_embedders()
    assert embedder.asked == [["a"]]
    assert workspace.layout.embeddings.is_file()


@pytest.mark.slow
def test_a_build_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.sqlite"
    command = [sys.executable, "-m", "tests.retrieval.embedding_worker", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        cache = EmbeddingCache(path)
        keys = [vector_key("sha256:one", "passage", text) for text in TEXTS]
        while len(cache.get(keys)) < 3 * PORTION:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    kept = len(cache.get(keys))
    assert 3 * PORTION <= kept < len(TEXTS)
    embedder = CountingEmbedder()
    found = CachedEmbedder(embedder, cache).encode(TEXTS)
    assert sum(map(len, embedder.asked)) == len(TEXTS) - kept
    assert found.tobytes() == CountingEmbedder().encode(TEXTS).tobytes()
    cache.close()


@pytest.mark.slow
def test_processes_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.sqlite"
    command = [sys.executable, "-m", "tests.retrieval.embedding_worker", str(path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    embedder = CountingEmbedder()
    cache = EmbeddingCache(path)
    found = CachedEmbedder(embedder, cache).encode(TEXTS)
    assert embedder.asked == []
    assert np.array_equal(found, CountingEmbedder().encode(TEXTS))
    cache.close()
