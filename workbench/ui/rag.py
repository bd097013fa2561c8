"""What the tuning notebooks show: chunks on their text, the Pareto front, and question by question what was found."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import require
from workbench.html import callout, table
from workbench.ui.charts import INK, VARIANT_COLOURS, Nothing, _styled
from workbench.ui.lab import Html

if TYPE_CHECKING:
    from workbench.retrieval.corpus import Corpus
    from workbench.retrieval.types import Chunk, Document
    from workbench.tuning.tune import TuneResult

_TINTS = ("56,119,205", "224,118,47")
SHOWN_CHARACTERS = 4_000


def chunk_view(document: Document, chunks: Sequence[Chunk], *, limit: int = SHOWN_CHARACTERS) -> Html:
    """A document's text with its chunks in turning tints; what two chunks share is darker."""
    mine = sorted((chunk for chunk in chunks if chunk.document == document.id), key=lambda chunk: chunk.start)
    text = document.text[:limit]
    edges = sorted({0, len(text), *(min(edge, len(text)) for chunk in mine for edge in (chunk.start, chunk.end))})
    parts = []
    for start, end in itertools.pairwise(edges):
        inside = [chunk for chunk in mine if chunk.start <= start and end <= chunk.end]
        tint = _TINTS[inside[0].number % 2] if inside else "128,128,128"
        strength = {0: 0.0, 1: 0.16}.get(len(inside), 0.38)
        first = any(chunk.start == start for chunk in inside)
        border = f"border-left:2px solid rgb({tint});padding-left:2px;" if first else ""
        title = ", ".join(f"chunk {chunk.number + 1}" for chunk in inside) or "in no chunk"
        parts.append(
            f"<span title='{title}' style='background:rgba({tint},{strength});{border}'>{html.escape(text[start:end])}</span>"
        )
    more = len(document.text) - limit
    note = f"<p style='opacity:.7'>and {more:,} more characters</p>" if more > 0 else ""
    sizes = f"{len(mine)} chunks of {document.id}" + (
        f", {min(map(_length, mine))} to {max(map(_length, mine))} characters" if mine else ""
    )
    return Html(
        f"<p style='margin:.2em 0'>{html.escape(sizes)}</p><div style='white-space:pre-wrap;font-family:monospace;"
        f"font-size:12px;line-height:1.5;max-height:26em;overflow:auto'>{''.join(parts)}</div>{note}"
    )


def _length(chunk: Chunk) -> int:
    return chunk.end - chunk.start


def pareto_plot(result: TuneResult, *, width: int | str = 560) -> Any:
    """Quality against the median latency of every configuration; the front is joined, leader and baseline are named.

    Returns: an Altair chart whose points can be clicked in marimo, or `Nothing`.
    """
    rows = [
        {
            "configuration": trial.label,
            "quality": trial.values.get(result.measure),
            "p50_ms": trial.p50_ms,
            "front": "on the front" if trial.pareto else "beaten",
            "name": "leader" if trial.label == result.leader else "baseline" if trial.label == result.baseline else "",
            "megabytes": trial.megabytes,
        }
        for trial in result.trials
        if trial.values.get(result.measure) is not None and trial.p50_ms is not None
    ]
    if not rows:
        return Nothing("No configuration was measured.")
    alt = require("altair", extra="charts")
    x = alt.X("p50_ms:Q", title="median milliseconds a query", scale=alt.Scale(zero=False, padding=20))
    y = alt.Y("quality:Q", title=f"{result.measure}, dev questions", scale=alt.Scale(zero=False, padding=20))
    colour = alt.Color(
        "front:N",
        scale=alt.Scale(domain=["on the front", "beaten"], range=[VARIANT_COLOURS[0], INK]),
        legend=alt.Legend(title=None, orient="bottom"),
    )
    tips = [
        "configuration:N",
        alt.Tooltip("quality:Q", format=".3f"),
        alt.Tooltip("p50_ms:Q", format=".1f"),
        "megabytes:Q",
    ]
    data = alt.Data(values=rows)
    front = alt.Data(
        values=sorted((r for r in rows if r["front"] == "on the front"), key=lambda r: float(r["p50_ms"] or 0))
    )
    line = alt.Chart(front).mark_line(interpolate="step-after", color=VARIANT_COLOURS[0], opacity=0.5).encode(x=x, y=y)
    points = alt.Chart(data).mark_point(filled=True, size=90, opacity=0.9).encode(x=x, y=y, color=colour, tooltip=tips)
    names = (
        alt.Chart(data)
        .transform_filter("datum.name != ''")
        .mark_text(align="left", dx=9, dy=-7, fontSize=12, color=INK)
        .encode(x=x, y=y, text="name:N")
    )
    chart = alt.layer(line, points, names).properties(width=width, height=280)
    return _styled(chart, "Quality and latency of every configuration")


