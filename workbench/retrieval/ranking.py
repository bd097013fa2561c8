"""From the scores of each side to one ranking: the same steps for one query as for a tuner's thousands."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workbench.retrieval.fusion import mmr, rrf, weighted
from workbench.retrieval.search_settings import SearchSettings

Array = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """What one kind of search found: chunk numbers, best first, and their scores."""

    places: Places
    scores: npt.NDArray[np.floating]


# From so many values on, a sample of them saves time.
_MANY = 16_384


@dataclass(frozen=True)
class Ranked:
    """One chunk in a ranking, with its 1-based place on each side that found it."""

    place: int
    score: float
    ranks: dict[str, int] = field(default_factory=dict)


def reach(values: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.int64]:
    """Places of the `count` largest values and of all that tie with the last of them, in order of place.

    Of many values a sample tells which are certainly too small, so that few are left to partition.
    """
    if count >= len(values):
        return np.arange(len(values))
    if not count:
        return np.arange(0)
    if len(values) >= _MANY and (sample := values[:: _MANY // 1024]).size > 4 * count:
        # Twice what is expected to reach the last one, so that enough nearly always do.
        rank = min(len(sample) - 1, 2 * count * len(sample) // len(values) + 16)
        kept = np.flatnonzero(values >= np.partition(sample, len(sample) - 1 - rank)[len(sample) - 1 - rank])
        if len(kept) >= count:
            some = values[kept]
            found: npt.NDArray[np.int64] = kept[some >= np.partition(some, len(some) - count)[len(some) - count]]
            return found
    return np.flatnonzero(values >= np.partition(values, len(values) - count)[len(values) - count])


def top(scores: npt.NDArray[np.floating], count: int, allowed: npt.NDArray[np.bool_] | None = None) -> Side:
    """The `count` best of all scores, ties by number; chunks that are not allowed are never among them."""
    places = np.arange(len(scores)) if allowed is None else np.flatnonzero(allowed)
    values = scores if allowed is None else scores[places]
    if count < len(values):
        # All that tie with the last one are kept until the tie is broken by number.
        kept = reach(values, count)
        places, values = places[kept], values[kept]
    order = np.lexsort((places, -values))[:count]
    return Side(places[order].astype(np.int64), values[order])


def rank(
    sides: dict[str, Side],
    settings: SearchSettings,
    *,
    query: Array | None = None,
    vectors: Array | None = None,
    length: int | None = None,
) -> list[Ranked]:
    """One ranking of at most `length` (default `k`) chunks from the sides that `mode` asks for.

    Args:
        query, vectors: unit vectors, of shapes (d,) and (chunks, d); needed for `mmr`.
    """
    length = length or settings.k
    wanted = {"dense": ("dense",), "sparse": ("sparse",), "hybrid": ("dense", "sparse")}[settings.mode]
    used = {name: sides[name] for name in wanted}
    ranks: dict[int, dict[str, int]] = {}
    for name, side in used.items():
        for number, place in enumerate(side.places.tolist(), 1):
            ranks.setdefault(place, {})[name] = number
    if len(used) == 1:
        [side] = used.values()
        joined = list(zip(side.places.tolist(), map(float, side.scores), strict=True))
    elif settings.fusion == "rrf":
        weights = [settings.dense_weight, 1 - settings.dense_weight]
        joined = rrf([side.places.tolist() for side in used.values()], k=settings.rrf_k, weights=weights)
    else:
        joined = _weighted(used["dense"], used["sparse"], settings.dense_weight)
    if settings.mmr is not None and query is not None and vectors is not None and joined:
        scores = dict(joined)
        chosen = mmr(query, vectors, [place for place, _ in joined], length, settings.mmr)
        joined = [(place, scores[place]) for place in chosen]
    return [Ranked(place, score, ranks[place]) for place, score in joined[:length]]


def _weighted(dense: Side, sparse: Side, weight: float) -> list[tuple[int, float]]:
    """Both sides' scores scaled to 0..1 over their candidates; what a side did not find has its least score."""
    places = np.union1d(dense.places, sparse.places)
    scores: dict[str, npt.NDArray[np.floating]] = {}
    for name, side in (("dense", dense), ("sparse", sparse)):
        if len(side.places):
            scores[name] = np.full(len(places), np.nan)
            scores[name][np.searchsorted(places, side.places)] = side.scores
    weights = {"dense": weight, "sparse": 1 - weight}
    if not scores:
        return []
    totals = weighted(scores, {name: weights[name] for name in scores})
    order = np.lexsort((places, -totals))
    return [(int(places[place]), float(totals[place])) for place in order]
