"""Charts of the cost and quality app. A click on a bar, a line's day or a point picks the calls behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.errors import require
from workbench.ui.charts import INK, VARIANT_COLOURS, Nothing, finished
from workbench.ui.shared import shared

# What is picked in each chart: the fields of its selection.
PICK = "pick"
MOST_MODELS = len(VARIANT_COLOURS) - 1
OTHERS = "others"
_PICKED = "#e0762f"
_PARETO_HEIGHT = 260


def model_colours(models: Sequence[str]) -> dict[str, str]:
    """A colour a model; those after the first few share the last."""
    return {
        name: VARIANT_COLOURS[place] if place < MOST_MODELS else VARIANT_COLOURS[-1]
        for place, name in enumerate(models)
    }


@shared
def by_day(
    rows: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
    *,
    priced: bool,
    made_up: bool = False,
    width: int = 400,
) -> Any:
    """Dollars of a day, stacked by model; calls where none cost money.

    Args:
        rows: with `date` and `day` (its text), `model`, `cost`, `n`.
        made_up: some of the calls are, as of each of these charts.
    """
    if not rows:
        return Nothing("There are no calls in these days.")
    alt = require("altair", extra="charts")
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar(cursor="pointer")
        .encode(
            x=day_axis(alt),
            y=alt.Y(
                "cost:Q" if priced else "n:Q", title="dollars" if priced else "calls", axis=_axis(alt, "$,.2~f", priced)
            ),
            color=_colour(alt, colours),
            order=alt.Order("model:N"),
            tooltip=["day:N", "model:N", alt.Tooltip("cost:Q", title="dollars", format=",.4f"), "n:Q"],
        )
    )
    title = "Cost by day and model" if priced else "Calls by day and model (none cost money)"
    return _picking(alt, chart, ["day", "model"], width, marked(title, made_up))


@shared
def pareto_plot(
    rows: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
    *,
    x: str,
    made_up: bool = False,
    width: int = 400,
) -> Any:
    """Quality against cost of each model with each prompt, with intervals; the front joined and named.

    Args:
        rows: with `model`, `prompt`, `x`, `quality`, `low`, `high`, `front`, `n`.
        x: what the horizontal axis is.
    """
    if not rows:
        return Nothing(
            "No call of these days has a score of this scorer and a cost: choose another scorer or more days."
        )
    alt = require("altair", extra="charts")
    data = alt.Data(values=list(rows))
    lowest, highest = min(row["x"] for row in rows), max(row["x"] for row in rows)
    log = lowest > 0 and highest / lowest > 8
    # Names stand to the right of their points, and need room there.
    room = [lowest / 1.3, highest * (highest / lowest) ** 0.42] if log else [min(0, lowest), (highest or 1) * 1.45]
    scale = alt.Scale(type="log" if log else "linear", domain=room, nice=False)
    across = alt.X(
        "x:Q",
        title=x + (", logarithmic" if log else ""),
        scale=scale,
        axis=alt.Axis(tickCount=4, format="~g", grid=False),
    )
    up = alt.Y("quality:Q", title="quality", scale=alt.Scale(zero=False, padding=12), axis=alt.Axis(format=".0%"))
    tips = [
        "model:N",
        "prompt:N",
        alt.Tooltip("quality:Q", format=".1%"),
        alt.Tooltip("low:Q", format=".1%"),
        alt.Tooltip("high:Q", format=".1%"),
        alt.Tooltip("x:Q", title=x, format=".4~g"),
        alt.Tooltip("n:Q", title="scored inputs", format=","),
        alt.Tooltip("front:N", title="on the front"),
    ]
    named = _apart(rows, room, log, width)
    base = alt.Chart(data)
    line = (
        alt.Chart(alt.Data(values=sorted((row for row in rows if row["front"]), key=lambda row: float(row["x"]))))
        .mark_line(interpolate="step-after", color=INK, strokeDash=[4, 3])
        .encode(x=across, y=up)
    )
    bars = base.mark_rule(strokeWidth=2, opacity=0.5).encode(
        x=across, y=alt.Y("low:Q", title="quality"), y2="high:Q", color=_colour(alt, colours, columns=2)
    )
    dots = base.mark_point(filled=True, cursor="pointer", opacity=1).encode(
        x=across,
        y=up,
        color=_colour(alt, colours, columns=2),
        shape=alt.Shape("prompt:N", legend=alt.Legend(title=None, orient="bottom", columns=2, symbolFillColor=INK)),
        size=alt.condition("datum.front", alt.value(150), alt.value(70)),
        tooltip=tips,
    )
    names = (
        alt.Chart(alt.Data(values=named))
        .mark_text(align="left", dx=11, dy=8, fontSize=11, color=INK, fontWeight=600)
        .encode(x=across, y=up, text="name:N")
    )
    picked = alt.selection_point(name=PICK, fields=["model", "prompt"], toggle=False)
    dots = dots.add_params(picked)
    return finished(
        alt.layer(line, bars, dots, names).properties(width=width, height=_PARETO_HEIGHT),
        marked("Cost and quality: the front is joined", made_up),
    )


def _apart(rows: Sequence[Mapping[str, Any]], room: Sequence[float], log: bool, width: int) -> list[Mapping[str, Any]]:
    """The points of the front whose names cover no other point, interval or name; the others have the legends."""

    def across(x: float) -> float:
        low, high, x = (math.log(value) if log else value for value in (room[0], room[1], x))
        return (x - low) / (high - low) * width

    lowest, highest = min(row["low"] for row in rows), max(row["high"] for row in rows)

    def down(quality: float) -> float:
        return float((highest - quality) / ((highest - lowest) or 1) * _PARETO_HEIGHT)

    shown: list[Mapping[str, Any]] = []
    boxes: list[tuple[float, float, float, float]] = []
    for row in sorted((row for row in rows if row["front"]), key=lambda row: -float(row["quality"])):
        # A letter takes so many pixels, and a line so many; the name begins a little right of the point and below it.
        left, top = across(row["x"]) + 11, down(row["quality"]) + 1
        right, bottom = left + 6.6 * len(row["name"]), top + 14
        marks = ((across(other["x"]), down(other["high"]), down(other["low"])) for other in rows if other is not row)
        free = all(not left - 8 < x < right + 4 or low < top - 4 or high > bottom + 4 for x, high, low in marks)
        if free and all(left > r or right < x or top > y or bottom < t for x, t, r, y in boxes):
            shown.append(row)
            boxes.append((left, top, right, bottom))
    return shown


@shared
def latency(rows: Sequence[Mapping[str, Any]], *, made_up: bool = False, width: int = 400) -> Any:
    """p50 and p95 of the seconds of a call, by day.

    Args:
        rows: with `date` and `day` (its text), `seconds`, `measure`.
    """
    if not rows:
        return Nothing("No call of these days was answered.")
    alt = require("altair", extra="charts")
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=day_axis(alt),
        y=alt.Y("seconds:Q", title="seconds", scale=alt.Scale(zero=True)),
        color=alt.Color(
            "measure:N",
            scale=alt.Scale(domain=["p50", "p95"], range=[VARIANT_COLOURS[0], VARIANT_COLOURS[1]]),
            legend=alt.Legend(title=None, orient="bottom"),
        ),
        tooltip=[
            "day:N",
            "measure:N",
            alt.Tooltip("seconds:Q", format=".3f"),
            alt.Tooltip("n:Q", title="calls", format=","),
        ],
    )
    picked = alt.selection_point(name=PICK, fields=["day"], nearest=True, toggle=False)
    chart = alt.layer(
        base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=36, cursor="pointer").add_params(picked)
    )
    title = marked("Latency by day: p50 and p95", made_up)
    return finished(chart.properties(width=width, height=220), title)


@shared
def quality(
    rows: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
    scorer: str,
    *,
    made_up: bool = False,
    width: int = 400,
) -> Any:
    """Mean score by model with 95% intervals, the best first.

    Args:
        rows: with `model`, `value`, `low`, `high`, `n`.
    """
    if not rows:
        return Nothing("No call of these days has a score: run an experiment, or record scores with the calls.")
    alt = require("altair", extra="charts")
    base = alt.Chart(alt.Data(values=list(rows)))
    up = alt.Y("model:N", sort=[row["model"] for row in rows], title=None, axis=alt.Axis(labelLimit=200))
    tips = [
        "model:N",
        *(alt.Tooltip(f"{name}:Q", format=".1%") for name in ("value", "low", "high")),
        alt.Tooltip("n:Q", title="scored inputs", format=","),
    ]
    axis = alt.Axis(format=".0%", tickCount=5)
    rules = base.mark_rule(strokeWidth=4).encode(
        y=up,
        x=alt.X("low:Q", title=f"{scorer}, mean with 95% interval", scale=alt.Scale(zero=False, padding=14), axis=axis),
        x2="high:Q",
        color=_colour(alt, colours, legend=False),
        tooltip=tips,
    )
    picked = alt.selection_point(name=PICK, fields=["model"], toggle=False)
    dots = (
        base.mark_point(filled=True, size=150, opacity=1, cursor="pointer")
        .encode(y=up, x="value:Q", color=_colour(alt, colours, legend=False), tooltip=tips)
        .add_params(picked)
    )
    chart = alt.layer(rules, dots).properties(width=width, height=alt.Step(44))
    return finished(chart, marked("Quality by model", made_up))


def marked(title: str, made_up: bool) -> str:
    """The title of a picture, which says so where made-up calls are in it."""
    return f"{title}, with made-up calls" if made_up else title


def day_axis(alt: Any) -> Any:
    """The days of a chart, from left to right."""
    # As UTC, or a day begins in the evening before for whoever lives west of it.
    return alt.X(
        "date:T", timeUnit="utcyearmonthdate", title=None, axis=alt.Axis(format="%b %-d", tickCount=8, grid=False)
    )


def _axis(alt: Any, form: str, used: bool) -> Any:
    return alt.Axis(format=form, tickCount=5) if used else alt.Axis(tickCount=5)


def _colour(alt: Any, colours: Mapping[str, str], *, legend: bool = True, columns: int = 4) -> Any:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(
        "model:N",
        scale=scale,
        legend=alt.Legend(title=None, orient="bottom", columns=columns, symbolOpacity=1) if legend else None,
    )


def _picking(alt: Any, chart: Any, fields: list[str], width: int, title: str) -> Any:
    picked = alt.selection_point(name=PICK, fields=fields, toggle=False)
    chart = chart.encode(
        opacity=alt.condition(picked, alt.value(1), alt.value(0.35)),
        stroke=alt.condition({"param": PICK, "empty": False}, alt.value(_PICKED), alt.value(None)),
    )
    return finished(chart.add_params(picked).properties(width=width, height=240), title)
