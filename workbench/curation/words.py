"""Word overlap: near duplicates by MinHash and locality-sensitive hashing, each candidate verified by the exact Jaccard index."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from workbench.curation.items import normalise
from workbench.errors import require
from workbench.retrieval.words import Words

_words = Words(None, frozenset())
# What the hashing misses is lost, what it finds too much is verified away: so it leans to the side of finding.
_WEIGHTS = (0.25, 0.75)


def shingles(text: str, size: int = 2) -> frozenset[str]:
    """The runs of `size` words in a text; all of it where it has fewer words."""
    words = _words(text) or [normalise(text)]
    return frozenset(" ".join(words[place : place + size]) for place in range(max(1, len(words) - size + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection over that of the union (Broder 1997)."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if one or other else 1.0


@functools.cache
def _bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and the hashes in one, which datasketch takes a while to choose."""
    library = require("datasketch", extra="curate")
    index = library.MinHashLSH(threshold=threshold, num_perm=permutations, weights=_WEIGHTS)
    return int(index.b), int(index.r)


class WordIndex:
    """Texts that can be asked for what shares most of its words with one of them.

    Args:
        texts: all of them; `add` says which ones are found.

    Raises:
        MissingExtraError: datasketch is not installed.
    """

    def __init__(self, texts: Sequence[str], *, threshold: float, shingle: int = 2, permutations: int = 128) -> None:
        library = require("datasketch", extra="curate")
        self._threshold = threshold
        self._shingles = [shingles(text, shingle) for text in texts]
        encoded = ([piece.encode("utf-8", "surrogatepass") for piece in pieces] for pieces in self._shingles)
        self._hashes: list[Any] = list(library.MinHash.bulk(encoded, num_perm=permutations, seed=1))
        self._index = library.MinHashLSH(num_perm=permutations, params=_bands(threshold, permutations))

    def add(self, place: int) -> None:
        """Let the text at `place` be found."""
        self._index.insert(place, self._hashes[place], check_duplication=False)

    def near(self, place: int) -> list[tuple[int, float]]:
        """Places of added texts and their Jaccard index with the text at `place`, those at or above the threshold."""
        mine = self._shingles[place]
        scored = ((other, jaccard(mine, self._shingles[other])) for other in self._index.query(self._hashes[place]))
        return sorted((other, score) for other, score in scored if score >= self._threshold)
