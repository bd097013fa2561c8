"""Charts to click on, and the table of what was clicked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.ui.charts import Nothing
from workbench.ui.cost_quality_charts import PICK

if TYPE_CHECKING:
    import polars as pl


def clickable(chart: Any) -> Any:
    """A chart whose clicks the notebook hears of; what stands in place of one as it is."""
    if isinstance(chart, Nothing):
        return chart
    import marimo

    return marimo.ui.altair_chart(chart, chart_selection=False, legend_selection=False)


def rows_table(rows: pl.DataFrame) -> Any:
    """A table to page through, to search and to download as CSV."""
    import marimo

    return marimo.ui.table(rows, selection=None, page_size=10, show_column_summaries=False, show_data_types=False)


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
