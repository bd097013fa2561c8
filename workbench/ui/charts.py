"""Charts of a comparison and a run, by Altair. Transparent, in hues that read on white and on black."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import require
from workbench.html import callout

if TYPE_CHECKING:
    from workbench.experiments.comparison import Comparison
    from workbench.experiments.run import Run

# The colour of the text around a chart: dark on a light page and light on a dark one.
INK = "currentColor"
# Marks that stand back.
GREY = "#808893"
OUTCOMES = ("better", "worse", "equivalent", "inconclusive")
OUTCOME_COLOURS = ("#2ea043", "#da3633", "#3877cb", "#d29922")
OUTCOME_SHAPES = ("triangle-up", "triangle-down", "square", "circle")
VARIANT_COLOURS = ("#3877cb", "#e0762f", "#2a9d8f", "#b5488f", "#7a5fc0", "#808893")
MOST_VALUES = 20


class Nothing:
    """Stands where a chart would, and says why there is none."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def _repr_html_(self) -> str:
        return callout(self.reason, "info")

    def __str__(self) -> str:
        return self.reason


def difference_plot(comparison: Comparison, *, width: int | str = 520) -> Any:
    """Difference to the baseline with its interval: one row a variant and scorer of quality, zero marked.

    Returns: an Altair chart, or `Nothing`.
    """
    table = comparison.table()
    kinds = {row.scorer: row.family for row in comparison.rows}
    rows = [
        {**row, "label": row["scorer"] if len(comparison.variants) == 1 else f"{row['variant']} · {row['scorer']}"}
        for row in table.to_dicts()
        if row["difference"] is not None and kinds[row["scorer"]] == "quality"
    ]
    if not rows:
        return Nothing("There is no difference to show yet: no row has a score for both variants.")
    alt = require("altair", extra="charts")
    data = alt.Data(values=rows)
    order = [row["label"] for row in rows]
    y = alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    x = alt.X(
        "low:Q",
        title=f"difference to {comparison.baseline} (share of rows or score)",
        axis=alt.Axis(format="+.0%", tickCount=6),
    )
    colour = alt.Color(
        "outcome:N",
        scale=alt.Scale(domain=list(OUTCOMES), range=list(OUTCOME_COLOURS)),
        legend=alt.Legend(title=None, orient="bottom", values=sorted({row["outcome"] for row in rows})),
    )
    shape = alt.Shape("outcome:N", scale=alt.Scale(domain=list(OUTCOMES), range=list(OUTCOME_SHAPES)), legend=None)
    tips = [
        alt.Tooltip("label:N", title="scorer"),
        *(alt.Tooltip(f"{name}:Q", format="+.1%") for name in ("difference", "low", "high")),
        alt.Tooltip("p_holm:Q", title="adjusted p", format=".3f"),
        alt.Tooltip("n:Q", title="rows"),
        "outcome:N",
    ]
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(strokeDash=[4, 4], color=INK).encode(x="zero:Q")
    bars = alt.Chart(data).mark_rule(strokeWidth=3).encode(y=y, x=x, x2="high:Q", color=colour, tooltip=tips)
    points = (
        alt.Chart(data)
        .mark_point(filled=True, size=130, opacity=1)
        .encode(y=y, x="difference:Q", color=colour, shape=shape, tooltip=tips)
    )
    chart = alt.layer(zero, bars, points).properties(width=width, height=alt.Step(38))
    return finished(chart, f"Difference to {comparison.baseline}, with {comparison.level:.0%} intervals")


