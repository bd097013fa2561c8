"""Rows to a file: CSV, Parquet or Excel, by its ending."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from workbench.errors import DataError, UsageError, require
from workbench.events.parquet import UNREADABLE
from workbench.files import atomic_file

# What a sheet of Excel holds at most, with its heading, and a cell.
_EXCEL_ROWS, _EXCEL_CELL = 1_048_575, 32_767


def export(rows: pl.DataFrame | pl.LazyFrame, path: str | Path) -> int:
    """Write rows to `path` (`.csv`, `.parquet` or `.xlsx`), complete or not at all. Returns how many there are.

    In CSV and Excel lists are texts with commas, and bytes hexadecimal digits. In Excel texts longer than a cell holds are cut,
    formulas stay texts, and what is not a finite number is empty.

    Raises:
        UsageError: another ending, or more rows than Excel has.
        MissingExtraError: Excel without its library.
        DataError: a file that the rows come from is damaged.
    """
    path = Path(path)
    found = _collected(rows) if isinstance(rows, pl.LazyFrame) else rows
    ending = path.suffix.lower()
    if ending not in (".csv", ".parquet", ".xlsx"):
        raise UsageError(f"cannot export to {path.name}", hint="Name a file that ends in .csv, .parquet or .xlsx.")
    xlsxwriter = require("xlsxwriter", extra="excel") if ending == ".xlsx" else None
    if xlsxwriter is not None and len(found) > _EXCEL_ROWS:
        raise UsageError(f"{len(found)} rows, and Excel holds {_EXCEL_ROWS}", hint="Export to .parquet or .csv.")
    with atomic_file(path) as file:
        if ending == ".csv":
            flat(found).write_csv(file)
        elif ending == ".parquet":
            found.write_parquet(file, compression="zstd")
        else:
            _write_excel(flat(found), file, xlsxwriter)
    return len(found)


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    try:
        return rows.collect()
    except UNREADABLE as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"the rows cannot be read: {reason}", hint="`workbench events check` names damaged files."
        ) from None


def flat(rows: pl.DataFrame) -> pl.DataFrame:
    """Without lists, structures and bytes."""
    changes: list[pl.Expr | pl.Series] = []
    for name, kind in rows.schema.items():
        if kind == pl.Binary:
            changes.append(pl.col(name).bin.encode("hex"))
        elif isinstance(kind, pl.List) and kind.inner != pl.Binary and not kind.inner.is_nested():
            changes.append(pl.col(name).cast(pl.List(pl.String)).list.join(", "))
        elif kind.is_nested():
            texts = [None if value is None else str(value) for value in rows[name].to_list()]
            changes.append(pl.Series(name, texts, pl.String))
    return rows.with_columns(changes)


def _write_excel(rows: pl.DataFrame, file: Any, xlsxwriter: Any) -> None:
    numbers = pl.col(pl.Float64, pl.Float32)
    cut = rows.with_columns(
        pl.col(pl.String).str.slice(0, _EXCEL_CELL), pl.when(numbers.is_finite()).then(numbers).name.keep()
    )
    # A model's output that begins with = must not become a formula on the reader's machine.
    safe = {"strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(file, safe) as workbook:
        cut.write_excel(workbook, worksheet="events", autofit=len(rows) <= 1000)
