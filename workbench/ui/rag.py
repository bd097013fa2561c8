"""What the tuning notebooks show of a tuning: chunks on their text, every configuration, and the decision."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import require
from workbench.html import callout, counted, table
from workbench.ui.charts import GREY, INK, VARIANT_COLOURS, finished
from workbench.ui.lab import Html

if TYPE_CHECKING:
    from workbench.retrieval.types import Chunk, Document, Span
    from workbench.tuning.tune import TuneResult

_TINTS = ("56,119,205", "224,118,47")
_EVIDENCE = "46,160,67"
# What of a document is shown; a browser grows slow with more.
SHOWN_CHARACTERS = 20_000
MOST_BARS = 12
PICKED = "picked"
_PICKED_COLOUR = "#e0762f"
_FRONT = ("on the Pareto front", "beaten by another")
_TIPS = {"quality": ".3f", "p50_ms": ".1f", "p95_ms": ".1f", "megabytes": ".1f"}


def chunk_view(
    document: Document, chunks: Sequence[Chunk], evidence: Sequence[Span] = (), *, limit: int = SHOWN_CHARACTERS
) -> Html:
    """A document's chunks: a strip of their sizes, and its text with them in turning tints; what two share is darker.

    Args:
        evidence: stretches that questions ask for; those of this document are underlined, and a sentence says how many
            of them no chunk holds whole.
    """
    mine = sorted((chunk for chunk in chunks if chunk.document == document.id), key=lambda chunk: chunk.start)
    asked = sorted({span for span in evidence if span.document == document.id}, key=lambda span: span.start)
    return Html(
        f"<p style='margin:.2em 0'>{_chunk_sentence(document, mine, asked)}</p>{_strip(document, mine, asked)}"
        + _marked_text(document.text[:limit], mine, asked)
        + _more(len(document.text) - limit)
    )


def _chunk_sentence(document: Document, chunks: Sequence[Chunk], evidence: Sequence[Span]) -> str:
    if not chunks:
        return f"{html.escape(document.id)} has no chunks."
    sizes = [chunk.end - chunk.start for chunk in chunks]
    said = f"<b>{counted(len(chunks), 'chunk')}</b> of {html.escape(document.id)}, {min(sizes)} to {max(sizes)} characters."
    if evidence:
        whole = sum(any(chunk.start <= span.start and span.end <= chunk.end for chunk in chunks) for span in evidence)
        cut = len(evidence) - whole
        said += (
            f" The <span style='border-bottom:2px solid rgb({_EVIDENCE})'>underlined</span> passages answer questions: "
            + (f"{cut} of {len(evidence)} cut in two." if cut else f"none of {len(evidence)} is cut in two.")
        )
    return said


def _strip(document: Document, chunks: Sequence[Chunk], evidence: Sequence[Span]) -> str:
    """The whole document as a bar, a box a chunk, evidence as marks below them."""
    length = max(1, len(document.text))

    def box(start: int, end: int, style: str, title: str) -> str:
        place = f"left:{start / length:.3%};width:{(end - start) / length:.3%}"
        return f"<div title='{html.escape(title, quote=True)}' style='position:absolute;{place};{style}'></div>"

    boxes = [
        box(
            chunk.start,
            chunk.end,
            f"top:0;height:14px;background:rgba({_TINTS[chunk.number % 2]},.55)",
            f"chunk {chunk.number + 1}: {chunk.end - chunk.start} characters",
        )
        for chunk in chunks
    ]
    marks = [
        box(span.start, span.end, f"top:17px;height:4px;min-width:3px;background:rgb({_EVIDENCE})", "evidence")
        for span in evidence
    ]
    return f"<div style='position:relative;height:24px;margin:.3em 0'>{''.join(boxes + marks)}</div>"


def _marked_text(text: str, chunks: Sequence[Chunk], evidence: Sequence[Span]) -> str:
    ends = [edge for chunk in chunks for edge in (chunk.start, chunk.end)]
    ends += [edge for span in evidence for edge in (span.start, span.end)]
    parts = []
    for start, end in itertools.pairwise(sorted({0, len(text), *(min(edge, len(text)) for edge in ends)})):
        inside = [chunk for chunk in chunks if chunk.start <= start and end <= chunk.end]
        tint = _TINTS[inside[0].number % 2] if inside else "128,128,128"
        style = f"background:rgba({tint},{ {0: 0.0, 1: 0.2}.get(len(inside), 0.45) })"
        if any(chunk.start == start for chunk in inside):
            style += f";border-left:3px solid rgb({tint});padding-left:2px"
        if any(span.start <= start and end <= span.end for span in evidence):
            style += f";border-bottom:2px solid rgb({_EVIDENCE})"
        title = ", ".join(f"chunk {chunk.number + 1}" for chunk in inside) or "in no chunk"
        parts.append(f"<span title='{title}' style='{style}'>{html.escape(text[start:end])}</span>")
    return (
        "<div tabindex='0' style='white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;font-size:12px;"
        f"line-height:1.5;max-height:26em;overflow:auto'>{''.join(parts)}</div>"
    )


def _more(characters: int) -> str:
    return f"<p style='opacity:.7'>and {characters:,} more characters</p>" if characters > 0 else ""


def configurations_plot(result: TuneResult, *, height: int = 280) -> Any:
    """Every configuration: quality against the median latency, the Pareto front joined, and the best ones as bars.

    Returns: an Altair chart whose points and bars are picked with a click, in both halves at once; the parameter
        `PICKED` holds the label of what is picked. It begins with the leader.
    """
    alt = require("altair", extra="charts")
    rows = _configuration_rows(result)
    data = alt.Data(values=rows)
    chosen = alt.selection_point(name=PICKED, fields=["configuration"], empty=False)
    colour = alt.Color(
        "front:N",
        scale=alt.Scale(domain=list(_FRONT), range=[VARIANT_COLOURS[0], GREY]),
        legend=alt.Legend(title=None, orient="bottom"),
    )
    tips = ["configuration:N", *(alt.Tooltip(f"{name}:Q", format=form) for name, form in _TIPS.items())]
    slowest = max(row["p50_ms"] for row in rows)
    # Names stand to the right of their points, and need room there.
    x = alt.X(
        "p50_ms:Q", title="median milliseconds a query", scale=alt.Scale(domain=[0, slowest * 1.25 or 1], nice=False)
    )
    y = alt.Y(
        "quality:Q",
        title=f"{result.measure}, dev questions",
        scale=alt.Scale(zero=False, padding=20),
        axis=alt.Axis(titlePadding=14),
    )
    front = sorted((row for row in rows if row["front"] == _FRONT[0]), key=lambda row: float(row["p50_ms"]))
    line = (
        alt.Chart(alt.Data(values=front))
        .mark_line(interpolate="step-after", color=VARIANT_COLOURS[0], opacity=0.5)
        .encode(x=x, y=y)
    )
    points = (
        alt.Chart(data, name="points")
        .mark_point(filled=True, opacity=0.9, cursor="pointer", strokeWidth=3)
        .encode(
            x=x,
            y=y,
            color=colour,
            size=alt.condition(chosen, alt.value(260), alt.value(110)),
            stroke=alt.condition(chosen, alt.value(_PICKED_COLOUR), alt.value(None)),
            tooltip=tips,
        )
    )
    names = (
        alt.Chart(data)
        .transform_filter("datum.name != ''")
        .mark_text(align="left", dx=12, dy=-7, fontSize=12, color=INK)
        .encode(x=x, y=y, text="name:N")
    )
    best = rows[:MOST_BARS]
    bars = (
        alt.Chart(alt.Data(values=best), name="bars")
        .mark_bar(cursor="pointer", cornerRadiusEnd=2, strokeWidth=2)
        .encode(
            x=alt.X("quality:Q", title=result.measure, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=4)),
            y=alt.Y(
                "configuration:N",
                sort=[row["configuration"] for row in best],
                title=None,
                axis=alt.Axis(labelLimit=260, ticks=False, domain=False),
            ),
            color=colour,
            stroke=alt.condition(chosen, alt.value(_PICKED_COLOUR), alt.value(None)),
            opacity=alt.condition(chosen, alt.value(1), alt.value(0.6)),
            tooltip=tips,
        )
    )
    picked = alt.TopLevelSelectionParameter(
        name=PICKED,
        select=alt.PointSelectionConfig(type="point", fields=["configuration"], toggle=False),
        value=[{"configuration": result.leader}],
        views=["points", "bars"],
    )
    chart = alt.hconcat(
        alt.layer(line, points, names).properties(
            width=380, height=height, title=_title(alt, "Quality and latency of every configuration")
        ),
        bars.properties(
            width=200,
            height=alt.Step(24),
            title=_title(alt, f"The best {len(best)} on the dev questions" if len(rows) > len(best) else "By quality"),
        ),
        params=[picked],
        spacing=24,
    )
    return finished(chart, "")


def _configuration_rows(result: TuneResult) -> list[dict[str, Any]]:
    names = {result.baseline: "baseline", result.leader: "leader"}
    return [
        {
            "configuration": trial.label,
            "quality": trial.values.get(result.measure),
            "p50_ms": trial.p50_ms or 0.0,
            "p95_ms": trial.p95_ms,
            "megabytes": trial.megabytes,
            "front": _FRONT[0] if trial.pareto else _FRONT[1],
            "name": names.get(trial.label, ""),
        }
        for trial in result.trials
    ]


def _title(alt: Any, text: str) -> Any:
    return alt.TitleParams(text, color=INK, anchor="start", fontSize=14, fontWeight=600, offset=12)


def picked_label(selections: Mapping[str, Any], result: TuneResult, chosen: str | None = None) -> str:
    """The label of the configuration that was chosen, else of the one clicked in `configurations_plot`, else the leader's.

    Args:
        selections: of `marimo.ui.altair_chart`.
        chosen: by a control that takes no mouse.
    """
    if chosen:
        return chosen
    labels = selections.get(PICKED, {}).get("configuration") or [result.leader]
    return str(labels[0])


def decisive_questions(result: TuneResult, *, limit: int = 25) -> Html:
    """The test questions that baseline and leader differ on, which the decision rests on; those that differ most first."""
    if result.leader == result.baseline:
        return Html(callout("The baseline leads: there is nothing to compare it with.", "info"))
    scores = result.run.scores().filter(pl.col("scorer") == result.measure).drop_nulls("value")
    wide = scores.pivot(on="variant", index="row_id", values="value")
    if result.leader not in wide.columns or result.baseline not in wide.columns:
        return Html(callout("The leader was not tried on the test questions.", "info"))
    wide = wide.with_columns((pl.col(result.leader) - pl.col(result.baseline)).alias("change"))
    wide = wide.filter(pl.col("change") != 0).sort(pl.col("change").abs(), descending=True)
    calls = result.run.calls().unique("row_id")
    asked = {
        row["row_id"]: next(iter(json.loads(row["input"]).values()))
        for row in calls.select("row_id", "input").iter_rows(named=True)
    }
    rows = [
        (row["row_id"], asked[row["row_id"]], row[result.baseline], row[result.leader], row["change"])
        for row in wide.head(limit).iter_rows(named=True)
    ]
    if not rows:
        return Html(callout("Baseline and leader find the same for every question.", "info"))
    head = f"<p style='margin:.2em 0'>{min(limit, len(wide))} of {len(wide)} questions that differ, by {result.measure}</p>"
    return Html(head + table(("question", "text", "baseline", "leader", "change"), rows))


def decision(result: TuneResult) -> Html:
    """The outcome in words, tinted by what it is."""
    outcome = result.decision.outcome if result.decision else "baseline"
    tint = {"better": "ok", "worse": "bad", "equivalent": "info", "baseline": "info"}.get(outcome, "warn")
    return Html(callout(result.sentence, tint))  # type: ignore[arg-type]
