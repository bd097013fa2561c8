"""What each mode of search finds, shown: all questions as one picture, and one question with its passages."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import require
from workbench.html import callout, table
from workbench.retrieval.metrics import is_relevant
from workbench.retrieval.types import Chunk, Span
from workbench.ui.charts import GREY, OUTCOME_COLOURS, Nothing, finished
from workbench.ui.lab import Html
from workbench.ui.rag_modes import MODES, ByMode, Find

if TYPE_CHECKING:
    from workbench.retrieval.search_settings import Mode

SHOWN_TEXT = 260
_RULES = re.compile(r"[-=*~^+|#_]{4,}|(?:[+|]\s*){2,}")
_GREEN, _AMBER, _GREY = "46,160,67", "210,153,34", "128,128,128"
_WORDS = {"dense": "by meaning", "sparse": "by words", "hybrid": "by both"}


def mode_plot(view: ByMode, *, width: int = 560) -> Any:
    """How far down each mode has the passages of the evidence, as one bar a mode.

    Returns: an Altair chart, or `Nothing` where no question has evidence.
    """
    if not view.answerable:
        return Nothing(view.sentence)
    alt = require("altair", extra="charts")
    groups = {"first": OUTCOME_COLOURS[0], f"in the first {view.k}": OUTCOME_COLOURS[2]}
    groups |= {"further down": OUTCOME_COLOURS[3], "not found": GREY}
    first, within, late, never = groups
    rows = []
    for mode in MODES:
        finds = [found for name in view.answerable for found in view.finds(name, mode)]
        names = [
            first if found.rank == 1 else within if found.within(view.k) else late if found.rank else never
            for found in finds
        ]
        rows += [
            {"mode": mode, "found": group, "passages": names.count(group), "order": place}
            for place, group in enumerate(groups)
        ]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("passages:Q", title="passages of the evidence", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("mode:N", sort=list(MODES), title=None),
            color=alt.Color(
                "found:N",
                scale=alt.Scale(domain=list(groups), range=list(groups.values())),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            order="order:Q",
            tooltip=["mode:N", "found:N", "passages:Q"],
        )
        .properties(width=width, height=alt.Step(30))
    )
    return finished(chart, "Where each mode ranks the evidence")


def question_view(view: ByMode, question: str) -> Html:
    """One question: its evidence with the rank that each mode gives it, and the passages that each mode finds."""
    if not question:
        return Html(callout("Tick a question to see what was found.", "info"))
    if question not in view.questions:
        return Html(callout(f"There is no dev question {question!r}.", "warn"))
    asked = view.questions[question]
    parts = [f"<p style='font-size:1.1em;margin:.4em 0'><b>{html.escape(asked.text)}</b></p>"]
    if asked.answer:
        parts.append(f"<p style='margin:.2em 0;opacity:.85'>expected: {html.escape(asked.answer)}</p>")
    if asked.evidence:
        parts.append(_evidence_table(view, question))
    else:
        parts.append(callout("The corpus does not answer this question, so there is nothing to find.", "info"))
    columns = "".join(_column(view, question, mode) for mode in MODES)
    return Html("".join(parts) + f"<div style='display:flex;flex-wrap:wrap;gap:1em'>{columns}</div>")


def _evidence_table(view: ByMode, question: str) -> str:
    finds = {mode: view.finds(question, mode) for mode in MODES}
    rows = []
    for number, span in enumerate(view.questions[question].evidence):
        quote = " ".join(view.texts[span.document][span.start : span.end].split())
        cell = f"“{html.escape(quote)}” <span style='opacity:.7'>{html.escape(span.document)}</span>"
        rows.append(
            (cell, *(_verdict(finds[mode][number], view.k, len(view.found[mode][question].chunks)) for mode in MODES))
        )
    return table(("evidence", *MODES), rows, raw=True)


def _verdict(found: Find, k: int, depth: int) -> str:
    if found.within(k):
        return f"<span style='color:rgb({_GREEN});white-space:nowrap'><b>✓ rank {found.rank}</b></span>"
    if found.rank:
        said = f"rank {found.rank}, past the first {k}"
    elif found.cut:
        said = f"cut: rank {found.cut[0]} holds {found.cut[1]:.0%} of it"
    else:
        said = f"not in the first {depth}" if depth else "nothing found"
    return f"<span style='color:rgb({_AMBER})'><b>✗ missed</b></span><br><span style='opacity:.8'>{said}</span>"


def _column(view: ByMode, question: str, mode: Mode) -> str:
    judged = view.found[mode][question]
    own = view.configuration.search.mode == mode
    title = f"<b>{mode}</b> <span style='opacity:.7'>{_WORDS[mode]}{', as configured' if own else ''}</span>"
    passages = [
        _passage(rank, chunk, judged.question.evidence, _ranks(view, question, chunk) if mode == "hybrid" else "")
        for rank, chunk in enumerate(judged.chunks[: view.k], 1)
    ]
    if not passages:
        passages = [callout("Nothing found: no word of the question is in the corpus.", "warn")]
    return f"<div style='flex:1 1 260px;min-width:0'><p style='margin:.5em 0 .3em'>{title}</p>{''.join(passages)}</div>"


def _ranks(view: ByMode, question: str, chunk: Chunk) -> str:
    """Where the two sides of hybrid search have a chunk."""
    places = []
    for mode in ("dense", "sparse"):
        ids = [found.id for found in view.found[mode][question].chunks]
        places.append(f"{mode} {ids.index(chunk.id) + 1 if chunk.id in ids else '–'}")
    return " · ".join(places)


def _passage(rank: int, chunk: Chunk, evidence: Sequence[Span], note: str) -> str:
    held = any(is_relevant(chunk, span) for span in evidence)
    touched = any(chunk.document == e.document and chunk.start < e.end and e.start < chunk.end for e in evidence)
    tint = _GREEN if held else _AMBER if touched else _GREY
    what = "evidence" if held else "a part of the evidence" if touched else ""
    facts = " · ".join(filter(None, [note, what]))
    style = f"border-left:4px solid rgb({tint});background:rgba({tint},.1);border-radius:4px;overflow-wrap:anywhere"
    return (
        f"<div title='{html.escape(chunk.id, quote=True)}' style='{style};padding:.4em .7em;margin:.3em 0;font-size:.88em'>"
        f"<b>{rank}. {html.escape(chunk.document)}</b> <span style='opacity:.7'>{facts}</span><br>"
        f"{_excerpt(chunk, evidence)}</div>"
    )


def _excerpt(chunk: Chunk, evidence: Sequence[Span]) -> str:
    """The beginning of a chunk, or its surroundings of the evidence, which is underlined."""
    spans = [(max(e.start, chunk.start), min(e.end, chunk.end)) for e in evidence if e.document == chunk.document]
    inside = sorted((start - chunk.start, end - chunk.start) for start, end in spans if start < end)
    if not inside:
        return _clip(chunk.text, SHOWN_TEXT)
    start, end = inside[0]
    room = max(0, SHOWN_TEXT - (end - start)) // 2
    before, after = chunk.text[max(0, start - room) : start], chunk.text[end : end + room]
    return (
        f"{'…' if start > room else ''}{_flat(before)}<span style='border-bottom:2px solid rgb({_GREEN})'>"
        f"{_flat(chunk.text[start:end])}</span>{_flat(after)}{'…' if end + room < len(chunk.text) else ''}"
    )


def _clip(text: str, most: int) -> str:
    """The beginning of a text as one line, without the rules that tables and headings are drawn with."""
    flat = " ".join(_RULES.sub(" ", text).split())
    return html.escape(flat[:most]) + ("…" if len(flat) > most else "")


def _flat(text: str) -> str:
    """One line, with a space at either end where there was white space."""
    words = " ".join(text.split())
    return html.escape((" " if text[:1].isspace() else "") + words + (" " if words and text[-1:].isspace() else ""))
