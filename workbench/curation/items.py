"""Items: the rows as the checks see them, each with its text, what makes it a copy, its split's level and its label."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.data.dataset import Dataset, target_of
from workbench.data.values import as_text
from workbench.errors import UsageError
from workbench.files import canonical_json

_HELD_OUT = ("test", "holdout")
_DEV = ("dev", "val", "valid", "validation", "eval")


@dataclass(frozen=True)
class Item:
    """One row.

    Attributes:
        record: every column.
        text: the texts of its inputs, one below the other.
        key: its inputs without their case and white space: rows of one key are copies.
        level: of its split; a row must not be known from one of a higher level.
        label: its whole target as text, None where it has none.
    """

    id: str
    split: str
    level: int
    record: dict[str, Any]
    text: str
    key: bytes
    label: str | None


def make_items(dataset: Dataset, records: Sequence[dict[str, Any]], order: Sequence[str] = ()) -> list[Item]:
    """The rows of `dataset`, whose `records` may have been changed since they were read.

    Raises:
        UsageError: no input column holds text, or `order` does not name the splits.
    """
    spec = dataset.spec
    levels = split_levels([name for name, rows in dataset.splits().items() if rows], order)
    if not any(_texts(record, spec.input) for record in records):
        raise UsageError(
            f"no input column of {dataset.name!r} holds text: {', '.join(spec.input)}",
            hint="Name the column of the texts as input when the data set is imported",
        )
    splits = {key: name for name in levels for key in dataset.split(name).ids}
    items = []
    for record in records:
        target = target_of(spec, record)
        missing = target is None or (isinstance(target, dict) and all(value is None for value in target.values()))
        split = splits[record["id"]]
        text = "\n".join(_texts(record, spec.input))
        key = canonical_json([mapped(record[column], lambda _, text: normalise(text)) for column in spec.input])
        label = None if missing else as_text(target)
        items.append(Item(record["id"], split, levels[split], record, text, key, label))
    return items


def normalise(text: str) -> str:
    """A text without what copies may differ in: case, white space, and compatibility forms of its letters (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split_levels(names: Sequence[str], order: Sequence[str] = ()) -> dict[str, int]:
    """The level of each split: 0 train and any other name, 1 dev, 2 test; or its place in `order`.

    Raises:
        UsageError: `order` lacks a split or names one that is not there.
    """
    if order:
        if set(order) != set(names):
            raise UsageError(
                f"the splits are {', '.join(sorted(names))}, not {', '.join(order)}", hint="Name each of them once"
            )
        return {name: level for level, name in enumerate(order)}
    return {name: _level(name) for name in names}


def _level(name: str) -> int:
    words = re.split(r"[^a-z]+", name.lower())
    return 2 if any(word in _HELD_OUT for word in words) else 1 if any(word in _DEV for word in words) else 0


def _texts(record: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    return [text for column in columns for _, text in texts_in(record[column])]


def texts_in(value: Any) -> list[tuple[str, str]]:
    """The texts in a cell and where in it they are: "" for the cell itself, ".name" and "[0]" inside of one."""
    found: list[tuple[str, str]] = []

    def keep(place: str, text: str) -> str:
        found.append((place, text))
        return text

    mapped(value, keep)
    return found


def mapped(value: Any, change: Callable[[str, str], str], path: str = "") -> Any:
    """A cell with each text in it replaced by what `change` makes of its place and of it."""
    if isinstance(value, str):
        return change(path, value)
    if isinstance(value, dict):
        return {name: mapped(inner, change, f"{path}.{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [mapped(inner, change, f"{path}[{place}]") for place, inner in enumerate(value)]
    return value
