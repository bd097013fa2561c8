"""What changed between two artifacts: prompt, settings, post-processing, environment and the evidence behind each."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from workbench.files import canonical_json, short
from workbench.html import escape, table
from workbench.pipeline.prompt import Prompt
from workbench.registry import build
from workbench.registry.artifact import Artifact
from workbench.registry.diff_rows import RowChange, ScoredOnce, changed, rows_of, scored_once

# Old and new value by name; None where that side has none.
Changes: TypeAlias = Mapping[str, tuple[Any, Any]]
# Rows that the text form shows.
SHOWN = 10


@dataclass(frozen=True)
class ArtifactDiff:
    """The changes from `before` to `after`.

    Attributes:
        prompt: unified diff of the prompts' Markdown form, a line each; empty where they are the same.
        settings: model, adapter (what its manifest says of its training), generation settings and answer schema, by
            dotted path.
        postprocess: the steps in their order, as one JSON text each side; the files of Python steps as unified diffs in
            `files`.
        environment: versions of the distributions that the runs were made with.
        index: recipe and sizes of the retrieval index, by dotted path.
        evidence: run, data set, decision, and the mean of each scorer.
        notebook: path, arguments, settings and cells of the notebooks that made the runs.
        rows: rows that both were asked and that the primary scorer judges differently, what broke first.
        no_longer_scored, newly_scored: rows that both were asked and that it scores in one of them only, as where an answer
            is an error and errors have no score. They are neither better nor worse.
        shared: how many rows both were asked.
    """

    before: str
    after: str
    prompt: tuple[str, ...]
    settings: Changes
    postprocess: Changes
    files: Mapping[str, tuple[str, ...]]
    index: Changes
    environment: Changes
    evidence: Changes
    notebook: Changes = field(default_factory=dict)
    rows: tuple[RowChange, ...] = ()
    no_longer_scored: tuple[ScoredOnce, ...] = ()
    newly_scored: tuple[ScoredOnce, ...] = ()
    shared: int = 0

    @property
    def fixed(self) -> int:
        """Rows that the second answers better."""
        return sum(row.after > row.before for row in self.rows)

    @property
    def broken(self) -> int:
        """Rows that the second answers worse."""
        return len(self.rows) - self.fixed

    def __bool__(self) -> bool:
        """Whether the artifacts answer differently; the environment, the evidence and the notebook do not count."""
        return bool(self.prompt or self.settings or self.postprocess or self.files or self.index)

    def to_json(self) -> dict[str, Any]:
        def pairs(changes: Changes) -> dict[str, dict[str, Any]]:
            return {name: {"before": old, "after": new} for name, (old, new) in changes.items()}

        return {
            "before": self.before,
            "after": self.after,
            "same_pipeline": not self,
            "prompt": list(self.prompt),
            "settings": pairs(self.settings),
            "postprocess": pairs(self.postprocess),
            "files": {name: list(lines) for name, lines in self.files.items()},
            "index": pairs(self.index),
            "environment": pairs(self.environment),
            "evidence": pairs(self.evidence),
            "notebook": pairs(self.notebook),
            "rows": {
                "shared": self.shared,
                "fixed": self.fixed,
                "broken": self.broken,
                "changed": [vars(row) for row in self.rows],
                "no_longer_scored": [vars(row) for row in self.no_longer_scored],
                "newly_scored": [vars(row) for row in self.newly_scored],
            },
        }

    def _sections(self) -> list[tuple[str, Changes]]:
        sections = [
            ("settings", self.settings),
            ("index", self.index),
            ("post-processing", self.postprocess),
            ("environment", self.environment),
            ("evidence", self.evidence),
            ("notebook", self.notebook),
        ]
        return [(title, changes) for title, changes in sections if changes]

    def _texts(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(title, lines) for title, lines in [("prompt", self.prompt), *self.files.items()] if lines]

    def __str__(self) -> str:
        lines = [f"{self.before} → {self.after}" + ("" if self else ": the same pipeline")]
        for title, text in self._texts():
            lines += ["", title, *(f"  {line}" for line in text)]
        for title, changes in self._sections():
            lines += ["", title]
            lines += [f"  {name}: {_show(old)} → {_show(new)}" for name, (old, new) in changes.items()]
        if listed := [group for group in (self.no_longer_scored, self.rows, self.newly_scored) if group]:
            lines += ["", f"rows: {self._counts()}"]
        for group in listed:
            lines += [f"  {row}" for row in group[:SHOWN]]
            lines += [f"  and {len(group) - SHOWN} more, in --json"] if len(group) > SHOWN else []
        return "\n".join(lines)

    def _counts(self) -> str:
        once = ((self.no_longer_scored, "no longer scored"), (self.newly_scored, "newly scored"))
        told = "".join(f"; {len(rows)} {'is' if len(rows) == 1 else 'are'} {what}" for rows, what in once if rows)
        return f"of {self.shared} that both were asked, {self.fixed} got better and {self.broken} got worse{told}"

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{escape(self.before)} → {escape(self.after)}</b>{'' if self else ': the same pipeline'}</p>"]
        for title, text in self._texts():
            parts.append(f"<p>{escape(title)}</p><pre style='white-space:pre-wrap'>{escape(chr(10).join(text))}</pre>")
        for title, changes in self._sections():
            rows = [(name, _show(old), _show(new)) for name, (old, new) in changes.items()]
            parts.append(table([title, self.before, self.after], rows))
        lost, gained = (
            [(row.row_id, f"{b}{row.output_before}", f"{a}{row.output_after}") for row in rows]
            for rows, b, a in ((self.no_longer_scored, "", "not scored: "), (self.newly_scored, "not scored: ", ""))
        )
        changed = [
            (row.row_id, f"{row.before:g}: {row.output_before}", f"{row.after:g}: {row.output_after}")
            for row in self.rows
        ]
        if listed := [*lost, *changed, *gained]:
            parts.append(f"<p>rows: {escape(self._counts())}</p>")
            parts.append(table(["row", self.before, self.after], listed))
        return "".join(parts)


def diff(before: Artifact, after: Artifact) -> ArtifactDiff:
    """What changed from one artifact to another.

    Raises:
        IntegrityError: a layer that is read is damaged.
    """
    names = [f"{artifact.name}@{artifact.version}" for artifact in (before, after)]
    skeletons = [json.loads(artifact.read(build.PIPELINE)) for artifact in (before, after)]
    prompts = [Prompt.model_validate_json(artifact.read(build.PROMPT)).to_text() for artifact in (before, after)]
    steps = [skeleton.pop("postprocess", []) for skeleton in skeletons]
    for artifact, skeleton in zip((before, after), skeletons, strict=True):
        del skeleton["prompt"]
        if "adapter" in skeleton:
            skeleton["adapter"] = _adapter(artifact, skeleton["adapter"])
    rows = rows_of(before, after)
    titles = sorted(t for t in {*before.layers, *after.layers} if t.startswith(build.POSTPROCESS))
    files = {title: _lines(_text(before, title), _text(after, title), *names) for title in titles}
    return ArtifactDiff(
        before=names[0],
        after=names[1],
        prompt=_lines(*prompts, *names),
        settings=changes(flat(skeletons[0]), flat(skeletons[1])),
        postprocess=changes(*({"steps": canonical_json(side).decode()} for side in steps)),
        files={title: lines for title, lines in files.items() if lines},
        index=changes(flat(_index(before)), flat(_index(after))),
        environment=changes(before.environment, after.environment),
        evidence=changes(_headline(before), _headline(after)),
        notebook=changes(_notebook(before), _notebook(after)),
        rows=changed(rows),
        no_longer_scored=scored_once(rows, now=False),
        newly_scored=scored_once(rows, now=True),
        shared=len(rows),
    )


def _headline(artifact: Artifact) -> dict[str, Any]:
    source, evidence = artifact.provenance, artifact.evidence()
    data = source["dataset"]
    scored = evidence.scores.filter(evidence.scores["variant"] == source["variant"])
    # A scorer without a single value has no mean here: None, never 0.
    means = {
        str(scorer): values["value"].mean() for (scorer,), values in scored.group_by("scorer", maintain_order=True)
    }
    return {
        "run": source["run_id"],
        "variant": source["variant"],
        "data set": f"{data['name']} ({short(data['digest'])}), split {data['split'] or 'all'}, {data['rows']} rows",
        "decision": evidence.decision["sentence"] if evidence.decision else None,
        **{f"mean {scorer}": mean for scorer, mean in sorted(means.items())},
    }


def _notebook(artifact: Artifact) -> dict[str, Any]:
    """A notebook by its parts: a cell is told by its name or id, and where it has none by its place."""
    book = artifact.notebook()
    if book is None:
        return {}
    record = book.record
    found: dict[str, Any] = {
        "path": record.path,
        "source": short(record.digest) if record.digest else f"not kept: {record.not_kept}",
        "arguments": " ".join(record.arguments),
        **{f"app.{name}": value for name, value in record.app.items()},
    }
    for number, cell in enumerate(record.cells, 1):
        name = cell.get("name", cell.get("id"))
        label = f"cell {number}" if name in (None, "_") else f"cell {name}"
        config = ", ".join(f"{key}={value}" for key, value in sorted((cell.get("config") or {}).items()))
        found[label] = short(cell["digest"]) + (f" ({config})" if config else "")
    return found


def _adapter(artifact: Artifact, digest: str) -> dict[str, Any]:
    manifest = json.loads(artifact.read(build.ADAPTER_MANIFEST))
    told = ("name", "recipe_digest", "quantization", "rank", "alpha", "target_modules", "metrics")
    return {"digest": digest, **{field: manifest[field] for field in told}}


def _index(artifact: Artifact) -> dict[str, Any]:
    """What an index was built by, and its sizes; nothing where there is none."""
    if build.INDEX not in artifact.layers:
        return {}
    manifest = json.loads(artifact.read(build.INDEX))
    # `corpus_digest` and `documents` say that documents changed; which, the corpus says.
    del manifest["corpus_documents"]
    return {**manifest, "bytes of chunks": artifact.layers[build.CHUNKS].size}


def _text(artifact: Artifact, title: str) -> str:
    return artifact.read(title).decode() if title in artifact.layers else ""


def _lines(old: str, new: str, before: str, after: str) -> tuple[str, ...]:
    return tuple(difflib.unified_diff(old.splitlines(), new.splitlines(), before, after, lineterm=""))


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, by dotted path."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, dict) and value else {path: value}
    return found


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """What differs, by name: the old and the new value."""
    names = [*old, *(name for name in new if name not in old)]
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _show(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
