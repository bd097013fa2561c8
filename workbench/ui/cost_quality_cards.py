"""The headline numbers of the cost and quality app, as cards with the change against the period before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import polars as pl

from workbench.analytics.whatif import Sums
from workbench.html import counted, escape
from workbench.ui.lab import Html
from workbench.ui.queries import Filters, sums


def headline(
    filters: Filters, days: pl.DataFrame, quality: pl.DataFrame, waits: Mapping[bool, float], *, priced: bool
) -> Html:
    """Spending, calls, quality, p95 and errors.

    Args:
        days, quality: of both periods, as of `Questions`. waits: p95 of this period and the one before.
    """
    before = days.filter(pl.col("day") < filters.since)
    first = before["day"].min()
    # Of a period that was half over when the calls began, every change would be a rise.
    if isinstance(first, date) and (first - filters.before).days * 10 > filters.days:
        before, quality, waits = (
            before.clear(),
            quality.filter(pl.col("now")),
            {True: waits[True]} if True in waits else {},
        )
    now = days.filter(pl.col("day") >= filters.since)
    good = {current: sums(quality.filter(pl.col("now") == current)) for current in (True, False)}
    calls, earlier = int(now["n"].sum()), int(before["n"].sum())
    cost, cost_before = float(now["cost"].sum()), float(before["cost"].sum())
    missing = calls - int(now["priced"].sum())
    each = f"{_dollars(cost / calls * 1000)} for 1,000 calls" if calls and priced else "no call cost money"
    cards = [
        ("Spent", _dollars(cost) if priced else "–", _relative(cost, cost_before, better=-1), each),
        (
            "Calls",
            f"{calls:,}",
            _relative(calls, earlier, better=0),
            f"{missing:,} without a price" if missing and priced else "",
        ),
        _quality_card(filters.scorer, good[True], good[False]),
        (
            "95% answered within",
            _seconds(waits.get(True)),
            _relative(waits.get(True), waits.get(False), better=-1),
            "",
        ),
        (
            "Errors",
            f"{_share(now)[0]:.2%}",
            _points(*_share(now), *_share(before), better=-1, digits=2),
            counted(int(now["errors"].sum()), "call"),
        ),
    ]
    dates = f"{filters.since:%d %b %Y} to {filters.until:%d %b %Y} (UTC)"
    against = f", against the {filters.days} days before" if earlier else ", with nothing before to compare with"
    return Html(f"<p style='margin:.2em 0 .5em'>{dates}{against}.</p>{_cards(cards)}")


def _quality_card(scorer: str, now: Sums, before: Sums) -> tuple[str, str, str, str]:
    name = f"Quality ({scorer})" if scorer else "Quality"
    if not now.units:
        return name, "–", "", "no scores"
    found = now.share()
    said = f"{found.low:.1%} to {found.high:.1%}, {now.units:,} scored"
    change = _points(found.value, now.rows, before.mean, before.rows, better=1) if before.units else ""
    return name, f"{found.value:.1%}", change, said


def _share(rows: pl.DataFrame) -> tuple[float, float]:
    count = float(rows["n"].sum())
    return (float(rows["errors"].sum()) / count if count else 0.0), count


def _dollars(value: float) -> str:
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.2g}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"


def _relative(now: float | None, before: float | None, *, better: int) -> str:
    if not now or not before:
        return ""
    return _change(now / before - 1, f"{abs(now / before - 1):.0%}", better)


def _points(now: float, count: float, before: float, earlier: float, *, better: int, digits: int = 1) -> str:
    if not count or not earlier:
        return ""
    return _change(now - before, f"{abs(now - before) * 100:.{digits}f} points", better)


def _change(change: float, said: str, better: int) -> str:
    """An arrow and a size; green and red say nothing that the words do not."""
    if float("".join(sign for sign in said if sign.isdigit() or sign == ".")) == 0:
        return "as before"
    mood = "" if not better else "better" if change * better > 0 else "worse"
    dot = {"better": "46,160,67", "worse": "218,54,51"}.get(mood, "128,128,128")
    round_ = f"display:inline-block;width:.6em;height:.6em;border-radius:50%;background:rgb({dot})"
    mark = f"<span aria-hidden='true' style='{round_}'></span>"
    return f"{mark} {'▲' if change > 0 else '▼'} {escape(said)}" + (f", {mood}" if mood else "")


def _cards(cards: Sequence[tuple[str, str, str, str]]) -> str:
    large = "font-size:1.65em;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.4"
    box = "flex:1 1 10.5em;min-width:0;padding:.7em .9em;border:1px solid rgba(128,128,128,.35);border-radius:8px"
    found = ""
    for name, value, change, note in cards:
        found += (
            f"<div role='listitem' style='{box}'><div style='font-size:.85em'>{escape(name)}</div>"
            f"<div style='{large}'>{escape(value)}</div>"
            f"<div style='font-size:.85em'>{change or '&nbsp;'}</div>"
            f"<div style='font-size:.8em'>{escape(note) or '&nbsp;'}</div></div>"
        )
    return f"<div role='list' style='display:flex;flex-wrap:wrap;gap:.7em'>{found}</div>"
