"""The report of a curation: one HTML file with pictures and tables, that needs no network to read and holds no row's text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import MissingExtraError, require
from workbench.files import short
from workbench.html import callout, escape, table
from workbench.ui.charts import VARIANT_COLOURS, Nothing, finished
from workbench.ui.report import _STYLE, _svg

if TYPE_CHECKING:
    from workbench.curation.report import CurationReport, Finding, Histogram

_COLOURS = {"dropped": "#da3633", "masked": "#d29922", "flagged": "#3877cb"}
_KEPT = "#2ea043"
WIDTH = 400
MOST_CLASSES = 25
SHOWN = 100


def html_report(report: CurationReport) -> str:
    """The report as HTML text; whatever came from data is escaped. Without Altair a sentence stands for the pictures."""
    before, after = report.before, report.after
    parts = [
        f"<h1>Curation of {escape(report.dataset)}</h1>",
        f"<p class='soft'>{short(before.digest)} → {short(after.digest)} · {before.rows:,} rows → {after.rows:,}</p>",
        callout(report.headline, "warn" if report.findings else "ok"),
        _pictures(report),
        "<h2>By check</h2>" + table(("check", "dropped", "masked", "flagged", ""), report.table()),
        "<h2>By split</h2>" + table(("split", "before", "dropped", "after"), _splits(report)),
    ]
    for check, findings in _by_check(report).items():
        more = f"<p class='soft'>The first {SHOWN} of {len(findings):,}; all are in report.json.</p>"
        parts.append(
            f"<h2>{escape(check)}</h2>{more if len(findings) > SHOWN else ''}"
            + table(("row", "split", "done", "why", "score"), [_cells(found) for found in findings[:SHOWN]])
        )
    settings = report.settings.model_dump(mode="json")
    rows = [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else value) for name, value in settings.items()
    ]
    parts.append(
        f"<h2>Settings</h2><details><summary>as they were</summary>{table(('setting', 'value'), rows)}</details>"
    )
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>Curation of {escape(report.dataset)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def splits_plot(report: CurationReport, *, width: int | str = WIDTH) -> Any:
    """Rows of each split that stay and that were dropped, by check. Returns: an Altair chart."""
    dropped: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    for found in report.findings:
        if found.action == "dropped" and found.id not in seen:
            seen.add(found.id)
            dropped[found.split, found.check] += 1
    rows = [{"split": split, "what": "stays", "rows": rows} for split, rows in report.after.splits.items()]
    rows += [{"split": split, "what": what, "rows": number} for (split, what), number in dropped.items()]
    kinds = ["stays", *sorted({what for _, what in dropped})]
    reds = ("#da3633", "#e0762f", "#b5488f", "#d29922", "#7a5fc0")
    return _bars(
        rows, "split", "what", kinds, [_KEPT, *reds], "Rows by split, and what was dropped", width=width, step=34
    )


def findings_plot(report: CurationReport, *, width: int | str = WIDTH) -> Any:
    """Findings of each check by what was done. Returns: an Altair chart, or `Nothing`."""
    counted = Counter((found.check, found.action) for found in report.findings)
    if not counted:
        return Nothing("No check found anything.")
    rows = [{"check": check, "what": action, "rows": number} for (check, action), number in counted.items()]
    kinds = [action for action in _COLOURS if any(action == done for _, done in counted)]
    return _bars(rows, "check", "what", kinds, [_COLOURS[kind] for kind in kinds], "Findings by check", width=width)


def personal_plot(report: CurationReport, *, width: int | str = WIDTH) -> Any:
    """Rows that hold each kind of personal data. Returns: an Altair chart, or `Nothing`."""
    held = Counter(kind for found in report.findings for kind in {span.entity for span in found.spans})
    if not held:
        return Nothing("No personal data was found.")
    rows = [
        {"kind": kind.lower().replace("_", " "), "what": "rows", "rows": number} for kind, number in held.most_common()
    ]
    return _bars(rows, "kind", "what", ["rows"], VARIANT_COLOURS[:1], "Rows with personal data", width=width)


def classes_plot(report: CurationReport, column: str, *, width: int | str = WIDTH) -> Any:
    """Rows of each class of a target by split, the largest classes. Returns: an Altair chart, or `Nothing`."""
    counts = [count for count in report.classes if count.column == column]
    if not counts:
        return Nothing(f"{column} holds no classes.")
    shown = counts if len(counts) <= MOST_CLASSES else [*counts[: MOST_CLASSES - 5], *counts[-5:]]
    rows = [
        {"class": count.value, "what": split, "rows": number}
        for count in shown
        for split, number in count.splits.items()
    ]
    title = f"Classes of {column}"
    if len(shown) < len(counts):
        title += f": the {MOST_CLASSES - 5} largest and 5 smallest of {len(counts)}"
    splits = [split for split in report.after.splits if report.after.splits[split]]
    return _bars(rows, "class", "what", splits, VARIANT_COLOURS, title, width=width, step=20)


def lengths_plot(report: CurationReport, *, width: int | str = WIDTH) -> Any:
    """Lengths of the texts, with the lines beyond which they are outliers. Returns: an Altair chart, or `Nothing`."""
    if report.lengths is None:
        return Nothing("Lengths were not looked at.")
    return _histogram(report.lengths, "characters", "Lengths of the texts", width=width, log=True)


def nearest_plot(report: CurationReport, *, width: int | str = WIDTH) -> Any:
    """How close rows come to the closest held-out row, with the line from which they leak.

    Returns: an Altair chart, or `Nothing`.
    """
    if report.nearest is None:
        return Nothing("Rows were not compared with those of other splits by meaning.")
    title = "Closest row of a held-out split"
    return _histogram(report.nearest, "cosine of the embeddings", title, width=width, log=False)


def _pictures(report: CurationReport) -> str:
    try:
        columns = list(dict.fromkeys(count.column for count in report.classes))
        charts = [splits_plot(report), findings_plot(report), nearest_plot(report), lengths_plot(report)]
        charts += [personal_plot(report), *(classes_plot(report, column) for column in columns)]
        drawn = "".join(f"<div>{_svg(chart)}</div>" for chart in charts if not isinstance(chart, Nothing))
    except MissingExtraError as error:
        return callout(f"There are no pictures: {error}", "info")
    return f"<div class='charts'>{drawn}</div>"


def _bars(
    rows: Sequence[dict[str, Any]],
    by: str,
    colour: str,
    kinds: Sequence[str],
    colours: Sequence[str],
    title: str,
    *,
    width: int | str,
    step: int = 26,
) -> Any:
    alt = require("altair", extra="charts")
    order = list(dict.fromkeys(row[by] for row in rows))
    ranked = [row | {"order": kinds.index(row[colour])} for row in rows]
    legend = (
        None
        if len(kinds) == 1
        else alt.Legend(title=None, orient="bottom", columns=3, columnPadding=24, labelLimit=220)
    )
    chart = (
        alt.Chart(alt.Data(values=ranked))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            y=alt.Y(f"{by}:N", title=None, sort=order, axis=alt.Axis(labelLimit=180)),
            x=alt.X("rows:Q", title="rows", axis=alt.Axis(tickMinStep=1, tickCount=6)),
            color=alt.Color(
                f"{colour}:N", sort=list(kinds), legend=legend, scale=alt.Scale(domain=list(kinds), range=list(colours))
            ),
            order=alt.Order("order:Q"),
            tooltip=[f"{by}:N", f"{colour}:N", "rows:Q"],
        )
        .properties(width=width, height=alt.Step(step))
    )
    return finished(chart, title)


def _histogram(histogram: Histogram, axis: str, title: str, *, width: int | str, log: bool) -> Any:
    alt = require("altair", extra="charts")
    edges = histogram.edges
    bins = [
        {"low": low, "high": high, "rows": rows, "floor": 0}
        for low, high, rows in zip(edges, edges[1:], histogram.counts, strict=False)
    ]
    # A line outside of what there is would stretch the picture.
    lines = [{"at": limit} for limit in histogram.limits if edges[0] <= limit <= edges[-1]]
    scale = alt.Scale(type="log" if log else "linear", domain=[edges[0], edges[-1]], nice=False)
    bars = (
        alt.Chart(alt.Data(values=bins))
        .mark_bar(color=VARIANT_COLOURS[0], binSpacing=1)
        .encode(
            x=alt.X("low:Q", title=axis, scale=scale, axis=alt.Axis(tickCount=6, labelOverlap=True, format="~r")),
            x2="high:Q",
            y=alt.Y("rows:Q", title="rows", axis=alt.Axis(tickCount=4)),
            y2="floor:Q",
            tooltip=["low:Q", "high:Q", "rows:Q"],
        )
    )
    rules = alt.Chart(alt.Data(values=lines)).mark_rule(strokeDash=[5, 4], strokeWidth=2, color=_COLOURS["dropped"])
    chart = alt.layer(bars, rules.encode(x="at:Q")).properties(width=width, height=170)
    return finished(chart, title)


def _splits(report: CurationReport) -> list[tuple[str, int, int, int]]:
    after = report.after.splits
    return [(name, rows, rows - after.get(name, 0), after.get(name, 0)) for name, rows in report.before.splits.items()]


def _by_check(report: CurationReport) -> dict[str, list[Finding]]:
    out: dict[str, list[Finding]] = {}
    for found in report.findings:
        out.setdefault(found.check, []).append(found)
    # What was done comes before what is only said; of suspects the likeliest come first.
    rank = {"dropped": 0, "masked": 1, "flagged": 2}
    return {
        check: sorted(findings, key=lambda found: (rank[found.action], -abs(found.score or 0)))
        for check, findings in out.items()
    }


def _cells(found: Finding) -> tuple[Any, ...]:
    places = "; ".join(f"{span.column} {span.start}–{span.end}" for span in found.spans)
    return found.id, found.split, found.action, found.reason + (f" ({places})" if places else ""), found.score
