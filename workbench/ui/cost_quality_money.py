"""Charts of what would be: a month's spending to its end, and two models in another proportion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from workbench.errors import require
from workbench.ui.charts import INK, VARIANT_COLOURS, finished
from workbench.ui.cost_quality_charts import day_axis, marked
from workbench.ui.shared import shared

if TYPE_CHECKING:
    from workbench.analytics.whatif import Estimate, Mix


@shared
def burn_down(
    spent: Sequence[tuple[date, float]],
    ahead: Sequence[tuple[date, Estimate]],
    budget: float,
    *,
    made_up: bool = False,
    width: int = 480,
) -> Any:
    """What was spent of a month so far, where it goes, and the budget.

    Args:
        spent, ahead: dollars at the end of each day, from the first of the month; today may be in both.
    """
    alt = require("altair", extra="charts")
    so_far = [{"date": str(day), "day": str(day), "value": value, "kind": "spent"} for day, value in spent]
    coming = [
        {"date": str(day), "day": str(day), "value": one.value, "low": one.low, "high": one.high, "kind": "projected"}
        for day, one in ahead
    ]
    if ahead and spent:
        day, value = spent[-1]
        coming.insert(
            0, {"date": str(day), "day": str(day), "value": value, "low": value, "high": value, "kind": "projected"}
        )
    tip = ["day:N", "kind:N", alt.Tooltip("value:Q", title="dollars", format=",.2f")]
    up = alt.Y("value:Q", title="dollars, since the 1st", axis=alt.Axis(format="$,~f", tickCount=5))
    tips = [*tip, *(alt.Tooltip(f"{name}:Q", format=",.2f") for name in ("low", "high"))]
    line = alt.Chart(alt.Data(values=so_far)).mark_line(strokeWidth=3, color=VARIANT_COLOURS[0])
    layers = [line.encode(x=day_axis(alt), y=up, tooltip=tip)]
    if coming:
        later = alt.Chart(alt.Data(values=coming)).encode(x=day_axis(alt))
        band = later.mark_area(opacity=0.22, color=VARIANT_COLOURS[0]).encode(y=alt.Y("low:Q"), y2="high:Q")
        likely = later.mark_line(strokeDash=[5, 4], color=VARIANT_COLOURS[0], point=True).encode(y=up, tooltip=tips)
        layers = [band, likely, *layers]
    if budget > 0:
        line = alt.Chart(alt.Data(values=[{"value": budget, "said": f"budget ${budget:,.2f}"}]))
        layers.append(line.mark_rule(color="#da3633", strokeWidth=2).encode(y="value:Q"))
        layers.append(
            line.mark_text(align="left", dy=-7, color=INK, fontWeight=600, fontSize=12).encode(
                x=alt.value(4), y="value:Q", text="said:N"
            )
        )
    return finished(alt.layer(*layers).properties(width=width, height=240), marked("The month's spending", made_up))


@shared
def what_if_plot(mixes: Sequence[Mix], chosen: Mix, *, made_up: bool = False, width: int = 320) -> Any:
    """Quality, and dollars for a thousand calls, by the first model's share, with intervals; today and the choice marked."""
    alt = require("altair", extra="charts")
    parts = []
    measures = (("quality", 1.0, ".0%", "quality"), ("cost", 1000.0, "$,.2~f", "dollars for 1,000 calls"))
    for name, times, form, title in measures:
        rows = []
        for one in mixes:
            found: Estimate = getattr(one, name)
            rows.append(
                {"share": one.share, "value": found.value * times, "low": found.low * times, "high": found.high * times}
            )
        if any(not math.isfinite(row["low"]) for row in rows):
            continue
        base = alt.Chart(alt.Data(values=rows))
        x = alt.X(
            "share:Q", title=None, axis=alt.Axis(format=".0%", tickCount=5), scale=alt.Scale(domain=[0, 1], nice=False)
        )
        y = alt.Y("value:Q", title=title, axis=alt.Axis(format=form, tickCount=5), scale=alt.Scale(zero=False))
        tips = [
            alt.Tooltip("share:Q", format=".0%"),
            *(alt.Tooltip(f"{key}:Q", format=".4~g") for key in ("value", "low", "high")),
        ]
        marks = [
            {"share": chosen.now, "value": _at(mixes, name, chosen.now) * times, "what": "today"},
            {"share": chosen.share, "value": getattr(chosen, name).value * times, "what": "what if"},
        ]
        dots = (
            alt.Chart(alt.Data(values=marks))
            .mark_point(filled=True, size=130, opacity=1)
            .encode(
                x=x,
                y=y,
                shape=alt.Shape("what:N", sort=["today", "what if"], legend=alt.Legend(title=None, orient="bottom")),
                color=alt.Color(
                    "what:N",
                    sort=["today", "what if"],
                    scale=alt.Scale(range=[VARIANT_COLOURS[-1], VARIANT_COLOURS[1]]),
                ),
                tooltip=["what:N", alt.Tooltip("share:Q", format=".0%"), alt.Tooltip("value:Q", format=".4~g")],
            )
        )
        band = base.mark_area(opacity=0.22, color=VARIANT_COLOURS[0]).encode(
            x=x, y=alt.Y("low:Q", title=title), y2="high:Q"
        )
        line = base.mark_line(color=VARIANT_COLOURS[0]).encode(x=x, y=y, tooltip=tips)
        parts.append(alt.layer(band, line, dots).properties(width=width, height=200))
    return finished(alt.hconcat(*parts, spacing=30), marked("Quality and cost by share", made_up))


def _at(mixes: Sequence[Mix], name: str, share: float) -> float:
    """A mean is a straight line in the share."""
    first, last = getattr(mixes[0], name).value, getattr(mixes[-1], name).value
    return float(first + (last - first) * (share - mixes[0].share) / (mixes[-1].share - mixes[0].share))
