"""Likeness of meaning: cosines of embeddings, computed in blocks of matrix products, so that memory stays linear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from workbench.retrieval.embedding import Embedder

# Numbers of a block of cosines: 128 MB.
_BLOCK = 1 << 25


@dataclass(frozen=True)
class Close:
    """What lies close before one vector: places and cosines, and the largest cosine to the first `bound` vectors, if any."""

    places: NDArray[np.intp]
    cosines: NDArray[np.float32]
    nearest: float | None


def close_before(vectors: NDArray[np.float32], threshold: float, bounds: Sequence[int]) -> Iterator[Close]:
    """For each of some unit vectors, shape (n, dimensions), the ones before it with a cosine of at least `threshold`.

    Args:
        bounds: for each vector, how many of the first ones `nearest` is about; never more than are before it.
    """
    count = len(vectors)
    step = max(1, _BLOCK // max(count, 1))
    for start in range(0, count, step):
        end = min(start + step, count)
        cosines = vectors[start:end] @ vectors[:end].T
        for row in range(end - start):
            place = start + row
            before = cosines[row, :place]
            hits = np.flatnonzero(before >= threshold)
            bound = min(bounds[place], place)
            yield Close(hits, before[hits], float(before[:bound].max()) if bound else None)


def cut_short(texts: Sequence[str], embedder: Embedder) -> NDArray[np.bool_]:
    """Which texts are longer than the embedder reads: two of them may differ only in what it never saw."""
    limit, tokenizer = embedder.max_tokens, embedder.tokenizer
    cut = np.zeros(len(texts), bool)
    if limit is None or tokenizer is None:
        return cut
    # A token is at least a character, and few texts need counting.
    long = [place for place, text in enumerate(texts) if len(text) > limit - 8]
    for start in range(0, len(long), 1024):
        part = long[start : start + 1024]
        encoded = tokenizer.encode_batch([texts[place] for place in part])
        cut[part] = [len(tokens.ids) > limit for tokens in encoded]
    return cut
