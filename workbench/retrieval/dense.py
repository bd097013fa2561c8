"""Dense search: exact, as one matrix product, or through Chroma's graph where that was measured to be faster."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from workbench.errors import require
from workbench.files import publish_folder
from workbench.retrieval.ranking import Array, Side, top
from workbench.retrieval.recipe import HnswSettings, IndexRecipe

# Below this many chunks a matrix product takes less time than Chroma needs to be called at all.
EXACT_BELOW = 5_000
# Queries that a choice between the two is measured with.
TRIED = 40
RECALL = 0.99
COLLECTION = "chunks"
# Chroma keeps clients in a table of the whole process that is not safe to change from two threads.
_chroma = threading.Lock()


class DenseChoice(BaseModel):
    """Which way of dense search an index uses, and the measurements that say why.

    Attributes:
        exact_ms, hnsw_ms: medians of a query, one by one; None where it was not measured.
        recall: of the graph's ten nearest against the exact ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    chosen: Literal["exact", "hnsw"]
    why: str
    exact_ms: float | None = None
    hnsw_ms: float | None = None
    recall: float | None = None


class Graph:
    """Chroma's HNSW index over one set of vectors, in a folder of its own that is never altered once it is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with _chroma:
            self._client = _client(folder)
            self._collection = self._client.get_collection(COLLECTION, embedding_function=None)

    @classmethod
    def build(cls, folder: Path, vectors: Array, settings: HnswSettings) -> Graph:
        """Build into a temporary folder and publish it by rename; where another process was first, its graph is used."""
        if not folder.exists():
            publish_folder(folder, lambda temporary: _fill(temporary, vectors, settings))
        return cls(folder)

    def search(self, query: Array, count: int) -> Side:
        """About the `count` nearest chunks by cosine."""
        with _chroma:
            found: Any = self._collection.query(query_embeddings=[query], n_results=count, include=["distances"])
        places = np.array([int(name) for name in found["ids"][0]], dtype=np.int64)
        scores = 1 - np.asarray(found["distances"][0], dtype=np.float64)
        order = np.lexsort((places, -scores))
        return Side(places[order], scores[order])


def exact(vectors: Array, query: Array, count: int, allowed: npt.NDArray[np.bool_] | None = None) -> Side:
    """The `count` nearest chunks by cosine, of unit vectors."""
    return top(vectors @ query, count, allowed)


def choose(vectors: Array, recipe: IndexRecipe, folder: Path) -> DenseChoice:
    """Measure both ways on the index's own vectors, where the recipe leaves it open.

    A graph must find `RECALL` of the exact ten nearest, and be faster.
    """
    if recipe.ann != "auto":
        return DenseChoice(chosen=recipe.ann, why="the recipe says so")
    if len(vectors) < EXACT_BELOW:
        return DenseChoice(chosen="exact", why=f"{len(vectors):,} chunks are fewer than {EXACT_BELOW:,}")
    graph = Graph.build(folder, vectors, recipe.hnsw)
    rng = np.random.default_rng(0)
    # Between two chunks, so that no query is a vector of the index.
    pairs = rng.integers(0, len(vectors), size=(TRIED, 2))
    queries = vectors[pairs[:, 0]] + vectors[pairs[:, 1]]
    queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-9)
    times: dict[str, list[float]] = {"exact": [], "hnsw": []}
    recalls: list[float] = []
    for query in queries:
        started = time.perf_counter()
        right = exact(vectors, query, 10)
        middle = time.perf_counter()
        found = graph.search(query, 10)
        times["exact"].append(middle - started)
        times["hnsw"].append(time.perf_counter() - middle)
        recalls.append(len(set(right.places.tolist()) & set(found.places.tolist())) / 10)
    exact_ms, hnsw_ms = (1000 * float(np.median(times[name])) for name in ("exact", "hnsw"))
    recall = float(np.mean(recalls))
    measured = f"{hnsw_ms:.1f} ms against {exact_ms:.1f} ms a query, recall@10 {recall:.3f}"
    good = recall >= RECALL and hnsw_ms < exact_ms
    return DenseChoice(
        chosen="hnsw" if good else "exact",
        why=f"the graph takes {measured}",
        exact_ms=exact_ms,
        hnsw_ms=hnsw_ms,
        recall=recall,
    )


def graph_folder(index: Path, settings: HnswSettings) -> Path:
    """Where an index keeps the graph of these settings; another version of Chroma builds its own."""
    from importlib.metadata import version

    require("chromadb", extra="rag")
    name = f"{settings.max_neighbors}-{settings.ef_construction}-{settings.ef_search}"
    return index / "derived" / f"chroma-{version('chromadb')}-{name}"


def _client(folder: Path) -> Any:
    chromadb = require("chromadb", extra="rag")
    from chromadb.config import Settings

    return chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))


def _fill(folder: Path, vectors: Array, settings: HnswSettings) -> None:
    from chromadb.api.shared_system_client import SharedSystemClient

    with _chroma:
        client = _client(folder)
        collection = client.create_collection(
            COLLECTION,
            embedding_function=None,
            configuration={"hnsw": {"space": "cosine", **settings.model_dump()}},
        )
        step = client.get_max_batch_size()
        for start in range(0, len(vectors), step):
            part = vectors[start : start + step]
            collection.add(ids=[str(place) for place in range(start, start + len(part))], embeddings=part)
        # The client holds files of a folder that is about to move.
        SharedSystemClient.clear_system_cache()
