"""What the cost and quality app shows: from the values of its controls to headline numbers, charts and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.analytics.whatif import pareto
from workbench.errors import UsageError
from workbench.html import callout
from workbench.ui import cost_quality_charts as charts
from workbench.ui.cost_quality_clicks import Picked
from workbench.ui.lab import Html
from workbench.ui.queries import DIMENSIONS, Filters, Questions, facets, quality_scorers, sums

if TYPE_CHECKING:
    from workbench.workspace import Layout

# Days of a period; 0 is all of them.
PERIODS = {"7 days": 7, "14 days": 14, "30 days": 30, "90 days": 90, "everything": 0}
FEW_CALLS, FEW_DAYS = 50, 3
_FILTERS = {
    "model": "Models",
    "prompt": "Prompts",
    "tenant": "Tenants",
    "environment": "Environments",
    "source": "Sources",
}


@dataclass(frozen=True)
class Choices:
    """The settings of the notebook, with the defaults it opens with.

    Attributes:
        days: of the period, up to the last day with calls; one of `PERIODS`.
        scorer: whose scores are the quality; empty takes the one with most.
        budget: dollars a month; 0 is none.
        synthetic: show made-up rows too.
    """

    days: int = 30
    scorer: str = ""
    budget: float = 0.0
    synthetic: bool = True

    @property
    def period(self) -> str:
        """The name of the period.

        Raises:
            UsageError: there is none of so many days.
        """
        named = {days: name for name, days in PERIODS.items()}
        if self.days not in named:
            raise UsageError(f"no period of {self.days} days", hint=f"Give one of {', '.join(map(str, named))} (all).")
        return named[self.days]


class Store:
    """What there is to choose from.

    Args:
        now: as of which a month goes on, in UTC.
    """

    def __init__(self, layout: Layout, *, now: datetime | None = None) -> None:
        self.layout = layout
        self.now = now or datetime.now(UTC)
        self.facets = facets(layout)
        self.scorers = quality_scorers(layout)
        self.calls = int(self.facets["n"].sum())
        self.made_up = int(self.facets.filter(source="synthetic")["n"].sum())

    def __bool__(self) -> bool:
        return self.calls > 0

    def options(self) -> dict[str, tuple[str, list[str]]]:
        """By column: what it is called, and its values, those with most calls first."""
        return {
            name: (
                _FILTERS[name],
                list(self.facets.group_by(name).agg(pl.col("n").sum()).sort("n", name, descending=[True, False])[name]),
            )
            for name in DIMENSIONS
        }

    def scorer(self, wanted: str) -> str | None:
        """The scorer to open with: the one that is wanted, else the one with most scores."""
        return wanted if wanted in self.scorers else self.scorers[0] if self.scorers else None

    def nothing_yet(self) -> Html:
        """What to do where there are no calls."""
        return Html(
            _friendly("There is nothing to show yet: no call is recorded in this workspace, or none that you may see.")
        )

    def notice(self, *, shown: bool) -> Html:
        """A banner while made-up rows are shown, and a word where there is little; empty otherwise."""
        said = ""
        if self.made_up and shown:
            mixed = "" if self.made_up == self.calls else f" {self.calls - self.made_up:,} others are real."
            said = callout(
                f"Made-up rows: {self.made_up:,} calls here are synthetic, recorded by workbench demo --history.{mixed} "
                "Leave them out with the switch, or take them out for good with workbench demo --remove-history.",
                "warn",
            )
        days = (_date(self.facets["last"].max()) - _date(self.facets["first"].min())).days + 1
        if self.calls < FEW_CALLS or days < FEW_DAYS:
            said += _friendly(f"There is little to show yet: {self.calls:,} calls of {days} day{'s' * (days > 1)}.")
        return Html(said)

    def board(
        self, period: str, chosen: Mapping[str, Sequence[str]], scorer: str | None = None, *, synthetic: bool = True
    ) -> Board:
        """The app's numbers and pictures of a period that ends with the last day with calls.

        Args:
            period: one of `PERIODS`.
            chosen: by column, the values to keep; all where none is named.

        Raises:
            UsageError: nothing is left of the calls.
        """
        rows = self.facets if synthetic else self.facets.filter(pl.col("source") != "synthetic")
        picked = {name: tuple(values) for name, values in chosen.items() if values}
        if not synthetic:
            kept = picked.get("source") or tuple(rows["source"].unique().sort())
            picked["source"] = tuple(name for name in kept if name != "synthetic")
        for name, values in picked.items():
            rows = rows.filter(pl.col(name).is_in(list(values)))
        if not len(rows):
            raise UsageError("no call is left", hint="Take back a filter.")
        days = PERIODS[period]
        first, last = _date(rows["first"].min()), _date(rows["last"].max())
        since = last - timedelta(days=days - 1) if days else first
        filters = Filters(since, last, picked, scorer or "")
        models = list(self.options()["model"][1])
        return Board(Questions(self.layout, filters), charts.model_colours(models), self.now)


class Board:
    """Numbers and pictures of the calls that the filters leave.

    Args:
        now: in UTC; its day is not over yet.
    """

    def __init__(self, questions: Questions, colours: Mapping[str, str], now: datetime) -> None:
        self.questions, self.filters, self.now = questions, questions.filters, now
        rows = self._days["model"].unique().to_list()
        self.colours = {name: colour for name, colour in colours.items() if name in rows}

    @cached_property
    def _days(self) -> pl.DataFrame:
        return self.questions.by_day()

    @cached_property
    def _in_period(self) -> pl.DataFrame:
        return self._days.filter(pl.col("day") >= self.filters.since)

    @cached_property
    def _quality(self) -> pl.DataFrame:
        return self.questions.quality()

    @property
    def scored(self) -> pl.DataFrame:
        """Sums of the period's scores, by model and prompt."""
        return self._quality.filter(pl.col("now"))

    @property
    def made_up(self) -> bool:
        """Whether any call of the period is synthetic, so that every picture of it says so."""
        return bool(self._in_period["made_up"].sum() > 0)

    @property
    def priced(self) -> bool:
        """Whether any call of the period cost money; those of local models do not."""
        return bool(self._in_period["cost"].sum() > 0)

    def headline(self) -> Html:
        """Spending, calls, quality, p95 and errors, each with its change against the period before."""
        from workbench.ui.cost_quality_cards import headline

        waits = {row["now"]: row["p95"] for row in self.questions.latency().filter(pl.col("day").is_null()).to_dicts()}
        return headline(self.filters, self._days, self._quality, waits, priced=self.priced)

    def pictures(self) -> list[Any]:
        """The four charts: cost by day, the Pareto front, latency, quality by model."""
        return [self.cost_by_day(), self.pareto(), self.latency(), self.quality()]

    def cost_by_day(self) -> Any:
        rows = self._in_period.group_by("day", "model").agg(pl.col("n", "cost").sum()).sort("day", "model")
        return charts.by_day(_dated(rows), self.colours, priced=self.priced, made_up=self.made_up)

    def pareto(self) -> Any:
        """Each model with each prompt. Where no call cost money, the median seconds stand in for the cost."""
        points = self.pareto_rows().to_dicts()
        what = "dollars for 1,000 answered calls" if self.priced else "median seconds a call (none cost money)"
        return charts.pareto_plot(points, self.colours, x=what, made_up=self.made_up)

    def pareto_rows(self) -> pl.DataFrame:
        """The points: `model`, `prompt`, `x`, `quality`, `low`, `high`, `n`, and whether they are on the `front`."""
        rows = []
        for row in self.questions.costs().to_dicts():
            mine = sums(self.scored.filter(model=row["model"], prompt=row["prompt"]))
            x = (row["total"] / row["size"] * 1000 if row["size"] else None) if self.priced else row["p50"]
            if mine.units and x is not None:
                found = mine.share()
                name = f"{row['model']} · {row['prompt']}"
                shown = {"quality": found.value, "low": found.low, "high": found.high, "n": mine.units}
                rows.append({"model": row["model"], "prompt": row["prompt"], "name": name, "x": float(x), **shown})
        front = pareto([(row["x"], row["quality"]) for row in rows])
        return pl.DataFrame(
            [row | {"front": on} for row, on in zip(rows, front, strict=True)], infer_schema_length=None
        )

    def latency(self) -> Any:
        rows = self.questions.latency().filter(pl.col("day").is_not_null() & pl.col("now"))
        long = rows.unpivot(["p50", "p95"], index=["day", "n"], variable_name="measure", value_name="seconds")
        return charts.latency(_dated(long), made_up=self.made_up)

    def quality(self) -> Any:
        rows = []
        for (model,), found in self.scored.group_by("model"):
            mine = sums(found)
            share = mine.share()
            rows.append({"model": model, "value": share.value, "low": share.low, "high": share.high, "n": mine.units})
        rows.sort(key=lambda row: (-float(str(row["value"])), str(row["model"])))
        return charts.quality(rows, self.colours, self.filters.scorer, made_up=self.made_up)

    def table(self, name: str) -> pl.DataFrame:
        """Cost, latency and quality by one of `divisions`."""
        if name == "model and prompt":
            return self.pareto_rows().drop("name", strict=False)
        rows = []
        for row in self.questions.by(name).to_dicts():
            mine = sums(pl.DataFrame([row])) if row["units"] else None
            share = mine.share() if mine else None
            rows.append(
                {
                    name: row["key"],
                    "calls": row["n"],
                    "dollars": round(row["cost"], 4) if row["cost"] is not None else None,
                    "dollars for 1,000": round(row["cost"] / row["priced"] * 1000, 4) if row["priced"] else None,
                    "p50 s": _rounded(row["p50"]),
                    "p95 s": _rounded(row["p95"]),
                    "errors": f"{row['errors'] / row['n']:.2%}",
                    "quality": _rounded(share.value) if share else None,
                    "from": _rounded(share.low) if share else None,
                    "to": _rounded(share.high) if share else None,
                    "scored inputs": mine.units if mine else 0,
                }
            )
        return pl.DataFrame(rows, infer_schema_length=None)

    def calls(self, picked: Picked, *, errors: bool = False) -> pl.DataFrame:
        """The latest calls behind what was clicked."""
        return self.questions.calls(**vars(picked), errors=errors)

    def count(self, picked: Picked, *, errors: bool = False) -> int:
        """How many calls are behind what was clicked."""
        rows = self._in_period
        for name, value in vars(picked).items():
            rows = rows.filter(pl.col(name).cast(pl.String) == value) if value else rows
        return int(rows["errors" if errors else "n"].sum())

    @property
    def divisions(self) -> tuple[str, ...]:
        """What the calls can be divided by."""
        return ("model", "model and prompt", "prompt", "tenant", "day", "environment", "source")

    def days_with_calls(self) -> list[str]:
        """The days of the period, the latest first."""
        return [str(day) for day in self._in_period["day"].unique().sort(descending=True)]


def _dated(rows: pl.DataFrame) -> list[dict[str, Any]]:
    # A chart makes a time of what it draws along its axis; what is picked stays a text.
    day = pl.col("day").cast(pl.String)
    return rows.with_columns(day, day.alias("date")).to_dicts()


def _date(value: Any) -> date:
    assert isinstance(value, date)
    return value


def _friendly(first: str) -> str:
    return callout(
        f"{first} Run an experiment (workbench demo, or notebooks/prompt_ab.py), or record 90 days of made-up calls to "
        "look around: workbench demo --history. They are marked as such, and workbench demo --remove-history takes them "
        "out again.",
        "info",
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
