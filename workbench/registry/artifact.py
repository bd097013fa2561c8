"""Artifact: a promoted pipeline with its evidence, read back by digest and hashed again on each load."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from workbench.errors import IntegrityError
from workbench.experiments.notebook_source import NotebookSource, call_text
from workbench.files import short
from workbench.html import table
from workbench.pipeline.pipeline import Pipeline
from workbench.registry import build, names
from workbench.registry.oci import Descriptor, OciLayout
from workbench.workspace import Layout, current_layout

if TYPE_CHECKING:
    from workbench.experiments.run import Run

REQUIRED = (build.PIPELINE, build.PROMPT, build.CALLS, build.SCORES, build.GATE, build.ENVIRONMENT, build.PROVENANCE)


@dataclass(frozen=True)
class BlobCheck:
    """Whether one blob of an artifact still has the bytes that its digest says. `error` is None where it has."""

    title: str
    digest: str
    size: int
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


class Evidence(NamedTuple):
    """What a promotion rested on; `decision` and `comparison` are None where the run had a single variant."""

    calls: pl.DataFrame
    scores: pl.DataFrame
    decision: dict[str, Any] | None
    comparison: dict[str, Any] | None


class Artifact:
    """One immutable artifact. What it reads, it hashes; nothing that fails is ever used.

    Attributes:
        digest: of the manifest; it covers every byte of the artifact.
        name, version, aliases: as they were when this object was made.
        created_at: when the name was given, ISO 8601 UTC.
    """

    def __init__(self, store: OciLayout, found: names.NamedVersion, layout: Layout | None = None) -> None:
        self.store = store
        self._layout = layout
        self.name = found.name
        self.version = found.version
        self.digest = found.digest
        self.aliases = found.aliases
        self.created_at = found.created_at

    @classmethod
    def open(cls, layout: Layout, reference: str) -> Artifact:
        """The artifact that `NAME`, `NAME@3`, `NAME@ALIAS` or `NAME@sha256:…` means.

        Raises:
            NotFoundError: there is no such artifact.
        """
        return cls(OciLayout(layout.blobs), names.resolve(layout, reference), layout)

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The OCI manifest.

        Raises:
            IntegrityError: it is missing, damaged, or not the manifest of an artifact.
        """
        manifest = json.loads(self.store.read_blob(self.digest, title="manifest"))
        if not isinstance(manifest, dict) or manifest.get("artifactType") != build.ARTIFACT_TYPE:
            raise IntegrityError(f"{self.digest} is not a workbench artifact", hint="Promote a run to make one.")
        return manifest

    @cached_property
    def config(self) -> Descriptor:
        """The descriptor of the model configuration."""
        return Descriptor.from_json(self.manifest.get("config"))

    @cached_property
    def layers(self) -> Mapping[str, Descriptor]:
        """Layers by file name.

        Raises:
            IntegrityError: a layer that every artifact has is not listed.
        """
        layers = {layer.title: layer for layer in map(Descriptor.from_json, self.manifest.get("layers", ()))}
        if missing := [title for title in REQUIRED if title not in layers]:
            raise IntegrityError(f"{self._label} has no {', '.join(missing)}", hint="Promote the run again.")
        return layers

    def check(self) -> tuple[BlobCheck, ...]:
        """Hash the manifest, the configuration and every layer again. The check of what cannot be found is an error."""
        try:
            blobs = [("config", self.config), *sorted(self.layers.items())]
            size = self.store.check_blob(self.digest, title="manifest")
        except IntegrityError as error:
            return (BlobCheck("manifest", self.digest, 0, error.message),)
        checks = [BlobCheck("manifest", self.digest, size)]
        for title, blob in blobs:
            try:
                self.store.check_blob(blob.digest, title=title)
                checks.append(BlobCheck(title, blob.digest, blob.size))
            except IntegrityError as error:
                checks.append(BlobCheck(title, blob.digest, blob.size, error.message))
        return tuple(checks)

    def verify(self, checks: tuple[BlobCheck, ...] | None = None) -> tuple[BlobCheck, ...]:
        """As `check`, but damage is an exception.

        Args:
            checks: what `check` has just found, so as not to hash it all again.

        Raises:
            IntegrityError: names every layer that is damaged, with its file.
        """
        checks = self.check() if checks is None else checks
        if damaged := [check.error for check in checks if check.error]:
            raise IntegrityError(
                f"{self._label}: {'; '.join(damaged)}", hint="Restore it from a copy, or promote the run again."
            )
        return checks

    def read(self, title: str) -> bytes:
        """One layer's bytes, hashed again.

        Raises:
            IntegrityError: damaged, missing, or not part of the artifact.
        """
        if title not in self.layers:
            raise IntegrityError(f"{self._label} has no {title}", hint=f"It has: {', '.join(sorted(self.layers))}.")
        return self.store.read_blob(self.layers[title].digest, title=title)

    def pipeline(self) -> Pipeline:
        """The pipeline, after verifying the whole artifact. It answers only with the model it was evaluated with.

        Raises:
            IntegrityError: any byte of the artifact has changed.
            PipelineError: this version of the workbench cannot read it.
        """
        self.verify()
        parts = {title: self.read(title) for title in self.layers if title == build.PROMPT or _is_step(title)}
        pipeline = Pipeline.join(json.loads(self.read(build.PIPELINE)), parts)
        if pipeline.digest != self.provenance["stored_pipeline_digest"]:
            raise IntegrityError(
                f"{self._label}: this workbench reads the pipeline differently from the one that stored it",
                hint="Use the version of llmops-workbench that environment.lock names.",
            )
        files = {title: self.read(title) for title in self.layers if title.startswith(build.PARTS)}
        build.publish_parts(self._layout or current_layout(), pipeline, files)
        return pipeline

    def evidence(self) -> Evidence:
        """The rows and the verdict that the promotion rested on.

        Raises:
            IntegrityError: one of them is damaged.
        """
        return Evidence(
            pl.read_parquet(io.BytesIO(self.read(build.CALLS))),
            pl.read_parquet(io.BytesIO(self.read(build.SCORES))),
            self.decision,
            self._document(build.COMPARISON),
        )

    def notebook(self) -> NotebookSource | None:
        """The notebook or experiment file that made the run, with its cells and arguments; None where none was kept.

        Raises:
            IntegrityError: damaged, or not the one that is named.
        """
        if build.NOTEBOOK not in self.layers:
            return None
        sources = {title: self.read(title) for title in build.NOTEBOOK_SOURCES if title in self.layers}
        return NotebookSource.read(self.read(build.NOTEBOOK), sources, self._label)

    def run(self) -> Run:
        """The run that the artifact was promoted from, of its own evidence: the workspace's runs are not read.

        Raises:
            IntegrityError: a part is damaged, or was never stored.
        """
        from workbench.experiments.records import RunManifest
        from workbench.experiments.run import Run

        evidence = self.evidence()
        return Run.of(RunManifest.model_validate_json(self.read(build.RUN)), evidence.calls, evidence.scores)

    @property
    def provenance(self) -> dict[str, Any]:
        """Run, data set, model, notebook, commit and command."""
        return dict(json.loads(self.read(build.PROVENANCE)))

    @property
    def decision(self) -> dict[str, Any] | None:
        """The decision that the promotion rested on; None where the run had a single variant."""
        return self._document(build.DECISION)

    @property
    def gate(self) -> dict[str, Any]:
        """The policy and the checks that let the artifact in."""
        return dict(json.loads(self.read(build.GATE)))

    @property
    def environment(self) -> dict[str, str]:
        """Version of each distribution that the run was made with."""
        lines = self.read(build.ENVIRONMENT).decode().splitlines()
        pins = [line.partition("==") for line in lines if not line.startswith("#")]
        return {name: version for name, _, version in pins}

    def to_json(self) -> dict[str, Any]:
        """What `artifact show --json` prints."""
        book = self.notebook()
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "aliases": list(self.aliases),
            "created_at": self.created_at,
            "layers": [layer.to_json() for _, layer in sorted(self.layers.items())],
            "provenance": self.provenance,
            "notebook": book.record.to_json() if book else None,
            "decision": self.decision,
            "gate": self.gate,
        }

    def summary(self) -> list[tuple[str, str]]:
        """The lines that people read first, as (name, text)."""
        source = self.provenance
        data, decision = source["dataset"], self.decision
        commit = source["git_commit"]
        return [
            ("digest", self.digest),
            ("aliases", ", ".join(self.aliases) or "none"),
            ("decision", decision["sentence"] if decision else "none: the run had a single variant"),
            ("run", f"{source['run_id']}, variant {source['variant']} over {source['baseline'] or 'nothing'}"),
            ("model", f"{source['model']['name']} ({short(source['model']['digest'])})"),
            (
                "data set",
                f"{data['name']} ({short(data['digest'])}), split {data['split'] or 'all'}, {data['rows']} rows",
            ),
            ("notebook", _told(source["notebook"], self.notebook())),
            ("commit", f"{commit}{' with uncommitted changes' if source['git_dirty'] else ''}" if commit else "none"),
        ]

    def __repr__(self) -> str:
        return f"Artifact({self._label})"

    def _repr_html_(self) -> str:
        return table(["", f"{self.name}@{self.version}"], self.summary())

    @property
    def _label(self) -> str:
        return f"{self.name}@{self.version} ({short(self.digest)})"

    def _document(self, title: str) -> dict[str, Any] | None:
        return dict(json.loads(self.read(title))) if title in self.layers else None


def _told(named: str | None, book: NotebookSource | None) -> str:
    """The notebook of a run in one line: whether it is in the artifact, and with which arguments it makes the run."""
    if book is None:
        return f"{named}, not kept" if named else "none"
    if book.source is None:
        return f"{book.record.path}, not kept: {book.record.not_kept}"
    return call_text(book.record.path, book.record.arguments)


def _is_step(title: str) -> bool:
    return title.startswith(build.POSTPROCESS)
