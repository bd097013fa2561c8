"""The report: one HTML file with the decision, pictures and tables, that needs no network and no workbench to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import require
from workbench.files import short, write_atomic
from workbench.html import escape, frame_table, table
from workbench.ui import charts

if TYPE_CHECKING:
    from workbench.experiments.comparison import Comparison
    from workbench.experiments.run import Run
    from workbench.registry.artifact import Artifact
    from workbench.registry.gate import GateResult

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #ffffff; --soft: #656d76; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --soft: #9198a1; } }
body { color: var(--ink); background: var(--paper); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 1080px; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
p.soft { color: var(--soft); margin: .2rem 0 1rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem 2rem; align-items: flex-start; } svg { max-width: 100%; height: auto; }
td { max-width: 34rem; overflow-wrap: anywhere; } details { margin: .6rem 0; } summary { cursor: pointer; }
"""
SHOWN = 40
WIDTH = 350


def html_report(
    run: Run, comparison: Comparison, gate: GateResult | None = None, artifact: Artifact | None = None
) -> str:
    """The report as HTML text. Everything that came from data or a model is escaped."""
    manifest = run.manifest
    decisions = "".join(comparison.decision(name)._repr_html_() for name in comparison.variants)
    binary = [row.scorer for row in comparison.rows if row.kind == "binary" and row.family == "quality"]
    pictures = [charts.difference_plot(comparison, width=WIDTH), charts.cost_quality(run, comparison, width=WIDTH)]
    pictures += [
        chart
        for chart in (charts.accuracy_by_target(run, scorer, width=WIDTH) for scorer in dict.fromkeys(binary))
        if not isinstance(chart, charts.Nothing)
    ]
    parts = [
        f"<h1>{escape(manifest.experiment)}</h1>",
        (
            f"<p class='soft'>{manifest.rows} rows of {escape(manifest.dataset)}"
            f"{f', split {escape(manifest.split)}' if manifest.split else ''} · run {escape(run.id)} · "
            f"{escape(manifest.started_at[:16].replace('T', ' '))} UTC</p>"
        ),
        decisions,
        f"<div class='charts'>{''.join(f'<div>{_svg(chart)}</div>' for chart in pictures)}</div>",
        "<h2>All differences</h2>" + table(*comparison._cells()),
    ]
    if gate is not None:
        parts.append("<h2>Gate</h2>" + gate._repr_html_())
    if artifact is not None:
        parts.append(f"<p>Promoted as <b>{escape(artifact.name)}@{artifact.version}</b>, {escape(artifact.digest)}</p>")
    for variant in comparison.variants:
        parts.append(_disagreements(comparison, variant))
    parts.append("<h2>By variant</h2>" + frame_table(run.summary()))
    parts.append("<h2>Prompts</h2>" + "".join(_prompt(name, data) for name, data in manifest.variants.items()))
    parts.append("<h2>Where it comes from</h2>" + table(("what", "which"), _facts(run)))
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{escape(manifest.experiment)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def write_report(
    path: Path, run: Run, comparison: Comparison, gate: GateResult | None = None, artifact: Artifact | None = None
) -> None:
    """Write `html_report` to `path`, atomically."""
    write_atomic(path, html_report(run, comparison, gate, artifact))


def _svg(chart: Any) -> str:
    if isinstance(chart, charts.Nothing):
        return chart._repr_html_()
    converter = require("vl_convert", extra="charts")
    return str(converter.vegalite_to_svg(chart.to_json()))


def _disagreements(comparison: Comparison, variant: str) -> str:
    rows = comparison.disagreements(variant)
    shown = rows.head(SHOWN).iter_rows(named=True)
    cells = [
        (
            row["change"],
            input_text(row["input"]),
            compact(row["target"]),
            compact(row["baseline_result"] or row["baseline_output"]),
            compact(row["variant_result"] or row["variant_output"]),
        )
        for row in shown
    ]
    more = f"<p class='soft'>The first {SHOWN} of {len(rows)}.</p>" if len(rows) > SHOWN else ""
    return f"<h2>Rows that {escape(variant)} and {escape(comparison.baseline)} answer differently</h2>{more}" + table(
        ("change", "input", "target", comparison.baseline, variant), cells
    )


def input_text(text: str) -> str:
    """The one input of a row as it is, several as `a · b`."""
    values = json.loads(text)
    return str(next(iter(values.values()))) if len(values) == 1 else compact(text)


def compact(text: str | None) -> str:
    """JSON of one level as `a · b`, anything else as it is."""
    if text is None:
        return "–"
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return " · ".join(str(item) for item in value.values()) if isinstance(value, dict) else str(value)


def _prompt(name: str, pipeline: dict[str, Any]) -> str:
    from workbench.pipeline.prompt import Prompt

    text = Prompt.model_validate(pipeline["prompt"]).to_text()
    return f"<details><summary>{escape(name)}</summary><pre style='white-space:pre-wrap'>{escape(text)}</pre></details>"


def _facts(run: Run) -> list[tuple[str, Any]]:
    manifest = run.manifest
    model = next(iter(manifest.models.values()))
    facts = [
        ("data set", f"{manifest.dataset}, {short(manifest.dataset_digest)}"),
        ("model", f"{model['name']}, {short(model['digest'])}, {model['device']} {model['dtype']}"),
        ("pipelines", ", ".join(f"{name} {short(digest)}" for name, digest in manifest.pipeline_digests.items())),
        ("notebook", manifest.notebook and f"{manifest.notebook}, {short(manifest.notebook_digest or '')}"),
        ("git commit", manifest.git_commit and f"{manifest.git_commit[:12]}{' (dirty)' if manifest.git_dirty else ''}"),
        ("command", " ".join(manifest.command)),
        ("python", manifest.environment.get("python")),
        ("platform", manifest.environment.get("platform")),
        ("torch, transformers", ", ".join(manifest.environment.get(name, "–") for name in ("torch", "transformers"))),
    ]
    return [(name, value) for name, value in facts if value]
