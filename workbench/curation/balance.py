"""Class balance: how often each value of the target occurs, and which are too rare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from workbench.curation.items import Item
from workbench.curation.report import ClassCount, Note
from workbench.data.values import as_text


def is_classes(values: Sequence[Any], most: int) -> bool:
    """Whether these values of a target are classes rather than texts or measurements: few, and each used often."""
    present = [value for value in values if value is not None]
    if any(isinstance(value, float | dict | list) for value in present):
        return False
    different = len(set(map(as_text, present)))
    return 1 <= different <= most and 2 * different <= len(present)


def class_counts(items: Sequence[Item], column: str) -> list[ClassCount]:
    """Rows of each value of a target column by split, the most frequent value first."""
    splits = list(dict.fromkeys(item.split for item in items))
    found: dict[str, Counter[str]] = {}
    for item in items:
        if item.record[column] is not None:
            found.setdefault(as_text(item.record[column]), Counter())[item.split] += 1
    counts = [
        ClassCount(column=column, value=value, splits={split: by_split[split] for split in splits})
        for value, by_split in found.items()
    ]
    return sorted(counts, key=lambda count: (-count.rows, count.value))


def balance_notes(counts: Sequence[ClassCount], smallest: int) -> list[Note]:
    """What to say of a target's classes: how unequal they are, which are too small, which a split lacks."""
    if not counts:
        return []
    column, most, least = counts[0].column, counts[0], counts[-1]
    ratio = most.rows / least.rows
    largest = (
        f"the largest ({most.value}, {most.rows} rows) is {ratio:.1f} times the smallest ({least.value}, {least.rows})"
    )
    said = [f"{column}: {len(counts)} classes, {largest}."]
    if len(counts) == 1:
        said = [f"{column}: one class only ({most.value}): there is nothing to learn."]
    small = [count.value for count in counts if count.rows < smallest]
    if small:
        said.append(f"{column}: fewer than {smallest} rows of {_listed(small)}.")
    for split in most.splits:
        absent = [count.value for count in counts if not count.splits[split]]
        if absent:
            said.append(f"{column}: none in {split} of {_listed(absent)}.")
    return [Note(check="class-balance", text=text) for text in said]


def _listed(values: Sequence[str], most: int = 5) -> str:
    more = len(values) - most
    return ", ".join(values[:most]) + (f" and {more} more" if more > 0 else "")
