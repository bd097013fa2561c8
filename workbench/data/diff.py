"""Differences between two data sets, or two versions of one, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from workbench.data.dataset import Dataset
from workbench.data.show import clip, html_table
from workbench.files import canonical_json, short

SHOWN = 20


@dataclass(frozen=True)
class DatasetDiff:
    """What changed from `before` to `after`.

    Attributes:
        before, after: how the two are called, digest included.
        added, removed: ids, sorted.
        changed: id → column → (old value, new value), for rows in both, sorted by id. An absent cell is None.
        unchanged: how many rows are the same in both.
    """

    before: str
    after: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]]
    unchanged: int

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.changed)

    def to_json(self) -> dict[str, Any]:
        """As JSON data: counts, ids, and the changed cells."""
        return {
            "before": self.before,
            "after": self.after,
            "counts": self.counts,
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": {
                key: {column: {"old": old, "new": new} for column, (old, new) in cells.items()}
                for key, cells in self.changed.items()
            },
        }

    @property
    def counts(self) -> dict[str, int]:
        return {
            "added": len(self.added),
            "removed": len(self.removed),
            "changed": len(self.changed),
            "unchanged": self.unchanged,
        }

    @property
    def headline(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in self.counts.items())

    def _lines(self) -> list[tuple[str, str, str, Any, Any]]:
        lines: list[tuple[str, str, str, Any, Any]] = [("+", key, "", None, None) for key in self.added]
        lines += [("-", key, "", None, None) for key in self.removed]
        lines += [
            ("~", key, column, old, new) for key, cells in self.changed.items() for column, (old, new) in cells.items()
        ]
        return lines

    def __str__(self) -> str:
        lines = self._lines()
        text = [f"{self.before} → {self.after}: {self.headline}"]
        for mark, key, column, old, new in lines[:SHOWN]:
            text.append(f"{mark} {key}" + (f"  {column}: {clip(old, 50)!r} → {clip(new, 50)!r}" if column else ""))
        if len(lines) > SHOWN:
            text.append(f"… and {len(lines) - SHOWN} more")
        return "\n".join(text)

    def _repr_html_(self) -> str:
        lines = self._lines()
        more = f"<p>… and {len(lines) - SHOWN} more</p>" if len(lines) > SHOWN else ""
        title = f"<p>{escape(self.before)} → {escape(self.after)}: {self.headline}</p>"
        return title + (html_table(("", "row", "column", "old", "new"), lines[:SHOWN]) + more if lines else "")


def diff(before: Dataset, after: Dataset) -> DatasetDiff:
    """Compare two data sets by row id; the order of rows and of columns does not matter."""
    old = {record["id"]: record for record in before.records()}
    new = {record["id"]: record for record in after.records()}
    changed: dict[str, dict[str, tuple[Any, Any]]] = {}
    for key in sorted(old.keys() & new.keys()):
        names = dict.fromkeys([*old[key], *new[key]])
        cells = {name: (old[key].get(name), new[key].get(name)) for name in names}
        differing = {name: pair for name, pair in cells.items() if not _same(*pair)}
        if differing:
            changed[key] = differing
    return DatasetDiff(
        before=f"{before.name} {short(before.digest)}",
        after=f"{after.name} {short(after.digest)}",
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=changed,
        unchanged=len(old.keys() & new.keys()) - len(changed),
    )


def _same(old: Any, new: Any) -> bool:
    # As JSON, not as Python, which holds True equal to 1.
    return canonical_json(old) == canonical_json(new)
