"""Dense search: exact, in two passes, or through Chroma's graph, by what was measured to be the fastest."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from workbench.errors import require
from workbench.files import publish_folder
from workbench.retrieval.one_thread import one_thread
from workbench.retrieval.projection import Projection, principal_directions
from workbench.retrieval.ranking import Array, Side, top
from workbench.retrieval.recipe import HnswSettings, IndexRecipe

# Below this many chunks a matrix product takes less time than anything else needs to be called.
EXACT_BELOW = 5_000
# Queries that a choice is measured with, and the share of the ten nearest that must be found.
TRIED = 40
RECALL = 0.99
# Of two passes: dimensions of the first, and chunks that the second looks at.
KEPT, POOLS = (64, 96, 128, 192), (500, 1_500)
# Chroma takes a millisecond to be called, and minutes to build a graph: below this nobody waits for that.
GRAPH_ABOVE_MS = 3.0
COLLECTION = "chunks"
# Chroma keeps clients in a table of the whole process that is not safe to change from two threads.
_chroma = threading.Lock()


class DenseChoice(BaseModel):
    """Which way of dense search an index uses, and the measurements that say why.

    Attributes:
        kept, pool: dimensions of the first of two passes and chunks that the second looks at, where these are the fastest.
        exact_ms, projected_ms, hnsw_ms: medians of a query, one by one; None where it was not measured.
        recall: of the ten nearest that exact search finds, the share that the way finds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    chosen: Literal["exact", "projected", "hnsw"]
    why: str
    kept: int | None = None
    pool: int | None = None
    exact_ms: float | None = None
    projected_ms: float | None = None
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
        """Build into a temporary folder and publish it by rename; where another process was first, its graph is used.

        A graph that differs in `ef_search` alone is a copy of one that is there.
        """
        if not folder.exists():
            like = next(iter(sorted(folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"))), None)
            if like is None:
                publish_folder(folder, lambda temporary: _fill(temporary, vectors, settings))
            else:
                publish_folder(folder, lambda temporary: _copy(like, temporary, settings))
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
    with one_thread():
        scores = vectors @ query
    return top(scores, count, allowed)


def projected(projection: Projection, vectors: Array, query: Array, count: int) -> Side:
    """About the `count` nearest chunks by cosine, of unit vectors."""
    with one_thread():
        return projection.search(vectors, query, count)


def choose(vectors: Array, recipe: IndexRecipe, folder: Path) -> DenseChoice:
    """Measure the ways on the index's own vectors, where the recipe leaves it open.

    What is not exact must find `RECALL` of the exact ten nearest, and be faster. A graph is built, in `folder`, only where the
    others take long.
    """
    if recipe.ann in ("exact", "hnsw"):
        return DenseChoice(chosen=recipe.ann, why="the recipe says so")
    if recipe.ann == "auto" and len(vectors) < EXACT_BELOW:
        return DenseChoice(chosen="exact", why=f"{len(vectors):,} chunks are fewer than {EXACT_BELOW:,}")
    trial = _Trial(vectors)
    found = trial.projected()
    if recipe.ann == "projected":
        return found.model_copy(update={"chosen": "projected", "why": f"the recipe says so; {found.why}"})
    fastest = (found.projected_ms if found.chosen == "projected" else found.exact_ms) or 0.0
    if fastest <= GRAPH_ABOVE_MS:
        return found
    return trial.against_graph(found, Graph.build(folder, vectors, recipe.hnsw))


class _Trial:
    """Queries between two chunks, so that none is a vector of the index, and what exact search finds for them."""

    def __init__(self, vectors: Array) -> None:
        self.vectors = vectors
        pairs = np.random.default_rng(0).integers(0, len(vectors), size=(TRIED, 2))
        queries = vectors[pairs[:, 0]] + vectors[pairs[:, 1]]
        self.queries = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-9)
        self.right: list[set[int]] = []
        self.exact_ms, _ = self._measure(lambda query: exact(vectors, query, 10), self.right)

    def projected(self) -> DenseChoice:
        """The fastest two passes that find enough, if they are faster than one; else exact search."""
        options = [kept for kept in KEPT if kept < self.vectors.shape[1]]
        best: tuple[float, float, Projection] | None = None
        directions = principal_directions(self.vectors) if options else None
        for kept in options:
            projection = Projection.of(self.vectors, kept, all_directions=directions)
            if best is not None and self._first_pass(projection) >= best[0]:
                # More dimensions only take longer.
                break
            for pool in POOLS:
                tried = dataclasses.replace(projection, pool=pool)
                took, recall = self._measure(lambda query, way=tried: projected(way, self.vectors, query, 10))  # type: ignore[misc]
                if recall >= RECALL:
                    best = min(best or (took, recall, tried), (took, recall, tried), key=lambda found: found[0])
                    break
        if best is None:
            why = f"one pass takes {self.exact_ms:.2f} ms a query, and two find too little"
            return DenseChoice(chosen="exact", why=why, exact_ms=self.exact_ms, recall=1.0)
        took, recall, way = best
        good = took < self.exact_ms
        return DenseChoice(
            chosen="projected" if good else "exact",
            why=f"two passes, over {way.kept} dimensions and then over {way.pool:,} chunks, take {took:.2f} ms against "
            f"{self.exact_ms:.2f} ms a query, recall@10 {recall:.3f}",
            kept=way.kept,
            pool=way.pool,
            exact_ms=self.exact_ms,
            projected_ms=took,
            recall=recall if good else 1.0,
        )

    def _first_pass(self, projection: Projection) -> float:
        """Median milliseconds of the first pass alone."""
        nothing = Side(np.arange(0), np.arange(0.0))

        def search(query: Array) -> Side:
            with one_thread():
                projection.leading @ (query @ projection.directions)
            return nothing

        return self._measure(search)[0]

    def against_graph(self, found: DenseChoice, graph: Graph) -> DenseChoice:
        """The graph in place of `found`, where it finds enough and is faster."""
        took, recall = self._measure(lambda query: graph.search(query, 10))
        best = (found.projected_ms if found.chosen == "projected" else found.exact_ms) or 0.0
        good = recall >= RECALL and took < best
        why = f"the graph takes {took:.2f} ms a query, recall@10 {recall:.3f}; {found.why}"
        changes = {"chosen": "hnsw", "recall": recall} if good else {}
        return found.model_copy(update={"hnsw_ms": took, "why": why, **changes})

    def _measure(self, search: Callable[[Array], Side], found: list[set[int]] | None = None) -> tuple[float, float]:
        """Median milliseconds, and the share of what is right; the places go to `found` where they are what is right."""
        seconds: list[float] = []
        places: list[set[int]] = []
        search(self.queries[0])
        for query in self.queries:
            started = time.perf_counter()
            side = search(query)
            seconds.append(time.perf_counter() - started)
            places.append(set(side.places.tolist()))
        if found is not None:
            found += places
        shares = [len(right & ours) / max(1, len(right)) for right, ours in zip(self.right, places, strict=True)]
        return 1000 * float(np.median(seconds)), float(np.mean(shares))


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


def _copy(graph: Path, folder: Path, settings: HnswSettings) -> None:
    from chromadb.api.shared_system_client import SharedSystemClient

    shutil.copytree(graph, folder, dirs_exist_ok=True)
    with _chroma:
        collection = _client(folder).get_collection(COLLECTION, embedding_function=None)
        # A graph that is loaded ignores it; one that is opened again obeys.
        with warnings.catch_warnings():
            # Chroma's own way of noting that a collection has no embedder.
            warnings.filterwarnings("ignore", "legacy embedding function", DeprecationWarning)
            collection.modify(configuration={"hnsw": {"ef_search": settings.ef_search}})
        SharedSystemClient.clear_system_cache()


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
