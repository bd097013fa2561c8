"""Fusion of several rankings into one, and re-ranking for diversity. Ties always go to the smaller index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from workbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Normalise = Literal["minmax", "zscore"]


def rrf(
    rankings: Sequence[Sequence[int]], *, k: float = 60, weights: Sequence[float] | None = None
) -> list[tuple[int, float]]:
    """Reciprocal rank fusion: every index of any ranking with its score, best first.

    The score is Σ weight / (k + rank), ranks counted from 1 (Cormack, Clarke & Büttcher 2009, "Reciprocal rank fusion
    outperforms Condorcet and individual rank learning methods", SIGIR; they take k = 60). An index that is twice in one
    ranking counts at its first place.

    Args:
        rankings: indices, best first.
        weights: one for each ranking, at least 0; a ranking of weight 0 adds nothing to scores. None weighs all alike.

    Raises:
        UsageError: not one weight for each ranking, a weight below 0, or k below 0.
    """
    chosen = [1.0] * len(rankings) if weights is None else [float(weight) for weight in weights]
    if len(chosen) != len(rankings):
        raise UsageError(f"{len(chosen)} weights for {len(rankings)} rankings", hint="Give one weight for each.")
    _check_weights(chosen)
    if not (math.isfinite(k) and k >= 0):
        raise UsageError(f"k of {k}", hint="Give a number of at least 0; 60 is usual.")
    parts: dict[int, list[float]] = {}
    for ranking, weight in zip(rankings, chosen, strict=True):
        for rank, index in enumerate(dict.fromkeys(ranking), 1):
            parts.setdefault(index, []).append(weight / (k + rank))
    # An exact sum: in whatever order the rankings come, equal scores are equal.
    scored = [(index, math.fsum(values)) for index, values in parts.items()]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))


def weighted(
    scores: Mapping[str, NDArray[np.floating]], weights: Mapping[str, float], *, normalise: Normalise = "minmax"
) -> NDArray[np.float64]:
    """The weighted sum of normalised scores, float64 (n,); larger is better.

    Args:
        scores: by name, each of shape (n,), for the same n things; NaN where a search did not find a thing, which then
            counts like the worst of those that it found.
        weights: for each name in `scores`, at least 0.
        normalise: "minmax" maps each array to 0..1, "zscore" to mean 0 and standard deviation 1. An array whose values are
            all alike says nothing and becomes 0.

    Raises:
        UsageError: names or shapes that do not fit, infinite scores, or a weight below 0.
    """
    import numpy as np

    if not scores or scores.keys() != weights.keys():
        raise UsageError(
            f"scores for {sorted(scores)}, weights for {sorted(weights)}",
            hint="Give one weight for each of the scores.",
        )
    _check_weights(list(weights.values()))
    arrays = {name: np.asarray(values, np.float64) for name, values in scores.items()}
    if len({values.shape for values in arrays.values()}) > 1 or any(values.ndim != 1 for values in arrays.values()):
        raise UsageError("scores of different lengths", hint="All must be of shape (n,), for the same n things.")
    if any(np.isinf(values).any() for values in arrays.values()):
        raise UsageError("a score is infinite", hint="Use NaN for what was not found.")
    # In the order of names, so that the order of the mapping does not decide how sums are rounded.
    parts = [weights[name] * _normalise(arrays[name], normalise) for name in sorted(arrays)]
    total: NDArray[np.float64] = np.sum(parts, axis=0)
    return total


def mmr(
    query: NDArray[np.floating],
    vectors: NDArray[np.floating],
    candidates: Sequence[int],
    k: int,
    balance: float = 0.5,
) -> list[int]:
    """Maximal marginal relevance: up to `k` of the candidates, each like the query and unlike those before it.

    Each next one maximises balance · cos(query, d) − (1 − balance) · max cos(chosen, d) (Carbonell & Goldstein 1998, "The
    use of MMR, diversity-based reranking for reordering documents and producing summaries", SIGIR, whose λ is `balance`).

    Args:
        query: a unit vector (d,).
        vectors: unit vectors (n, d); `candidates` are indices into them.
        balance: 1 ranks by similarity alone, 0 (after the first one, which is the most similar) by difference alone.

    Raises:
        UsageError: `balance` is not in 0..1 or k is below 0.
    """
    import numpy as np

    if not 0 <= balance <= 1:
        raise UsageError(f"a balance of {balance}", hint="Give a number from 0 to 1.")
    if k < 0:
        raise UsageError(f"k of {k}", hint="Give a number of at least 0.")
    left = np.unique(np.asarray(candidates, np.int64))
    if not left.size or not k:
        return []
    pool = np.asarray(vectors, np.float64)[left]
    relevance = pool @ np.asarray(query, np.float64)
    # argmax takes the first of equals, and `left` is sorted. Without anything chosen, difference says nothing.
    place = int(np.argmax(relevance))
    redundancy = np.full(len(left), -np.inf)
    chosen: list[int] = []
    open_ = np.ones(len(left), bool)
    while True:
        chosen.append(int(left[place]))
        open_[place] = False
        if len(chosen) >= min(k, len(left)):
            return chosen
        redundancy = np.maximum(redundancy, pool @ pool[place])
        gain = balance * relevance - (1 - balance) * redundancy
        place = int(np.argmax(np.where(open_, gain, -np.inf)))


def _normalise(values: NDArray[np.float64], how: Normalise) -> NDArray[np.float64]:
    import numpy as np

    known = values[~np.isnan(values)]
    if not known.size or known.min() == known.max():
        return np.zeros_like(values)
    filled = np.where(np.isnan(values), known.min(), values)
    # Neither form depends on the unit; in units of the largest, differences and squares of huge or tiny scores stay exact.
    scale = np.abs(known).max()
    filled, known = filled / scale, known / scale
    origin, spread = (known.min(), np.ptp(known)) if how == "minmax" else (known.mean(), known.std())
    return (filled - origin) / spread if spread > 0 else np.zeros_like(values)


def _check_weights(weights: Sequence[float]) -> None:
    if any(not (math.isfinite(weight) and weight >= 0) for weight in weights):
        raise UsageError(f"weights {list(weights)}", hint="Each must be a number of at least 0.")
