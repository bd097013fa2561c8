"""What the cost and quality app asks of the events: each question one query, kept for every session of the process.

Every question goes through `analytics.cached.cached_sql`, which asks for the rows that whoever acts may see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from workbench.analytics.cached import cached_sql
from workbench.analytics.whatif import Pairs, Sums
from workbench.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from workbench.workspace import Layout

LATEST_CALLS = 100
UNKNOWN = "unknown"
# Columns to filter and to group by, as the app calls them.
_COLUMNS = {
    "model": f"coalesce(model, '{UNKNOWN}')",
    "prompt": f"coalesce(case when source = 'run' then experiment || ' · ' || variant else variant end, "
    f"artifact, prompt_digest[8:19], '{UNKNOWN}')",
    "tenant": "coalesce(tenant, 'none')",
    "environment": f"coalesce(case when source = 'run' then experiment end, alias, notebook, '{UNKNOWN}')",
    "source": "source",
}
DIMENSIONS = tuple(_COLUMNS)
# What judges a call's cost and not its answer.
_NO_QUALITY = ("latency", "tokens", "cost")
_CALLS = (
    "select trace_id, day, started_at, input, output, error_kind, error, cached, tokens_in, tokens_out, latency_s, cost_usd, "
    # A call whose input was not kept is an input of its own.
    "coalesce(hash(input), hash(trace_id)) as unit, "
    + ", ".join(f"{text} as {name}" for name, text in _COLUMNS.items())
    + " from calls"
)
_SUMS = (
    "count(*) filter (n > 0) as units, sum(n)::double as size, sum(v) as total, sum(v * v) as squares, sum(v * n) as crossed, "
    "sum(n * n)::double as sizes"
)


@dataclass(frozen=True)
class Filters:
    """Which calls: of the days from `since` to `until`, and of the named models and so on; of all where none is named."""

    since: date
    until: date
    chosen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scorer: str = ""

    @property
    def days(self) -> int:
        return (self.until - self.since).days + 1

    @property
    def before(self) -> date:
        """The first day of the period before, which is as long."""
        return self.since - timedelta(days=self.days)

    def where(self) -> tuple[str, dict[str, Any]]:
        """A condition without the days, and its parameters."""
        chosen = {name: list(values) for name, values in sorted(self.chosen.items()) if values}
        for name in chosen:
            _check(name)
        return " and ".join(["true", *(f"list_contains(${name}, {name})" for name in chosen)]), dict(chosen)


def _check(name: str) -> None:
    if name not in _COLUMNS:
        raise UsageError(f"calls are not divided by {name!r}", hint=f"By: {', '.join(_COLUMNS)}.")


def facets(layout: Layout) -> pl.DataFrame:
    """Every combination of model, prompt, tenant, environment and source, with its calls and its first and last day."""
    names = ", ".join(DIMENSIONS)
    return cached_sql(
        layout,
        f"select {names}, count(*) as n, count(cost_usd) as priced, min(day) as first, max(day) as last from ({_CALLS})"
        f" group by {names} order by n desc",
    )


def quality_scorers(layout: Layout) -> list[str]:
    """Scorers of quality whose values lie from 0 to 1; the one with most scores first."""
    found = cached_sql(
        layout,
        "select scorer from scores where value is not null and not list_contains($no, scorer) group by scorer"
        " having min(value) >= 0 and max(value) <= 1 order by count(*) desc, scorer",
        no=list(_NO_QUALITY),
    )
    return list(found["scorer"])


@dataclass(frozen=True)
class Questions:
    """What is asked of the calls that the filters leave."""

    layout: Layout
    filters: Filters

    def _ask(self, query: str, since: date, **more: Any) -> pl.DataFrame:
        """A query over `chosen`, the calls from `since` on that the filters leave."""
        where, parameters = self.filters.where()
        base = f"with chosen as (select * from ({_CALLS}) where day between $since and $until and {where})"
        given = parameters | {"since": since, "until": self.filters.until} | more
        return cached_sql(self.layout, f"{base} {query}", **given)

    def by_day(self) -> pl.DataFrame:
        """Calls, errors, priced and made-up calls, and cost by day, model and prompt, of this period and the one before."""
        return self._ask(
            "select day, model, prompt, count(*) as n, count(cost_usd) as priced, coalesce(sum(cost_usd), 0) as cost,"
            " count(error_kind) as errors, sum(cached::int) as cached, sum(tokens_in + tokens_out) as tokens,"
            " count(*) filter (source = 'synthetic') as made_up"
            " from chosen group by day, model, prompt order by day, model, prompt",
            self.filters.before,
        )

    def latency(self) -> pl.DataFrame:
        """p50 and p95 of the seconds of calls that were answered: by `day`, and (without a day) of each period."""
        return self._ask(
            "select day, day >= $from as now, quantile_cont(latency_s, 0.5) as p50, quantile_cont(latency_s, 0.95) as p95,"
            " count(*) as n from chosen where error_kind is null group by grouping sets ((day, now), (now))"
            " order by day nulls first, now",
            self.filters.before,
            **{"from": self.filters.since},
        )

    def quality(self) -> pl.DataFrame:
        """Sums of the scores by model, prompt and period (`now` or before)."""
        return self._ask(
            "select model, prompt, now, " + _SUMS + " from (select model, prompt, chosen.day >= $from as now, unit,"
            f" sum(value) as v, count(*) as n from {self._scored()} group by all) group by all order by all",
            self.filters.before,
            scorer=self.filters.scorer,
            **{"from": self.filters.since},
        )

    def costs(self) -> pl.DataFrame:
        """Sums of the cost by model and prompt, of calls that have one, with the median seconds."""
        return self._ask(
            "select model, prompt, " + _SUMS + ", sum(calls)::bigint as calls, median(p50) as p50 from"
            " (select model, prompt, unit, coalesce(sum(cost_usd), 0) as v, count(cost_usd) as n, count(*) as calls,"
            " median(latency_s) as p50 from chosen where error_kind is null group by all)"
            " group by all order by all",
            self.filters.since,
        )

    def by(self, name: str) -> pl.DataFrame:
        """Calls, cost, latency, errors and quality by `model`, `prompt`, `tenant`, `environment`, `source` or `day`."""
        if name != "day":
            _check(name)
        scored = (
            f"select key, {_SUMS} from (select chosen.{name} as key, unit, sum(value) as v, count(*) as n"
            f" from {self._scored()} group by all) group by key"
        )
        return self._ask(
            f"select a.*, q.* exclude (key) from (select {name} as key, count(*) as n, count(cost_usd) as priced,"
            " sum(cost_usd) as cost, quantile_cont(latency_s, 0.5) filter (error_kind is null) as p50,"
            " quantile_cont(latency_s, 0.95) filter (error_kind is null) as p95, count(error_kind) as errors"
            f" from chosen group by all) a left join ({scored}) q using (key)"
            f" order by {'key desc' if name == 'day' else 'n desc, key'} limit 500",
            self.filters.since,
            scorer=self.filters.scorer,
        )

    def pairs(self, first: str, second: str) -> tuple[Pairs, Pairs] | None:
        """Quality and cost of the inputs that both models answered and that were scored; None for fewer than two."""
        found = self._ask(
            f", answers as (select unit, model, avg(value) as q, avg(cost_usd) as c from {self._scored()}"
            " where cost_usd is not null and input is not null group by all)"
            " select count(*) as n, avg(a.q), avg(b.q), var_samp(a.q), var_samp(b.q), covar_samp(a.q, b.q),"
            " avg(a.c), avg(b.c), var_samp(a.c), var_samp(b.c), covar_samp(a.c, b.c)"
            " from answers a join answers b using (unit) where a.model = $one and b.model = $two",
            self.filters.since,
            scorer=self.filters.scorer,
            one=first,
            two=second,
        ).row(0)
        return None if found[0] < 2 else (Pairs(found[0], *found[1:6]), Pairs(found[0], *found[6:]))

    def calls(self, *, day: str = "", model: str = "", prompt: str = "", errors: bool = False) -> pl.DataFrame:
        """The latest calls of a day, model and prompt (of all where none is named), texts cut short."""
        picked = {"model": model, "prompt": prompt}
        narrowed = "".join(f" and {name} = $the_{name}" for name, value in picked.items() if value)
        given = {f"the_{name}": value for name, value in picked.items() if value}
        days = " and c.day = cast($the_day as date)" if day else ""
        return self._ask(
            "select strftime(started_at, '%Y-%m-%d %H:%M:%S') as time, model, prompt, tenant,"
            " environment, source, left(input, 200) as input,"
            " left(coalesce(output, error), 200) as answer, score, round(latency_s, 3) as seconds, cost_usd as dollars,"
            " tokens_in + tokens_out as tokens, error_kind as error, trace_id from (select * from chosen c where true"
            f"{days}{narrowed}{' and error_kind is not null' if errors else ''}"
            f" order by started_at desc, trace_id limit {LATEST_CALLS}) c"
            " left join (select trace_id, avg(value) as score from scores where scorer = $scorer"
            " and day between $since and $until group by all) s using (trace_id) order by started_at desc, trace_id",
            self.filters.since,
            scorer=self.filters.scorer,
            **given,
            **({"the_day": day} if day else {}),
        )

    def spending(self, since: date) -> pl.DataFrame:
        """Dollars and made-up calls by day from `since` on."""
        return self._ask(
            "select day, coalesce(sum(cost_usd), 0) as cost, count(*) filter (source = 'synthetic') as made_up"
            " from chosen group by day order by day",
            since,
        )

    def _scored(self) -> str:
        return (
            "(select trace_id, value from scores where scorer = $scorer and value is not null"
            " and day between $since and $until) s join chosen using (trace_id)"
        )


def sums(rows: pl.DataFrame) -> Sums:
    """Of rows with the columns of `Sums`, all together."""
    found = Sums(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for row in rows.select("units", "size", "total", "squares", "crossed", "sizes").iter_rows():
        if row[0] is not None:
            found += Sums(*row)
    return found
