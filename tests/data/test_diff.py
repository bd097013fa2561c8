"""What changed between two data sets."""

from __future__ import annotations

import json

import polars as pl

from workbench.data.dataset import Dataset
from workbench.data.diff import diff


def make(rows: dict[str, tuple[object, object]]) -> Dataset:
    path_rows = [{"id": key, "x": x, "y": y} for key, (x, y) in rows.items()]
    return Dataset.from_frame(pl.DataFrame(path_rows, strict=False), name="m")


def test_added_removed_and_changed_rows() -> None:
    before = make({"a": ("one", 1), "b": ("two", 2), "c": ("three", None)})
    after = make({"d": ("four", 4), "c": ("three", 3), "b": ("TWO <b>", 2)})
    change = diff(before, after)
    assert (change.added, change.removed) == (("d",), ("a",))
    assert change.changed == {"b": {"x": ("two", "TWO <b>")}, "c": {"y": (None, 3)}}
    assert change.counts == {"added": 1, "removed": 1, "changed": 2, "unchanged": 0}
    assert change
    assert "~ b  x: 'two' → 'TWO <b>'" in str(change)
    assert "TWO &lt;b&gt;" in change._repr_html_()
    assert json.loads(json.dumps(change.to_json()))["changed"]["c"] == {"y": {"old": None, "new": 3}}


def test_order_does_not_count_and_a_column_that_is_gone_does() -> None:
    before = make({"a": ("one", 1), "b": ("two", 2)})
    assert not diff(before, make({"b": ("two", 2), "a": ("one", 1)}))
    without = Dataset.from_frame(pl.DataFrame({"id": ["a", "b"], "x": ["one", "two"]}), name="m")
    assert diff(before, without).changed == {"a": {"y": (1, None)}, "b": {"y": (2, None)}}


def test_a_long_diff_is_cut_and_says_so() -> None:
    before, after = make({"a": ("one", 1)}), make({f"r{i}": ("x", i) for i in range(30)})
    assert "… and 11 more" in str(diff(before, after))
