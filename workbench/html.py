"""Small HTML pieces with which results show themselves in marimo and Jupyter, readable in light and dark."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import polars as pl

_TINTS = {"ok": "46,160,67", "warn": "210,153,34", "bad": "218,54,51", "info": "56,119,205"}


def escape(value: Any) -> str:
    """Text of a cell: None is a dash, floats have four significant digits."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return html.escape(str(value))


def duration(seconds: float) -> str:
    """Seconds in the unit that people would say them in."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 row`, `1,024 rows`.

    Args:
        many: the word for other counts than one; `one` with an s by default.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, raw: bool = False) -> str:
    """A compact table. Cells are escaped unless `raw`; numbers are set to the right."""
    style = "padding:.25em .7em;border-bottom:1px solid rgba(128,128,128,.3);vertical-align:top;"
    head = "".join(f"<th style='{style}text-align:left'>{html.escape(name)}</th>" for name in headers)
    body = ""
    for row in rows:
        cells = ""
        for cell in row:
            number = isinstance(cell, (int, float)) and not isinstance(cell, bool)
            align = "right;font-variant-numeric:tabular-nums" if number else "left"
            cells += f"<td style='{style}text-align:{align}'>{cell if raw and not number else escape(cell)}</td>"
        body += f"<tr>{cells}</tr>"
    return (
        "<div style='overflow-x:auto'><table style='border-collapse:collapse;font-size:.9em'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def frame_table(frame: pl.DataFrame, *, limit: int = 50) -> str:
    """A frame as a table, saying how many rows are not shown."""
    shown = table(frame.columns, frame.head(limit).rows())
    more = len(frame) - limit
    return shown + (f"<p style='opacity:.7'>and {more} more rows</p>" if more > 0 else "")


def callout(text: str, kind: Literal["ok", "warn", "bad", "info"] = "info") -> str:
    """A tinted box with a sentence in it."""
    tint = _TINTS[kind]
    return (
        f"<div style='border-left:4px solid rgb({tint});background:rgba({tint},.12);padding:.6em .9em;"
        f"margin:.5em 0;border-radius:4px'>{html.escape(text)}</div>"
    )
