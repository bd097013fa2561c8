"""The versions of every artifact as a table, and one version as a page shows it: evidence, gate, history, differences."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench import access
from workbench.errors import IntegrityError
from workbench.experiments.comparison import Comparison
from workbench.files import short
from workbench.html import callout, counted, escape, table
from workbench.registry import names
from workbench.registry.approvals import approvals
from workbench.registry.artifact import Artifact
from workbench.registry.diff import diff
from workbench.surroundings import runs_as_script
from workbench.ui.charts import difference_plot
from workbench.ui.experiments_app import age
from workbench.ui.experiments_app_rows import visible, with_visible_rows
from workbench.ui.lab import Html
from workbench.ui.lineage import lineage_chart

if TYPE_CHECKING:
    from workbench.api import Workspace
    from workbench.registry.diff import ArtifactDiff
    from workbench.registry.names import Move, NamedVersion
    from workbench.workspace import Layout

PARTS = ("Summary", "Lineage", "Evidence", "Gate", "History")
_VERBS = {
    "register": "stored version {to}",
    "alias": "moved {alias} {way}",
    "rollback": "rolled {alias} back {way}",
    "refuse": "was refused{onto}",
    "approve": "approved version {to}",
    "tag": "tagged version {to}",
    "import": "imported version {to}",
}


def versions(layout: Layout) -> tuple[NamedVersion, ...]:
    """Every version of every artifact, those of a name together, the newest name and version first.

    Raises:
        AccessDenied: this process serves apps to others, and nobody is known here.
    """
    access.require("viewer", "see the registry")
    found = names.ls(layout)
    newest: dict[str, str] = {}
    for entry in found:
        newest[entry.name] = max(newest.get(entry.name, ""), entry.created_at)
    return tuple(sorted(found, key=lambda entry: (newest[entry.name], entry.name, entry.version), reverse=True))


def version_table(found: tuple[NamedVersion, ...], now: datetime | None = None) -> pl.DataFrame:
    """What people read of versions: artifact, aliases, decision, age, run, variant, digest."""
    moment = now or datetime.now(UTC)
    return pl.DataFrame(
        {
            "artifact": [f"{entry.name}@{entry.version}" for entry in found],
            "aliases": [", ".join(entry.aliases) for entry in found],
            "decision": [entry.decision or "none" for entry in found],
            "age": [age(entry.created_at, moment) for entry in found],
            "run": [entry.run_id or "–" for entry in found],
            "variant": [entry.variant or "–" for entry in found],
            "digest": [short(entry.digest) for entry in found],
        },
        schema_overrides=dict.fromkeys(
            ("artifact", "aliases", "decision", "age", "run", "variant", "digest"), pl.String
        ),
    )


def place_of(shown: pl.DataFrame, wanted: str) -> list[int] | None:
    """Where the table is opened: at the version that an address or an argument names, else at the newest."""
    places = [place for place, label in enumerate(shown["artifact"]) if wanted in (label, label.partition("@")[0])]
    return places[:1] or ([0] if len(shown) else None)


def nothing_yet() -> Html:
    """What to do where there is no artifact; a script prints it."""
    said = "There is no artifact yet. Promote one: workbench demo does, or workbench promote RUN NAME."
    print(said) if runs_as_script() else None
    return Html(callout(said, "info"))


def integrity(artifact: Artifact) -> Html:
    """Whether every byte of an artifact is as it was stored; what is damaged by name."""
    checks = artifact.check()
    damaged = [check.error or "" for check in checks if not check.ok]
    if damaged:
        return Html(callout(f"Damaged, and never used: {'; '.join(damaged)}. Restore it from a copy.", "bad"))
    size = sum(check.size for check in checks)
    return Html(callout(f"All {len(checks)} parts are as they were stored ({size / 1e6:,.2f} MB hashed again).", "ok"))


def comparison_of(artifact: Artifact) -> Comparison | None:
    """The comparison that the promotion rested on, with the rows that whoever acts may see; None without one.

    Raises:
        IntegrityError: the evidence is damaged.
        ComparisonError: it is malformed.
    """
    evidence = artifact.evidence()
    if evidence.comparison is None:
        return None
    found = Comparison.from_json(evidence.comparison)
    return with_visible_rows(dataclasses.replace(found, calls=evidence.calls, scores=evidence.scores))


def evidence(artifact: Artifact) -> Html:
    """The decision of a promotion, and how much it rests on."""
    found = artifact.evidence()
    scorers, variants = (", ".join(found.scores[name].unique(maintain_order=True)) for name in ("scorer", "variant"))
    amount = f"{counted(len(found.calls), 'call')} of {variants}, scored by {scorers}"
    sentence = (
        found.decision["sentence"] if found.decision else "There was one variant, so there was nothing to decide."
    )
    kind = {"better": "ok", "worse": "bad", "inconclusive": "warn"}.get(
        (found.decision or {}).get("outcome", ""), "info"
    )
    return Html(callout(sentence, kind) + f"<p style='opacity:.75'>{escape(amount)}</p>")  # type: ignore[arg-type]


def part(workspace: Workspace, artifact: Artifact, name: str) -> list[Any]:
    """What is shown of a version, one below the other.

    Args:
        name: of `PARTS`.

    Raises:
        IntegrityError: what is read is damaged.
    """
    layout, label = workspace.layout, f"{artifact.name}@{artifact.version}"
    if name == "Summary":
        return [artifact, integrity(artifact)]
    if name == "Lineage":
        found = workspace.lineage(label)
        return [lineage_chart(found), found]
    if name == "Evidence":
        comparison = comparison_of(artifact)
        numbers = [] if comparison is None else [difference_plot(comparison), Html(table(*comparison._cells()))]
        return [evidence(artifact), *numbers]
    if name == "Gate":
        return [gate_checks(artifact)]
    return [consents(layout, artifact.name, artifact.version), history(layout, artifact.name)]


def room(shown: Any) -> dict[str, str]:
    """The style that gives a chart its own width, so that what is around it scrolls and does not cut it off."""
    width = getattr(shown, "width", None)
    return {"min-width": f"{width + 40}px"} if isinstance(width, (int, float)) else {"min-width": "0"}


def others(layout: Layout, artifact: Artifact) -> list[str]:
    """The other versions, those of the same name first, the newest first."""
    found = sorted(versions(layout), key=lambda entry: entry.name != artifact.name)
    own = (artifact.name, artifact.version)
    return [f"{entry.name}@{entry.version}" for entry in found if (entry.name, entry.version) != own]


def gate_checks(artifact: Artifact) -> Html:
    """What the policy asked at the promotion, and what was found."""
    gate = artifact.gate
    rows = [("✓" if check["passed"] else "✗", check["name"], check["detail"]) for check in gate["checks"]]
    said = f"{counted(len(rows), 'check')} passed." if gate["passed"] else "The gate refused it."
    return Html(callout(said, "ok" if gate["passed"] else "bad") + table(("", "check", "finding"), rows))


def history(layout: Layout, name: str, version: int | None = None) -> Html:
    """Who did what under a name and when, the newest first; refusals with their reasons.

    Args:
        version: of one version only.
    """
    moves = [move for move in names.history(layout, name) if version is None or _touches(move, version)]
    rows = [(_when(move.at), move.actor, _said(move), _why(move)) for move in reversed(moves)]
    return Html(table(("when (UTC)", "who", "what", "why"), rows) if rows else callout("Nothing happened yet.", "info"))


def consents(layout: Layout, name: str, version: int) -> Html:
    """Who approved a version."""
    rows = [(who.role, who.actor, _when(who.at), who.comment) for who in approvals(layout, name, version)]
    return Html(table(("role", "who", "when (UTC)", "comment"), rows) if rows else "<p>Nobody approved it yet.</p>")


@dataclass(frozen=True)
class Differences:
    """What changed from one version to another.

    Attributes:
        diff: all but the rows.
        rows: those judged differently that whoever acts may see: row, change, and the answer of each version.
        said: whether they answer differently, and how many rows got better and worse; of all rows.
    """

    diff: ArtifactDiff
    rows: pl.DataFrame
    said: Html


def differences(layout: Layout, before: str, after: str) -> Differences:
    """What changed from one version to another; rows only where whoever acts may see the calls of both.

    Raises:
        NotFoundError: there is no such version.
        IntegrityError: what is read of one is damaged.
    """
    access.require("viewer", "compare versions")
    sides = [Artifact.open(layout, reference) for reference in (before, after)]
    found = diff(*sides)
    seen = [set(visible(side.evidence().calls)["row_id"]) for side in sides]
    rows = [row for row in found.rows if all(row.row_id in ids for ids in seen)]
    shown = {
        "row": [row.row_id for row in rows],
        "change": ["fixed" if row.after > row.before else "broke" for row in rows],
        before: [row.output_before for row in rows],
        after: [row.output_after for row in rows],
    }
    frame = pl.DataFrame(shown, schema_overrides=dict.fromkeys(shown, pl.String))
    return Differences(dataclasses.replace(found, rows=()), frame, _summed(found, len(found.rows) - len(rows)))


def _summed(found: ArtifactDiff, hidden: int) -> Html:
    parts = {
        "prompt": found.prompt,
        "settings": found.settings,
        "post-processing": found.postprocess or found.files,
        "index": found.index,
        "notebook": found.notebook,
    }
    changed = ", ".join(name for name, what in parts.items() if what)
    said = f"Changed from {found.before} to {found.after}: {changed or 'nothing that answers'}."
    if found.shared:
        said += f" Of {found.shared} rows that both were asked, {found.fixed} got better and {found.broken} got worse."
    if found.no_longer_scored or found.newly_scored:
        said += f" {len(found.no_longer_scored)} have a score no longer, {len(found.newly_scored)} have one only now."
    if hidden:
        said += f" {hidden} of these are of other tenants; they are not shown to you."
    return Html(callout(said, "info"))


def open_version(layout: Layout, reference: str) -> Artifact:
    """A version of an artifact, its manifest read and hashed.

    Raises:
        NotFoundError: there is none.
        IntegrityError: it is damaged.
    """
    artifact = Artifact.open(layout, reference)
    if not artifact.layers:
        raise IntegrityError(f"{reference} has no parts", hint="Promote the run again.")
    return artifact


def _when(at: str) -> str:
    """A time to the minute, which no line breaks."""
    return at[:16].replace("T", "\u00a0").replace("-", "\u2011")


def _touches(move: Move, version: int) -> bool:
    return version in (move.from_version, move.to_version) or move.detail.get("version") == version


def _said(move: Move) -> str:
    way = f"to version {move.to_version}"
    if move.from_version is not None:
        way = f"from version {move.from_version} {way}"
    tried = move.detail.get("version")
    onto = (f" a move of {move.alias}" if move.alias else " a promotion") + (f" to version {tried}" if tried else "")
    text = _VERBS.get(move.kind, move.kind)
    return text.format(to=move.to_version, alias=move.alias, way=way, onto=onto)


def _why(move: Move) -> str:
    detail: dict[str, Any] = dict(move.detail)
    if reasons := detail.get("reasons"):
        return "; ".join(map(str, reasons))
    if move.kind == "approve":
        return f"as {detail.get('role')}" + (f": {detail['comment']}" if detail.get("comment") else "")
    return ""
