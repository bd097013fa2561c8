"""Charts to click on, and the table of what was clicked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.analytics.export import flat
from workbench.ui.charts import Nothing
from workbench.ui.cost_quality_charts import PICK
from workbench.ui.lab import Html
from workbench.ui.queries import LATEST_CALLS

if TYPE_CHECKING:
    import polars as pl

    from workbench.ui.cost_quality import Board


def clickable(chart: Any) -> Any:
    """A chart whose clicks the notebook hears of; what stands in place of one as it is."""
    if isinstance(chart, Nothing):
        return chart
    import marimo

    return marimo.ui.altair_chart(chart, chart_selection=False, legend_selection=False)


def rows_table(rows: pl.DataFrame, name: str = "rows") -> Any:
    """A table to page through, to search and to download as `name`.csv."""
    import marimo

    shown: dict[str, Any] = {
        "selection": None,
        "page_size": 10,
        "show_column_summaries": False,
        "show_data_types": False,
    }
    # Marimo's own download writes a text such as =HYPERLINK(…) for the reader's spreadsheet to run.
    table = marimo.ui.table(rows, show_download=False, **shown)
    download = marimo.download(lambda: as_csv(rows), filename=f"{name}.csv", label="Download CSV")
    return marimo.vstack([table, marimo.hstack([download], justify="start")])


def as_csv(rows: pl.DataFrame) -> bytes:
    """The rows as CSV, texts that a spreadsheet would take for a formula after an apostrophe."""
    import polars as pl

    text = pl.col(pl.String)
    safe = pl.when(text.str.contains(r"^[=+\-@\t\r]")).then(pl.lit("'") + text).otherwise(text).name.keep()
    return flat(rows).with_columns(safe).write_csv().encode()


def extent(board: Board, picked: Picked, *, errors: bool = False) -> Html:
    """How many calls are behind what was clicked, where the table of them holds the latest only; empty otherwise."""
    total = board.count(picked, errors=errors)
    if total <= LATEST_CALLS:
        return Html("")
    said = f"The latest {LATEST_CALLS} of {total:,} calls; the search and the download of the table reach only these."
    return Html(f"<p style='margin:0;font-size:.9em'>{said} Filter above, or choose a day, to see others.</p>")


@dataclass(frozen=True)
class Picked:
    """What was clicked: a day, a model, a prompt; empty where none was."""

    day: str = ""
    model: str = ""
    prompt: str = ""

    @classmethod
    def of(cls, charts: Sequence[Any], *, day: str | None = None) -> Picked:
        """Of charts made by `clickable`, and of a control."""
        found: dict[str, str] = {}
        for chart in charts:
            for name, values in getattr(chart, "selections", {}).get(PICK, {}).items():
                if name in ("day", "model", "prompt") and values:
                    found[name] = str(values[0])
        return cls(day or found.get("day", ""), found.get("model", ""), found.get("prompt", ""))

    def __str__(self) -> str:
        return ", ".join(part for part in (self.day, self.model, self.prompt) if part) or "the whole period"
