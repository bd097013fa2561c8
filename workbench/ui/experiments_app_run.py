"""One run as a page shows it: what it decided, which rows differ, where it came from, and beside another run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench import access
from workbench.errors import WorkbenchError
from workbench.files import short
from workbench.html import callout, counted, escape, table
from workbench.registry import names
from workbench.ui.experiments_app import compared
from workbench.ui.experiments_app_rows import hidden_note, with_visible_rows
from workbench.ui.lab import Html, disagreements

if TYPE_CHECKING:
    from workbench.experiments.across import AcrossRuns
    from workbench.experiments.comparison import Comparison
    from workbench.experiments.run import Run
    from workbench.workspace import Layout


def heading(run: Run) -> Html:
    """The run in two lines: what was asked of what, and when."""
    manifest = run.manifest
    state = "" if run.complete else f" · {len(run.calls())} of {run.expected} calls so far"
    part = f", split {manifest.split}" if manifest.split else ""
    line = f"{counted(manifest.rows, 'row')} of {manifest.dataset}{part} · {manifest.started_at[:16].replace('T', ' ')} UTC{state}"
    note = (
        callout(f"{counted(run.failed, 'call')} failed; run the experiment again to retry.", "warn")
        if run.failed
        else ""
    )
    return Html(
        f"<h2 style='margin:.2em 0;font-size:1.5em;font-weight:600'>{escape(manifest.experiment)}</h2>"
        f"<p style='opacity:.75;margin:.2em 0'>{escape(line)} · <code>{escape(run.id)}</code></p>{note}"
    )


def conclusion(run: Run) -> Html:
    """The decision on each variant, a sentence each; that there is none where the run has one variant."""
    if len(run.manifest.variants) < 2:
        only = next(iter(run.manifest.variants))
        return Html(
            callout(f"The run has one variant, {only}: there is nothing to decide. Compare it with another.", "info")
        )
    comparison = compared(run)
    early = "The run has not ended: what it says so far may change." if run.manifest.finished_at is None else ""
    return Html(
        (callout(early, "warn") if early else "")
        + "".join(comparison.decision(name)._repr_html_() for name in comparison.variants)
    )


def differing(comparison: Comparison, variant: str, change: str = "all") -> Html:
    """Rows that a variant and the baseline answer differently, as far as whoever acts may see them.

    Args:
        change: `all`, `fixed` or `broke`.
    """
    note = hidden_note(comparison, variant)
    shown = disagreements(with_visible_rows(comparison), variant, change=change)
    return Html((callout(note, "info") if note else "") + shown.text)


def origin(layout: Layout, run: Run) -> Html:
    """Where a run came from: notebook, commit, command, data, models; and the artifacts it became."""
    manifest = run.manifest
    commit = manifest.git_commit
    models = {f"{model['name']}, {short(model['digest'])}, {model['device']}" for model in manifest.models.values()}
    facts: list[tuple[str, Any]] = [
        ("became", became(layout, run.id)),
        ("notebook", _notebook(run)),
        ("commit", commit and f"{commit[:12]}{' with uncommitted changes' if manifest.git_dirty else ''}"),
        ("command", " ".join(manifest.command) or None),
        ("data set", f"{manifest.dataset}, {short(manifest.dataset_digest)}"),
        ("models", "; ".join(sorted(models))),
        ("pipelines", ", ".join(f"{name} {short(digest)}" for name, digest in manifest.pipeline_digests.items())),
        ("python", manifest.environment.get("python")),
    ]
    return Html(table(("", "where it comes from"), facts))


def became(layout: Layout, run_id: str) -> str:
    """The artifacts that were promoted from a run, with their aliases."""
    found = [
        f"{entry.name}@{entry.version} ({entry.variant}{', ' + ', '.join(entry.aliases) if entry.aliases else ''})"
        for entry in names.ls(layout)
        if entry.run_id == run_id
    ]
    return ", ".join(found) or "no artifact yet"


def _notebook(run: Run) -> str | None:
    from workbench.experiments.notebook_source import call_text

    try:
        kept = run.notebook()
    except WorkbenchError as error:
        return f"{run.manifest.notebook}: {error.message}"
    if kept is None or kept.source is None:
        return f"{run.manifest.notebook}, not kept" if run.manifest.notebook else None
    return call_text(kept.record.path, kept.record.arguments)


def across(later: Run, earlier: Run, variant: str, earlier_variant: str) -> AcrossRuns:
    """A variant of one run against one of another, which is the baseline.

    Raises:
        ComparisonError: they have no row or no scorer in common.
    """
    access.require("viewer", "compare runs")
    return later.compare_with(earlier, variant=variant, earlier_variant=earlier_variant)


def shared_note(found: AcrossRuns) -> Html:
    """What two runs share, and what of them was compared."""
    same = (
        "Both ran on the same version of the data set."
        if found.shared.same_dataset
        else ("They ran on different versions of the data set: only rows that are alike in both are compared.")
    )
    decided = "".join(found.comparison.decision(name)._repr_html_() for name in found.comparison.variants)
    return Html(callout(f"{found.shared} {same}", "info") + decided)