def cost_quality(run: Run, comparison: Comparison, *, cost: str = "latency_s", width: int | str = 520) -> Any:
    """What a call takes (median of `cost`: `latency_s`, `tokens_in`, `cost_usd`) against the primary score and its interval.

    Returns: an Altair chart, or `Nothing`.
    """
    spent = dict(run.calls().group_by("variant").agg(pl.col(cost).median()).iter_rows())
    points: dict[str, dict[str, Any]] = {}
    for row in comparison.rows:
        if row.scorer != comparison.primary:
            continue
        sides = (
            (row.baseline, row.baseline_mean, row.baseline_interval),
            (row.variant, row.variant_mean, row.variant_interval),
        )
        for name, mean, interval in sides:
            if mean is not None and spent.get(name) is not None:
                low, high = interval or (mean, mean)
                points[name] = {"variant": name, "cost": spent[name], "mean": mean, "low": low, "high": high}
    if not points:
        return Nothing(f"There is no {comparison.primary} to set against {cost} yet.")
    alt = require("altair", extra="charts")
    titles = {
        "latency_s": "median seconds a call",
        "tokens_in": "median prompt tokens",
        "cost_usd": "median dollars a call",
    }
    base = alt.Chart(alt.Data(values=list(points.values())))
    # From zero on, or two that take the same look as far apart as two that do not.
    axis = alt.Axis(format="~g", tickCount=4)
    x = alt.X("cost:Q", title=titles.get(cost, cost), scale=alt.Scale(zero=True), axis=axis)
    legend = alt.Legend(title=None, orient="bottom", columns=3, symbolFillColor=INK)
    colour = alt.Color("variant:N", legend=legend, scale=alt.Scale(range=list(VARIANT_COLOURS)), sort=list(points))
    shape = alt.Shape("variant:N", legend=legend, sort=list(points))
    tips = ["variant:N", alt.Tooltip("cost:Q", format=".3~f"), alt.Tooltip("mean:Q", format=".1%")]
    y_title = f"{comparison.primary}, mean"
    bars = base.mark_rule(strokeWidth=3).encode(
        x=x, y=alt.Y("low:Q", title=y_title, axis=alt.Axis(format=".0%")), y2="high:Q", color=colour, tooltip=tips
    )
    dots = base.mark_point(filled=True, size=130, opacity=1).encode(
        x=x, y="mean:Q", color=colour, shape=shape, tooltip=tips
    )
    chart = alt.layer(bars, dots).properties(width=width, height=220)
    return finished(chart, f"What a call takes, and how good it is ({comparison.primary})")


def accuracy_by_target(run: Run, scorer: str, *, width: int | str = 520) -> Any:
    """Mean of `scorer` for each value of the target that it judges, by variant.

    Returns: an Altair chart, or `Nothing` where the target has no values to group by.
    """
    calls = run.calls().select("variant", "row_id", "repeat", "target")
    joined = run.scores().filter(pl.col("scorer") == scorer).join(calls, on=["variant", "row_id", "repeat"])
    rows: dict[tuple[str, str], list[float]] = {}
    for row in joined.iter_rows(named=True):
        target = json.loads(row["target"]) if row["target"] else None
        value = target.get(scorer) if isinstance(target, dict) else target
        if isinstance(value, (str, int)) and row["value"] is not None:
            rows.setdefault((str(value), row["variant"]), []).append(row["value"])
    values = sorted({value for value, _ in rows})
    if not 2 <= len(values) <= MOST_VALUES:
        return Nothing(f"{scorer} has no small set of target values to break it down by.")
    alt = require("altair", extra="charts")
    data = [
        {"value": value, "variant": variant, "mean": sum(found) / len(found), "rows": len(found)}
        for (value, variant), found in rows.items()
    ]
    order = list(run.manifest.variants)
    chart = (
        alt.Chart(alt.Data(values=data))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            y=alt.Y("value:N", title=None, sort=values, axis=alt.Axis(labelLimit=200)),
            yOffset=alt.YOffset("variant:N", sort=order),
            x=alt.X("mean:Q", title="share right", axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1])),
            color=alt.Color(
                "variant:N",
                sort=order,
                scale=alt.Scale(range=list(VARIANT_COLOURS)),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            tooltip=["value:N", "variant:N", alt.Tooltip("mean:Q", format=".1%"), "rows:Q"],
        )
        .properties(width=width, height=alt.Step(13))
    )
    return finished(chart, f"Right answers by true {scorer}")


def finished(chart: Any, title: str, *, said: str = "") -> Any:
    """With a title, and in the colours of the text around it, on whatever background.

    Args:
        said: what the chart is for who cannot see it; the title by default.
    """
    chart = chart.properties(background="transparent", padding={"left": 8, "right": 8, "top": 6, "bottom": 6})
    # As SVG, text takes its colour from the page. The menu has no name for a screen reader; tables can be downloaded.
    chart = chart.properties(
        usermeta={"embedOptions": {"renderer": "svg", "actions": False}}, description=said or title or "chart"
    )
    if title:
        chart = chart.properties(title=title)
    return (
        chart.configure_view(stroke=None)
        .configure_axis(
            labelColor=INK,
            titleColor=INK,
            gridColor=INK,
            gridOpacity=0.15,
            domainColor=INK,
            domainOpacity=0.5,
            tickColor=INK,
            tickOpacity=0.5,
            labelFontSize=12,
            titleFontWeight="normal",
        )
        .configure_header(labelColor=INK, titleColor=INK)
        .configure_text(color=INK)
        # These are one mark each, of which a screen reader has nothing to say.
        .configure_area(aria=False)
        .configure_line(aria=False)
        .configure_title(color=INK, anchor="start", fontSize=14, fontWeight=600, offset=10)
        .configure_legend(labelColor=INK, titleColor=INK, labelFontSize=12, symbolSize=120)
    )