def measure_bars(result: TuneResult, *, most: int = 12, width: int | str = 560) -> Any:
    """The best configurations by the measure, as bars."""
    frame = result.frame().head(most)
    rows = frame.select("configuration", pl.col(result.measure).alias("value")).drop_nulls().to_dicts()
    if not rows:
        return Nothing("No configuration was measured.")
    alt = require("altair", extra="charts")
    order = [row["configuration"] for row in rows]
    bars = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(color=VARIANT_COLOURS[0])
        .encode(
            x=alt.X("value:Q", title=result.measure),
            y=alt.Y("configuration:N", sort=order, title=None, axis=alt.Axis(labelLimit=320)),
            tooltip=["configuration:N", alt.Tooltip("value:Q", format=".3f")],
        )
        .properties(width=width, height=alt.Step(22))
    )
    return _styled(bars, f"The best {len(rows)} configurations on the dev questions")


def questions_table(result: TuneResult, *, only_different: bool = True, limit: int = 25) -> Html:
    """Test questions with the measure under baseline and leader, those that differ most first."""
    if result.leader == result.baseline:
        return Html(callout("The baseline leads: there is nothing to compare it with.", "info"))
    scores = result.run.scores().filter(pl.col("scorer") == result.measure).drop_nulls("value")
    wide = scores.pivot(on="variant", index="row_id", values="value")
    if result.leader not in wide.columns or result.baseline not in wide.columns:
        return Html(callout("The leader was not tried on the test questions.", "info"))
    wide = wide.with_columns((pl.col(result.leader) - pl.col(result.baseline)).alias("change"))
    if only_different:
        wide = wide.filter(pl.col("change") != 0)
    wide = wide.sort(pl.col("change").abs(), descending=True)
    asked = _asked(result)
    rows = [
        (row["row_id"], asked[row["row_id"]][0], row[result.baseline], row[result.leader], row["change"])
        for row in wide.head(limit).iter_rows(named=True)
    ]
    if not rows:
        return Html(callout("Baseline and leader find the same for every question.", "info"))
    head = f"<p style='margin:.2em 0'>{min(limit, len(wide))} of {len(wide)} questions that differ, by {result.measure}</p>"
    return Html(head + table(("question", "text", "baseline", "leader", "change"), rows))


def drill_down(result: TuneResult, corpus: Corpus, question: str) -> Html:
    """One test question: its evidence, and what each variant found in which order, the evidence marked."""
    asked = _asked(result)
    if question not in asked:
        return Html(callout(f"There is no test question {question!r}.", "warn"))
    text, target = asked[question]
    spans = [tuple(span) for span in target.get("evidence", [])]
    texts = {document.id: document.text for document in corpus.documents}
    blocks = [f"<p><b>{html.escape(text)}</b></p>"]
    if target.get("answer"):
        blocks.append(f"<p style='margin:.2em 0'>expected: {html.escape(str(target['answer']))}</p>")
    for document, start, end in spans:
        quote = " ".join(texts.get(document, "")[start:end].split())
        blocks.append(
            f"<p style='margin:.2em 0;opacity:.8'>evidence in {html.escape(document)}: “{html.escape(quote)}”</p>"
        )
    calls = result.run.calls().filter(pl.col("row_id") == question)
    columns = []
    for call in calls.iter_rows(named=True):
        cells = [_passage(name, spans, texts) for name in json.loads(call["passages"] or "[]")]
        roles = {result.leader: "leader", result.baseline: "baseline"}
        title = f"{call['variant']} ({roles.get(call['variant'], 'finalist')})"
        columns.append(
            f"<div style='flex:1 1 300px;min-width:260px'><p style='margin:.3em 0'><b>{html.escape(title)}</b></p>"
            f"{''.join(cells)}</div>"
        )
    return Html("".join(blocks) + f"<div style='display:flex;flex-wrap:wrap;gap:1em'>{''.join(columns)}</div>")


def _passage(name: str, spans: Sequence[Any], texts: dict[str, str]) -> str:
    document, _, place = name.rpartition("#")
    start, _, end = place.partition("-")
    low, high = int(start), int(end)
    found = any(d == document and low < e and s < high for d, s, e in spans)
    tint = "46,160,67" if found else "128,128,128"
    text = " ".join(texts.get(document, "")[low:high].split())
    shown = html.escape(text[:260]) + ("…" if len(text) > 260 else "")
    return (
        f"<div style='border-left:4px solid rgb({tint});background:rgba({tint},.1);padding:.4em .7em;margin:.3em 0;"
        f"border-radius:4px;font-size:.88em'><b>{html.escape(document)}</b> {low}–{high}<br>{shown}</div>"
    )


def _asked(result: TuneResult) -> dict[str, tuple[str, dict[str, Any]]]:
    """Text and target of each test question."""
    calls = result.run.calls().unique("row_id", maintain_order=True)
    return {
        row["row_id"]: (str(next(iter(json.loads(row["input"]).values()))), json.loads(row["target"] or "{}"))
        for row in calls.iter_rows(named=True)
    }


def decision(result: TuneResult) -> Html:
    """The outcome in words, tinted by what it is."""
    outcome = result.decision.outcome if result.decision else "baseline"
    tint = {"better": "ok", "worse": "bad", "equivalent": "info", "baseline": "info"}.get(outcome, "warn")
    return Html(callout(result.sentence, tint))  # type: ignore[arg-type]


def test_questions(result: TuneResult) -> dict[str, str]:
    """Ids of the test questions by what people pick them by."""
    return {f"{name}: {text[:90]}": name for name, (text, _) in sorted(_asked(result).items())}
