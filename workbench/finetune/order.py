"""In which order rows are trained on: drawn once from the seed, so that it depends on nothing that a kill could lose."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

# Batches that are sorted together: more of them waste less on padding, fewer mix rows better.
_POOL = 32


def steps_of(rows: int, batch_size: int, epochs: float, max_steps: int | None = None) -> int:
    """Steps of a training: passes over the rows in whole batches, at least one, at most `max_steps`."""
    steps = max(1, math.ceil(rows * epochs / batch_size - 1e-9))
    return steps if max_steps is None else min(steps, max_steps)


def look_every(steps: int, asked: int | None = None) -> int:
    """Steps between two looks at the dev split: as asked, or for about eight of them, the last not just before the end."""
    if asked is not None:
        return asked
    for looks in (8, 7, 9, 6, 10):
        every = -(-steps // looks)
        if steps % every == 0 or steps % every * 2 >= every:
            return every
    return -(-steps // 8)


def training_order(lengths: Sequence[int], batch_size: int, steps: int, seed: int) -> list[int]:
    """Indices of the rows of every step, one after another: `steps * batch_size` of them.

    Every row comes equally often, up to one time. Rows of like length share a batch, the batches are in random order, and
    within one the longest come first, so that pieces of a batch are of like length too. The batch with the longest rows
    is the very first: what does not fit memory shows at once.
    """
    chance = random.Random(seed)
    stream = _passes(len(lengths), chance)
    batches: list[list[int]] = []
    while len(batches) < steps:
        wanted = min(_POOL, max(1, len(lengths) // batch_size), steps - len(batches)) * batch_size
        pool = sorted((next(stream) for _ in range(wanted)), key=lambda row: (-lengths[row], row))
        pieces = [pool[start : start + batch_size] for start in range(0, wanted, batch_size)]
        chance.shuffle(pieces)
        batches += pieces
    first = max(range(len(batches)), key=lambda place: lengths[batches[place][0]])
    batches[0], batches[first] = batches[first], batches[0]
    return [row for batch in batches for row in batch]


def _passes(rows: int, chance: random.Random) -> Iterator[int]:
    while True:
        order = list(range(rows))
        chance.shuffle(order)
        yield from order
