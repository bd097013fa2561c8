"""Where the boxes and lines of a lineage's picture are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.registry.lineage_graph import Edge

# Pixels. Boxes and the gaps between them are narrower where that makes all columns fit a page of marimo's.
PAGE, HIGH, ROW, HEAD = 1030, 36, 50, 26
BOXES, GAPS = (104, 150), (22, 46)
# What a letter, and a digit, takes of a box.
_LETTER, _DIGIT = 7.3, 8.4
_SWEEPS = 8


@dataclass(frozen=True)
class Place:
    """Where a box is, or where a line goes through between boxes: its column and its row, from 0; rows may be halves."""

    column: int
    row: float

    @property
    def middle(self) -> float:
        return HEAD + self.row * ROW + ROW / 2


@dataclass(frozen=True)
class Widths:
    """Of the boxes of a picture, and of the gaps between its columns, in pixels."""

    box: float
    gap: float

    @classmethod
    def of(cls, columns: int) -> Widths:
        """The widest of so many columns that fit; where none do, the narrowest."""
        box = min(BOXES[1], max(BOXES[0], (PAGE - (columns - 1) * GAPS[0]) // columns))
        gap = min(GAPS[1], max(GAPS[0], (PAGE - columns * box) // max(columns - 1, 1)))
        return cls(box, gap)

    def left(self, place: Place) -> float:
        return place.column * (self.box + self.gap)

    def fit(self, label: str) -> str:
        """A label as far as it fits into a box: cut in the middle, since what tells versions and splits apart is its end."""
        digits = sum(letter.isdigit() for letter in label)
        most = int((self.box - 13) / (_DIGIT if digits * 2 > len(label) else _LETTER))
        if len(label) <= most:
            return label
        ends = [label[mark:] for mark in (label.find("@"), label.rfind(" ")) if mark > 0]
        end = next((end for end in ends if len(end) <= most * 2 // 3), label[-(most // 3) :])
        return f"{label[: most - 1 - len(end)]}…{end}"


def arrange(
    keys: Sequence[str], columns: Mapping[str, int], edges: Sequence[Edge]
) -> tuple[dict[str, Place], dict[Edge, list[Place]]]:
    """Where the boxes are, and the places through which each line goes, its ends included.

    A line that passes columns has a row of its own in each, so that it runs behind no box. Rows are ordered by the mean
    of their neighbours' (Sugiyama, Tagawa and Toda 1981, "Methods for visual understanding of hierarchical systems").

    Args:
        columns: of each key; an edge's `earlier` is left of its `later`.
    """
    slots: dict[int, list[str]] = {}
    column_of, chains = dict(columns), {}
    for key in keys:
        slots.setdefault(columns[key], []).append(key)
    for number, edge in enumerate(edges):
        chain = [edge.earlier]
        for column in range(columns[edge.earlier] + 1, columns[edge.later]):
            chain.append(f"\0{number}.{column}")
            slots.setdefault(column, []).append(chain[-1])
            column_of[chain[-1]] = column
        chains[edge] = [*chain, edge.later]
    beside: dict[str, list[str]] = {}
    for chain in chains.values():
        for one, other in itertools.pairwise(chain):
            beside.setdefault(one, []).append(other)
            beside.setdefault(other, []).append(one)
    tallest = max(map(len, slots.values()))
    row: dict[str, float] = {}

    def spread(column: int) -> None:
        for place, key in enumerate(slots[column]):
            row[key] = place + (tallest - len(slots[column])) / 2

    for column in slots:
        spread(column)
    for sweep in range(_SWEEPS):
        for column in sorted(slots, reverse=bool(sweep % 2)):
            side = 1 if sweep % 2 else -1

            def mean(key: str, wanted: int = column + side) -> float:
                near = [row[one] for one in beside.get(key, ()) if column_of[one] == wanted]
                return sum(near) / len(near) if near else row[key]

            slots[column].sort(key=mean)
            spread(column)
    at = {key: Place(column_of[key], row[key]) for key in row}
    return {key: at[key] for key in keys}, {edge: [at[key] for key in chain] for edge, chain in chains.items()}
