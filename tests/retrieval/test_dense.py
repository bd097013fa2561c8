"""Dense search: two passes find what one exact pass finds, and which way is taken is measured and said."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.retrieval import dense
from workbench.retrieval.one_thread import one_thread
from workbench.retrieval.projection import Projection
from workbench.retrieval.ranking import Array, reach
from workbench.retrieval.recipe import IndexRecipe


def meanings(count: int, dimensions: int = 384, seed: int = 0) -> Array:
    """Unit vectors as texts have them: a few directions carry most, and texts come in groups."""
    rng = np.random.default_rng(seed)
    spread = 1 / np.sqrt(1 + np.arange(dimensions))
    groups = rng.normal(size=(max(1, count // 20), dimensions)) * spread
    vectors = groups[rng.integers(0, len(groups), size=count)] + 0.7 * rng.normal(size=(count, dimensions)) * spread
    unit: Array = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def test_two_passes_find_nearly_all_of_the_nearest_with_their_exact_scores() -> None:
    vectors = meanings(8_000)
    projection = Projection.of(vectors, 96)
    assert projection.leading.shape == (8_000, 96)
    shared = []
    for query in meanings(50, seed=1):
        right, found = dense.exact(vectors, query, 10), dense.projected(projection, vectors, query, 10)
        shared.append(len(set(right.places.tolist()) & set(found.places.tolist())) / 10)
        np.testing.assert_allclose(found.scores, vectors[found.places] @ query, rtol=1e-5)
        assert (np.diff(found.scores) <= 0).all()
    assert np.mean(shared) >= 0.99


@given(st.integers(1, 60_000), st.integers(0, 300), st.integers(1, 200), st.integers(0, 5))
@settings(max_examples=40)
def test_what_reaches_the_last_place_is_the_same_by_a_sample(size: int, count: int, distinct: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, distinct, size=size).astype(np.float32)
    expected = (
        np.flatnonzero(values >= np.sort(values)[-count]) if 0 < count <= size else np.arange(size if count else 0)
    )
    assert reach(values, count).tolist() == expected.tolist()


@given(st.integers(1, 400), st.integers(1, 60), st.integers(0, 5))
def test_few_chunks_are_searched_exactly(count: int, k: int, seed: int) -> None:
    vectors = meanings(count, 32, seed)
    [query] = meanings(1, 32, seed + 1)
    projection = Projection.of(vectors, 8, pool=500)
    right, found = dense.exact(vectors, query, k), dense.projected(projection, vectors, query, k)
    assert found.places.tolist() == right.places.tolist()
    assert len(found.places) == min(k, count)


def test_what_is_chosen_finds_enough_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = meanings(6_000)
    # No graph, whatever this machine is busy with.
    monkeypatch.setattr(dense, "GRAPH_ABOVE_MS", 1e9)
    choice = dense.choose(vectors, IndexRecipe(), tmp_path)
    assert choice.exact_ms is not None
    assert choice.projected_ms is not None
    assert choice.recall is not None
    assert choice.recall >= dense.RECALL
    if choice.chosen == "projected":
        assert choice.projected_ms < choice.exact_ms
    else:
        assert choice.chosen == "exact"
    assert "recall@10" in choice.why
    assert not list(tmp_path.iterdir()), "no graph was asked for"
    told = dense.choose(vectors, IndexRecipe(ann="projected"), tmp_path)
    assert told.chosen == "projected"
    assert told.kept in dense.KEPT
    assert dense.choose(vectors[:100], IndexRecipe(), tmp_path).why == "100 chunks are fewer than 5,000"


def test_vectors_that_spread_evenly_are_searched_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "GRAPH_ABOVE_MS", 1e9)
    vectors = np.random.default_rng(0).normal(size=(6_000, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # No direction carries more than another, so that a projection loses what it leaves out.
    assert dense.choose(vectors, IndexRecipe(), tmp_path).chosen == "exact"


def test_blas_has_its_threads_back_after_searches_that_overlap() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads() -> set[int]:
        pools = [pool for pool in threadpoolctl.threadpool_info() if "numpy" in pool["filepath"]]
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}

    before = threads()
    inside, leave = threading.Barrier(3), threading.Event()

    def search() -> None:
        with one_thread():
            inside.wait(10)
            leave.wait(10)

    others = [threading.Thread(target=search) for _ in range(2)]
    for other in others:
        other.start()
    inside.wait(10)
    assert threads() == {1}
    leave.set()
    for other in others:
        other.join()
    assert threads() == before
