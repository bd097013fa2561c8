"""The two looks ahead of the cost and quality app: the month's budget, and two models in another proportion."""

from __future__ import annotations

import calendar
from datetime import timedelta
from itertools import accumulate
from typing import Any

import polars as pl

from workbench.analytics.spending import project_spending
from workbench.analytics.whatif import Estimate, Mix, Side, mix
from workbench.html import callout
from workbench.ui.cost_quality import Board
from workbench.ui.cost_quality_money import burn_down, what_if_plot
from workbench.ui.lab import Html
from workbench.ui.queries import sums

_STEPS = 20
_LEVEL = 0.9


def budget(board: Board, dollars: float) -> tuple[Html, Any]:
    """A sentence and a chart of the month of the period's last day: spent, projected, and the budget.

    A month that is over is not projected. The filters hold, the period does not.
    """
    last = board.filters.until
    first = last.replace(day=1)
    end = last.replace(day=calendar.monthrange(last.year, last.month)[1])
    found = board.questions.spending(first - timedelta(days=40))
    spent = dict(zip(found["day"].to_list(), found["cost"].to_list(), strict=True))
    if not any(spent.values()):
        return Html(callout("No call cost money: there is no spending to project.", "info")), Html("")
    today, midnight = board.now.date(), board.now.replace(hour=0, minute=0, second=0, microsecond=0)
    # What was spent today is spent; what is left of the day is part of what comes.
    start, left = last + timedelta(days=1), 1.0
    if last == today:
        start, left = today, 1 - (board.now - midnight) / timedelta(days=1)
    over = today > end
    done = [first + timedelta(days=n) for n in range(((end if over else last) - first).days + 1)]
    total = list(accumulate(spent.get(day, 0.0) for day in done))
    so_far = total[-1]
    ahead = [] if over or start > end else project_spending(spent, start, end, left=left, level=_LEVEL)
    series = [(day, Estimate(so_far + one.value, so_far + one.low, so_far + one.high)) for day, one in (ahead or [])]
    said = _budget_sentence(f"{first:%B}", so_far, series[-1][1] if series else None, ahead is None, dollars)
    made_up = bool(found.filter(pl.col("day") >= first)["made_up"].sum())
    return Html(said), burn_down(list(zip(done, total, strict=True)), series, dollars, made_up=made_up)


def _budget_sentence(month: str, so_far: float, end: Estimate | None, unknown: bool, dollars: float) -> str:
    said = f"${so_far:,.2f} spent in {month} so far."
    exceeded = 0 < dollars < so_far
    told = f" The budget of ${dollars:,.2f} is exceeded already." if exceeded else ""
    if unknown:
        return callout(f"{said}{told} Three whole days are needed to project the rest.", "bad" if exceeded else "info")
    if end is None:
        within = "" if not dollars else " That is over the budget." if exceeded else " That is within the budget."
        return callout(f"${so_far:,.2f} spent in {month}, which is over.{within}", "bad" if exceeded else "info")
    said += (
        f" By its end ${end.value:,.2f} is likely, and nine times in ten ${end.low:,.2f} to ${end.high:,.2f}, "
        "if days go on as in the last four weeks."
    )
    if not dollars:
        return callout(said, "info")
    if exceeded:
        return callout(said + told, "bad")
    if end.low > dollars:
        return callout(f"{said} The budget of ${dollars:,.2f} will be exceeded.", "bad")
    if end.high > dollars:
        return callout(f"{said} The budget of ${dollars:,.2f} may be exceeded.", "warn")
    return callout(f"{said} The budget of ${dollars:,.2f} will do.", "ok")


def models_to_mix(board: Board) -> list[str]:
    """Models with scores and prices in the period, the cheapest a call first."""
    costs = board.questions.costs()
    mine = {model: sums(found) for (model,), found in board.scored.group_by("model")}
    scored = {model for model, found in mine.items() if found.units > 1}
    found = {model: sums(costs.filter(model=model)) for model in costs["model"].unique() if model in scored}
    return sorted(
        (model for model, cost in found.items() if cost.units > 1), key=lambda model: (found[model].mean, model)
    )


def what_if(board: Board, first: str | None, second: str | None, share: float) -> tuple[Html, Any]:
    """A sentence and a chart: quality and cost if `first` took `share` of the calls of the two.

    Where there is no second model, a sentence that says so.
    """
    if not first or not second or first == second:
        said = "It takes two models with prices and with scores of this scorer in this period."
        return Html(callout(said, "info")), Html("")
    costs, scored = board.questions.costs(), board.scored
    sides = [
        Side(
            name,
            int(costs.filter(model=name)["calls"].sum()),
            sums(scored.filter(model=name)),
            sums(costs.filter(model=name)),
        )
        for name in (first, second)
    ]
    pairs = board.questions.pairs(first, second)
    found = mix(share, sides[0], sides[1], pairs)
    line = [mix(step / _STEPS, sides[0], sides[1], pairs) for step in range(_STEPS + 1)]
    return Html(_mix_sentence(found, first, second, sides)), what_if_plot(line, found, made_up=board.made_up)


def _mix_sentence(found: Mix, first: str, second: str, sides: list[Side]) -> str:
    change, cost, calls = found.quality_change, found.cost_change, sides[0].calls + sides[1].calls
    said = (
        f"If {first} took {found.share:.0%} of the {calls:,} calls of these two (today {found.now:.0%}), quality would be "
        f"{found.quality.value:.1%} ({change.low * 100:+.1f} to {change.high * 100:+.1f} points), and 1,000 calls would cost "
        f"${found.cost.value * 1000:,.2f} instead of ${(found.cost.value - cost.value) * 1000:,.2f}: "
        f"{_money(cost.value * calls)} in this period ({_money(cost.low * calls)} to {_money(cost.high * calls)})."
    )
    rests = (
        f"It rests on the {found.pairs:,} scored inputs that both answered, and takes them to stand for all the others."
        if found.pairs
        else f"It rests on {sides[0].quality.units:,} and {sides[1].quality.units:,} scored inputs of their own, "
        "and takes calls to be exchangeable: each model as good, and as dear, on the other's calls as on its own. "
        "Filter by prompt and tenant to compare like with like."
    )
    return callout(said, "info") + f"<p style='margin:.3em 0;font-size:.9em'>{rests} Intervals hold 19 times in 20.</p>"


def _money(value: float) -> str:
    return f"{'−' if value < 0 else '+'}${abs(value):,.2f}"
