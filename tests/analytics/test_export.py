"""Rows to CSV, Parquet and Excel."""

from __future__ import annotations

import zipfile
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from workbench import api
from workbench.analytics.export import export
from workbench.errors import DataError, UsageError

ROWS = pl.DataFrame(
    {
        "name": ["a", "b"],
        "text": ["=cmd|' /C calc'!A0", "two\nlines"],
        "aliases": [["x", "y"], []],
        "at": [datetime(2026, 3, 1, 12), None],
        "value": [0.5, float("inf")],
    }
)


def test_csv_and_parquet_read_back(tmp_path: Path) -> None:
    assert export(ROWS, tmp_path / "rows.parquet") == 2
    assert pl.read_parquet(tmp_path / "rows.parquet").equals(ROWS)
    assert export(ROWS.lazy(), tmp_path / "rows.CSV") == 2
    read = pl.read_csv(tmp_path / "rows.CSV")
    assert read["aliases"].to_list() == ["x, y", ""]
    assert read["text"].to_list() == ROWS["text"].to_list()


def test_excel_holds_texts_as_texts_and_times_as_times(tmp_path: Path) -> None:
    long = ROWS.with_columns(long=pl.lit("x" * 40_000))
    assert export(long, tmp_path / "rows.xlsx") == 2
    with zipfile.ZipFile(tmp_path / "rows.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
        strings = book.read("xl/sharedStrings.xml").decode()
    # Nothing that a model wrote is run by the reader's Excel.
    assert "<f>" not in sheet
    assert "=cmd|" in strings
    # Excel has no infinity.
    assert "inf" not in sheet + strings
    assert "x, y" in strings
    assert "x" * 32_767 in strings
    assert "x" * 32_768 not in strings


def test_what_cannot_be_exported_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"rows\.json.*\.csv, \.parquet or \.xlsx"):
        export(ROWS, tmp_path / "rows.json")
    with pytest.raises(UsageError, match="Excel holds 1048575"):
        export(pl.DataFrame({"n": range(1_048_576)}), tmp_path / "rows.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_exports_queries_and_frames(workspace: api.Workspace, tmp_path: Path) -> None:
    assert workspace.export("select 1 as one", tmp_path / "one.csv") == 1
    assert (tmp_path / "one.csv").read_text() == "one\n1\n"
    assert workspace.export(workspace.frame("calls"), tmp_path / "calls.parquet") == 0


def test_a_frame_that_meets_damage_says_what_finds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "damaged.parquet"
    pl.DataFrame({"a": range(1000)}).write_parquet(path)
    rows = pl.scan_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(200) + content[204:])
    with pytest.raises(DataError, match=r"cannot be read.*`workbench events check` names damaged files"):
        export(rows, tmp_path / "rows.csv")
    assert not (tmp_path / "rows.csv").exists()


def test_bytes_are_digits_in_csv(tmp_path: Path) -> None:
    export(pl.DataFrame({"a": [b"\x00a", None], "b": [[b"\x01"], []]}), tmp_path / "rows.csv")
    assert pl.read_csv(tmp_path / "rows.csv", infer_schema=False)["a"].to_list() == ["0061", None]
