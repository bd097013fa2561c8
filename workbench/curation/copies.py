"""Copies: rows that repeat another one of their split, and rows from which one of a held-out split is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.curation.items import Item
from workbench.curation.meaning import close_before
from workbench.curation.report import OUTCOME_OF, Finding, rounded
from workbench.curation.settings import Check, CurationSettings
from workbench.curation.words import WordIndex
from workbench.progress import Progress

_SAID = {"text": "same text as", "words": "nearly the words of", "meaning": "nearly the meaning of"}


class Match(NamedTuple):
    """Another row by its place, how it is alike (`text`, `words`, `meaning`) and by how much."""

    other: int
    how: str
    score: float


@dataclass
class Copies:
    """What was found: `dropped` holds ids; `nearest` the cosine of rows that could leak to the closest held-out row."""

    findings: list[Finding] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    nearest: list[float] = field(default_factory=list)


def find_copies(
    items: Sequence[Item],
    vectors: NDArray[np.float32] | None,
    settings: CurationSettings,
    *,
    progress: Progress | None = None,
) -> Copies:
    """Duplicates within a split, leaks between splits, and copies with different labels, in one pass.

    Rows are taken from the highest level to the lowest, and in their order within one. A row leaks if it is too close to a
    row of a higher level that stays. It is a duplicate if it is too close to an earlier row of its own level and label that
    is no duplicate itself: so of rows that stay when duplicates are dropped no two are close, and a second pass finds none.
    Copies with different labels contradict each other; both are reported and neither is a duplicate.

    Args:
        vectors: unit vectors of the items, shape (n, dimensions), a zero one where an item has none; None for no embeddings.
    """
    order = sorted(range(len(items)), key=lambda place: (-items[place].level, place))
    ordered = [items[place] for place in order]
    judged = _Pass(ordered, settings)
    if settings.near_duplicates == "skip" and settings.leakage == "skip":
        for place in range(len(ordered)):
            judged.judge(place, [])
        return judged.out
    index = WordIndex(
        [item.text for item in ordered],
        threshold=settings.jaccard,
        shingle=settings.shingle,
        permutations=settings.permutations,
    )
    first: dict[int, int] = {}
    for place, item in enumerate(ordered):
        first.setdefault(item.level, place)
    bounds = [first[item.level] for item in ordered]
    meanings = close_before(vectors[order], settings.cosine, bounds) if vectors is not None else None
    for place in range(len(ordered)):
        near = [Match(other, "words", score) for other, score in index.near(place)]
        if meanings is not None:
            close = next(meanings)
            near += [Match(int(n), "meaning", float(c)) for n, c in zip(close.places, close.cosines, strict=True)]
            if close.nearest is not None:
                judged.out.nearest.append(close.nearest)
        if judged.judge(place, near):
            index.add(place)
        if progress is not None and place % 256 == 0:
            progress.update(place)
    return judged.out


class _Pass:
    def __init__(self, items: Sequence[Item], settings: CurationSettings) -> None:
        self.out = Copies()
        self._items = items
        self._settings = settings
        self._present = np.zeros(len(items), bool)
        self._leader = np.zeros(len(items), bool)
        self._lowest = min((item.level for item in items), default=0)
        self._same: dict[bytes, list[int]] = {}
        self._contradicted: set[str] = set()

    def judge(self, place: int, near: Iterable[Match]) -> bool:
        """Decide about the row at `place`, given what is close before it; whether later rows must be compared with it."""
        items, item, settings = self._items, self._items[place], self._settings
        same = [Match(other, "text", 1.0) for other in self._same.get(item.key, ())]
        near = [m for m in near if self._present[m.other] and items[m.other].key != item.key]
        siblings = [m for m in (*same, *near) if items[m.other].level == item.level]
        leak = _best(m for m in (*same, *near) if items[m.other].level > item.level)
        alike = [m for m in siblings if items[m.other].label == item.label]
        twin = _best(m for m in alike if m.how == "text")
        likeness = _best(m for m in alike if m.how != "text" and self._leader[m.other])
        if settings.label_noise != "skip" and item.label is not None:
            against = _best(m for m in {*same, *siblings} if items[m.other].label not in (None, item.label))
            self._contradict(item, against)
        gone = False
        if leak is not None:
            gone = self._report("leakage", item, leak)
        if not gone and twin is not None:
            gone = self._report("exact-duplicates", item, twin)
        elif not gone and likeness is not None:
            gone = self._report("near-duplicates", item, likeness)
        if gone:
            return False
        self._present[place] = True
        self._leader[place] = twin is None and likeness is None
        if twin is None:
            self._same.setdefault(item.key, []).append(place)
        return twin is None and (likeness is None or item.level > self._lowest)

    def _report(self, check: Check, item: Item, match: Match) -> bool:
        """Note what was found, if the check is on; whether the row is dropped for it."""
        outcome = OUTCOME_OF.get(self._settings.action(check))
        if outcome is None:
            return False
        other = self._items[match.other]
        self.out.findings.append(_finding(item, other, check, match).model_copy(update={"action": outcome}))
        if outcome == "dropped":
            self.out.dropped.add(item.id)
        return outcome == "dropped"

    def _contradict(self, item: Item, against: Match | None) -> None:
        if against is None:
            return
        other = self._items[against.other]
        for one, two in ((item, other), (other, item)):
            if one.id not in self._contradicted:
                self._contradicted.add(one.id)
                found = _finding(one, two, "label-noise", against)
                reason = f"{found.reason}, which is labelled differently"
                self.out.findings.append(found.model_copy(update={"reason": reason}))


def _best(matches: Iterable[Match]) -> Match | None:
    return max(matches, key=lambda match: (match.score, match.how == "text", -match.other), default=None)


def _finding(item: Item, other: Item, check: Check, match: Match) -> Finding:
    return Finding(
        id=item.id,
        split=item.split,
        check=check,
        action="flagged",
        reason=f"{_SAID[match.how]} {other.split} row {other.id}",
        other=other.id,
        score=rounded(match.score),
    )
