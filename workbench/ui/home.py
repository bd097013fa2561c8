"""The gallery of apps, who is signed in, and the state of the workspace in a few numbers, lists and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
from sqlalchemy import select

from workbench import access
from workbench.analytics.cached import cached_sql
from workbench.apps.listing import HOME, App, find_apps
from workbench.errors import require
from workbench.html import callout, counted, escape, table
from workbench.state.db import Audit, reading
from workbench.ui.charts import Nothing, finished
from workbench.ui.experiments_app import Runs, age, find_runs
from workbench.ui.lab import Html
from workbench.ui.registry_app import versions

if TYPE_CHECKING:
    from workbench.registry.names import NamedVersion
    from workbench.workspace import Layout

DAYS = 7
SHOWN = 5
_CALLS = """
select day, count(*) as calls, sum(cost_usd) as usd, count(*) filter (error_kind is not null) as failed,
count(*) filter (source = 'synthetic') as made_up
from calls where day >= $since group by day order by day
"""
_CARD = (
    "display:block;text-decoration:none;color:inherit;border:1px solid rgba(128,128,128,.45);border-radius:8px;"
    "padding:1em 1.1em;min-height:7em;box-sizing:border-box"
)
_GRID = "display:grid;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));gap:1em"


def apps_here(layout: Layout) -> list[App]:
    """The apps that whoever acts may open, but for this page.

    Raises:
        AccessDenied: this process serves apps to others, and nobody is known here.
        UsageError: the metadata of a notebook is malformed; names it.
    """
    viewer = access.current()
    return [app for app in find_apps(layout) if app.slug != HOME and viewer.has(app.role)]


def gallery(layout: Layout) -> Html:
    """A card an app: a link where apps are served, the command that opens the notebook elsewhere."""
    apps = apps_here(layout)
    if not apps:
        return Html(callout("There is no other app that you may open. Ask for a role, or add a notebook.", "info"))
    return Html(f"<div style='{_GRID}'>{''.join(map(_card, apps))}</div>")


def _card(app: App) -> str:
    title = f"<div style='font-weight:600;font-size:1.15em;margin-bottom:.3em'>{escape(app.title)}</div>"
    text = f"<div style='opacity:.85;font-size:.95em;line-height:1.4'>{escape(app.summary or app.path.name)}</div>"
    if access.served():
        return f"<a href='/{escape(app.slug)}/' style='{_CARD}'>{title}{text}</a>"
    command = f"<code style='font-size:.8em;display:block;margin-top:.6em'>marimo run notebooks/{escape(app.path.name)}</code>"
    return f"<div style='{_CARD}'>{title}{text}{command}</div>"


@dataclass(frozen=True)
class State:
    """What there is in a workspace.

    Attributes:
        calls: of the last days that whoever acts may see: day, calls, usd, failed, made_up; days without any are there with 0.
        refusals: the newest, as (when, who, what, reasons).
    """

    runs: Runs
    versions: tuple[NamedVersion, ...]
    calls: pl.DataFrame
    refusals: tuple[tuple[str, str, str, str], ...]

    @property
    def numbers(self) -> list[tuple[str, str, str]]:
        """Label, value and a word about each number at the top."""
        usd = self.calls["usd"].sum() or 0.0
        newest = age(self.runs.rows["started_at"][0]) if self.runs.ids else "none yet"
        aliases = sum(len(entry.aliases) for entry in self.versions)
        said = f"of which {self.calls['failed'].sum():,} failed · ${usd:,.2f}"
        if made_up := self.calls["made_up"].sum():
            said += f" · {made_up:,} made up"
        return [
            ("Runs", f"{len(self.runs.ids):,}", f"newest: {newest}" + (" ago" if newest[0].isdigit() else "")),
            ("Artifact versions", f"{len(self.versions):,}", counted(aliases, "alias", "aliases")),
            (
                f"Calls in {DAYS} days" + ("" if access.current().tenants is None else ", of your tenants"),
                f"{self.calls['calls'].sum():,}",
                said,
            ),
            ("Problems", f"{len(self.runs.problems):,}", f"{counted(len(self.refusals), 'refusal')} lately"),
        ]


def state_of(layout: Layout, now: datetime | None = None) -> State:
    """The state of a workspace: a handful of queries, kept for all sessions.

    Raises:
        AccessDenied: this process serves apps to others, and nobody is known here.
    """
    today = (now or datetime.now(UTC)).date()
    days = [today - timedelta(days=back) for back in reversed(range(DAYS))]
    calls = cached_sql(layout, _CALLS, since=days[0].isoformat())
    every = pl.DataFrame({"day": days}).join(calls.with_columns(pl.col("day").cast(pl.Date)), on="day", how="left")
    filled = every.with_columns(pl.col("calls", "failed", "made_up").fill_null(0)).sort("day")
    return State(find_runs(layout), versions(layout), filled, refusals(layout))


def refusals(layout: Layout, most: int = SHOWN) -> tuple[tuple[str, str, str, str], ...]:
    """The newest refusals of gates: when, who, what was tried, and the reasons."""
    newest = select(Audit).filter_by(kind="refuse").order_by(Audit.seq.desc()).limit(most)
    with reading(layout.state_url) as session:
        return tuple(
            (
                row.at,
                row.actor,
                f"{row.name}@{row.alias}" if row.alias else row.name,
                "; ".join(map(str, row.detail.get("reasons", ()))),
            )
            for row in session.scalars(newest)
        )


def numbers(state: State) -> Html:
    cells = "".join(
        f"<div style='border-left:3px solid rgba(128,128,128,.5);padding:.1em .9em'>"
        f"<div style='opacity:.8;font-size:.9em'>{escape(label)}</div>"
        f"<div style='font-size:1.7em;font-weight:600'>{escape(value)}</div>"
        f"<div style='opacity:.8;font-size:.85em'>{escape(note)}</div></div>"
        for label, value, note in state.numbers
    )
    return Html(f"<div style='{_GRID.replace('240px', '200px')}'>{cells}</div>")


def calls_chart(state: State, *, width: int = 400) -> Any:
    """Calls a day of the last days, those that failed apart.

    Returns: an Altair chart, or `Nothing`.
    """
    if not state.calls["calls"].sum():
        return Nothing(f"No call in the last {DAYS} days. Serve an artifact, or run an experiment.")
    alt = require("altair", extra="charts")
    rows = [
        {"day": f"{day:%a %d %b}", "kind": kind, "calls": count}
        for day, calls, failed in state.calls.select("day", "calls", "failed").iter_rows()
        for kind, count in (("answered", calls - failed), ("failed", failed))
    ]
    colours = alt.Scale(domain=["answered", "failed"], range=["#3877cb", "#da3633"])
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X(
                "day:N", sort=None, title=None, axis=alt.Axis(labelAngle=0, labelExpr="split(datum.label, ' ')[0]")
            ),
            y=alt.Y("calls:Q", title="calls"),
            color=alt.Color("kind:N", scale=colours, legend=alt.Legend(title=None, orient="bottom")),
            order=alt.Order("kind:N"),
            tooltip=["day:N", "kind:N", "calls:Q"],
        )
        .properties(width=width, height=170)
    )
    made_up = ", with made-up ones" if state.calls["made_up"].sum() else ""
    return finished(chart, f"Calls of the last {DAYS} days{made_up}")


def calls_table(state: State) -> Html:
    columns = state.calls.select(pl.col("day").cast(pl.String), "calls", "failed", "made_up", "usd")
    return Html(table(("day", "calls", "failed", "made up", "dollars"), columns.rows()))


def newest_runs(state: State) -> Html:
    """The newest runs, each with a link to its page where apps are served."""
    if not state.runs.ids:
        return Html(
            callout(
                "There is no run yet: workbench demo makes one. workbench demo --history records made-up calls to look at.",
                "info",
            )
        )
    rows = [
        (
            _link("experiments", "run", row["run_id"], row["experiment"]),
            escape(row["dataset"]),
            escape(row["state"]),
            escape(age(row["started_at"])),
        )
        for row in state.runs.rows.head(SHOWN).iter_rows(named=True)
    ]
    return Html(_titled("Newest runs", table(("experiment", "data set", "state", "age"), rows, raw=True)))


def newest_versions(state: State) -> Html:
    """The newest versions, and every version that an alias points at."""
    if not state.versions:
        return Html(callout("There is no artifact yet. workbench demo promotes one.", "info"))
    by_age = sorted(state.versions, key=lambda entry: entry.created_at, reverse=True)
    shown = [entry for place, entry in enumerate(by_age) if place < SHOWN or entry.aliases]
    rows = [
        (
            _link("registry", "artifact", label := f"{entry.name}@{entry.version}", label),
            f"<b>{escape(', '.join(entry.aliases))}</b>",
            escape(entry.decision),
            escape(age(entry.created_at)),
        )
        for entry in shown
    ]
    return Html(_titled("Artifacts", table(("artifact", "aliases", "decision", "age"), rows, raw=True)))


def troubles(state: State) -> Html:
    """What is damaged, and what was refused; that there is nothing of the kind where there is not."""
    damaged = state.runs.notice or callout("Nothing that was read is damaged.", "ok")
    hint = "<p style='opacity:.8;font-size:.9em'>Every byte is read by <code>workbench events check</code>.</p>"
    rows = [(age(when).replace(" ", "\u00a0"), who, what, _cut(why)) for when, who, what, why in state.refusals]
    refused = table(("age", "who", "what", "why"), rows) if rows else callout("Nothing was refused.", "ok")
    return Html(_titled("Problems", damaged + hint) + _titled("Refused lately", refused))


def _link(app: str, parameter: str, value: str, text: str) -> str:
    if not access.served():
        return escape(text)
    return f"<a href='/{app}/?{parameter}={escape(value)}' style='text-decoration:underline'>{escape(text)}</a>"


def _titled(title: str, body: str) -> str:
    return f"<h3 style='font-size:1.05em;font-weight:600;margin:1em 0 .4em'>{escape(title)}</h3>{body}"


def _cut(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def as_text(layout: Layout, state: State) -> str:
    """The page as lines: the apps, then the numbers."""
    apps = [f"{app.slug}: {app.title}. {app.summary}".rstrip() for app in apps_here(layout)]
    return "\n".join([*apps, *(f"{label}: {value}, {note}" for label, value, note in state.numbers)])
