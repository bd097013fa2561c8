"""Fusion of rankings: the published formulas, on examples by hand and on whatever hypothesis draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import UsageError
from workbench.retrieval.fusion import mmr, rrf, weighted

rankings = st.lists(st.lists(st.integers(0, 20), max_size=12), max_size=5)
floats = st.floats(allow_nan=False, allow_infinity=False)


def test_rrf_adds_reciprocal_ranks() -> None:
    found = dict(rrf([[7, 3], [3, 9]]))
    assert found == pytest.approx({3: 1 / 62 + 1 / 61, 7: 1 / 61, 9: 1 / 62})
    assert [index for index, _ in rrf([[7, 3], [3, 9]])] == [3, 7, 9]
    assert dict(rrf([[7], [3]], k=0, weights=[1, 3])) == {7: 1.0, 3: 3.0}


def test_rrf_breaks_ties_by_index_and_counts_a_repeated_index_once() -> None:
    assert [index for index, _ in rrf([[5, 2], [2, 5]])] == [2, 5]
    assert rrf([[4, 4, 1]]) == rrf([[4, 1]])


@given(rankings, st.randoms())
def test_rrf_does_not_depend_on_the_order_of_the_rankings(drawn: list[list[int]], chance: object) -> None:
    shuffled = list(drawn)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rrf(shuffled) == rrf(drawn)


@given(rankings)
def test_rrf_keeps_every_index_once_and_falls(drawn: list[list[int]]) -> None:
    found = rrf(drawn)
    assert sorted(index for index, _ in found) == sorted({index for ranking in drawn for index in ranking})
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= len(drawn) / 61 + 1e-12 for score in scores)


@given(st.lists(st.integers(0, 50), unique=True, max_size=20))
def test_rrf_of_one_ranking_is_that_ranking(ranking: list[int]) -> None:
    assert [index for index, _ in rrf([ranking])] == ranking
    assert [index for index, _ in rrf([ranking, ranking[:]], weights=[0.5, 2])] == ranking


def test_rrf_refuses_what_cannot_be_meant() -> None:
    for wrong in ({"weights": [1.0]}, {"weights": [1.0, -1.0]}, {"weights": [1.0, float("nan")]}, {"k": -1.0}):
        with pytest.raises(UsageError):
            rrf([[1], [2]], **wrong)


def test_weighted_adds_what_minmax_and_zscore_make_alike() -> None:
    scores = {"dense": np.array([0.2, 0.4, 0.3]), "sparse": np.array([0.0, 30.0, 12.0])}
    assert weighted(scores, {"dense": 1, "sparse": 0}).tolist() == pytest.approx([0, 1, 0.5])
    assert weighted(scores, {"dense": 0.5, "sparse": 0.5}).tolist() == pytest.approx([0, 1, 0.45])
    ours = weighted(scores, {"dense": 1, "sparse": 2}, normalise="zscore")
    by_hand = [(values - values.mean()) / values.std() for values in scores.values()]
    assert ours == pytest.approx(by_hand[0] + 2 * by_hand[1])


def test_what_a_search_did_not_find_counts_like_its_worst() -> None:
    scores = {"dense": np.array([0.9, 0.8, 0.7]), "sparse": np.array([np.nan, 3.0, 5.0])}
    assert weighted(scores, {"dense": 0, "sparse": 1}).tolist() == [0, 0, 1]
    nothing = {"dense": np.array([0.9, 0.8]), "sparse": np.array([np.nan, np.nan])}
    assert weighted(nothing, {"dense": 1, "sparse": 1}).tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize("how", ["minmax", "zscore"])
def test_equal_scores_say_nothing(how: str) -> None:
    same = {"a": np.full(3, 7.0), "b": np.array([1.0, 2.0, 3.0])}
    alone = {"b": same["b"]}
    ours = weighted(same, {"a": 5, "b": 1}, normalise=how)  # type: ignore[arg-type]
    assert ours.tolist() == weighted(alone, {"b": 1}, normalise=how).tolist()  # type: ignore[arg-type]


@given(st.lists(floats, min_size=1, max_size=20), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_normalised_scores_stay_in_range_and_in_order(values: list[float], factor: float, shift: float) -> None:
    array = np.array(values)
    found = weighted({"a": array}, {"a": 1})
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    order = np.argsort(array, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    assert np.isfinite(weighted({"a": array}, {"a": 1}, normalise="zscore")).all()
    # Rounded, so that moving the values does not make two of them equal.
    plain = np.round(np.clip(array, -1e6, 1e6), 3)
    moved = weighted({"a": plain * factor + shift}, {"a": 1})
    if plain.max() - plain.min() > 1:
        assert moved == pytest.approx(weighted({"a": plain}, {"a": 1}), abs=1e-6)


def test_weighted_refuses_what_cannot_be_added() -> None:
    one = np.array([1.0, 2.0])
    for scores, weights in (
        ({}, {}),
        ({"a": one}, {"b": 1.0}),
        ({"a": one, "b": one[:1]}, {"a": 1.0, "b": 1.0}),
        ({"a": np.array([np.inf, 0])}, {"a": 1.0}),
        ({"a": one}, {"a": -1.0}),
    ):
        with pytest.raises(UsageError):
            weighted(scores, weights)


def _vectors(count: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def test_mmr_takes_the_unlike_before_the_copy() -> None:
    vectors = np.array([[1, 0], [0.999, 0.045], [0.6, 0.8]], np.float32)
    assert mmr(np.array([1, 0]), vectors, [0, 1, 2], 3, balance=1) == [0, 1, 2]
    assert mmr(np.array([1, 0]), vectors, [0, 1, 2], 3, balance=0.3) == [0, 2, 1]
    assert mmr(np.array([1, 0]), vectors, [2, 1], 5) == [1, 2]
    assert mmr(np.array([1, 0]), vectors, [], 5) == mmr(np.array([1, 0]), vectors, [1], 0) == []


def test_mmr_breaks_ties_by_index() -> None:
    vectors = np.array([[0, 1], [1, 0], [1, 0]], np.float32)
    assert mmr(np.array([1, 0]), vectors, [2, 1, 0], 3, balance=1) == [1, 2, 0]


@given(st.integers(1, 15), st.integers(0, 20), st.floats(0, 1), st.integers(0, 1000))
def test_mmr_does_what_its_definition_says(count: int, k: int, balance: float, seed: int) -> None:
    vectors, query = _vectors(count, seed), _vectors(1, seed + 1)[0]
    candidates = list(range(0, count, 2))
    found = mmr(query, vectors, candidates, k, balance)
    assert len(found) == len(set(found)) == min(k, len(candidates))
    assert set(found) <= set(candidates)
    chosen: list[int] = []
    for index in found:
        rest = [other for other in candidates if other not in chosen]

        def gain(other: int) -> float:
            near = max((float(vectors[other] @ vectors[taken]) for taken in chosen), default=0.0)
            relevance = float(vectors[other] @ query)
            return relevance if not chosen else balance * relevance - (1 - balance) * near

        assert gain(index) == pytest.approx(max(map(gain, rest)), abs=1e-5)
        chosen.append(index)


@given(st.integers(1, 12), st.integers(0, 1000))
def test_mmr_of_balance_one_ranks_by_similarity(count: int, seed: int) -> None:
    vectors, query = _vectors(count, seed), _vectors(1, seed + 1)[0]
    by_score = sorted(range(count), key=lambda index: -float(vectors[index].astype(float) @ query.astype(float)))
    assert mmr(query, vectors, range(count), count, 1.0) == by_score


def test_mmr_refuses_a_balance_out_of_range() -> None:
    with pytest.raises(UsageError):
        mmr(np.array([1.0]), np.array([[1.0]]), [0], 1, balance=1.5)
