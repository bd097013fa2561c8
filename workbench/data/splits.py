"""Splits and samples by hash: what a row gets depends on the row alone, never on its neighbours or on storage order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence


def split_of(key: str, splits: Mapping[str, float], seed: str) -> str:
    """The split of the row (or of the whole group of rows) named `key`.

    The first 64 bits of SHA-256(`seed` + ":" + `key`), as a number in [0, 1), against the cumulative shares. Adding
    rows moves none; changing a share moves only rows near the boundaries that it shifts.
    """
    position = int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]) / 2**64
    bound = 0.0
    for name, share in splits.items():
        bound += share
        if position < bound:
            return name
    return list(splits)[-1]  # the shares may sum to a hair under 1


def shuffled(ids: Iterable[str], seed: int) -> list[str]:
    """`ids` in an order that only `seed` and the ids decide."""
    return sorted(ids, key=lambda key: (hashlib.sha256(f"{seed}:{key}".encode()).digest(), key))


def stratified(labels: Sequence[tuple[str, str]], n: int, seed: int) -> list[str]:
    """`n` ids from (id, label) pairs, one label after the other in turn, so that labels are about as frequent."""
    piles: dict[str, list[str]] = {}
    label_of = dict(labels)
    for key in shuffled(label_of, seed):
        piles.setdefault(label_of[key], []).append(key)
    order = shuffled(piles, seed)
    taken: list[str] = []
    depth = 0
    while len(taken) < min(n, len(label_of)):
        taken += [piles[label][depth] for label in order if depth < len(piles[label])]
        depth += 1
    return taken[:n]
