"""What a workspace holds that a lineage is made of, each thing read once and as a node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.errors import IntegrityError
from workbench.files import short
from workbench.registry import build, names
from workbench.registry.artifact import Artifact
from workbench.registry.lineage_data import DatasetHistory
from workbench.registry.lineage_graph import Draft, Node
from workbench.registry.lineage_served import ServedCalls, served_calls
from workbench.registry.oci import OciLayout
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.finetune.record import TrainingRecord


@dataclass(frozen=True)
class Carried:
    """What an artifact says of where it comes from; `adapter` and `index` are digests."""

    provenance: Mapping[str, Any]
    adapter: str | None
    index: str | None

    @property
    def pipelines(self) -> tuple[str, str]:
        """Digests of its pipeline: as the run evaluated it, and held to the model's digest, as it is taken out again."""
        return self.provenance["pipeline_digest"], self.provenance["stored_pipeline_digest"]


class Sources:
    """A workspace as a lineage sees it.

    Args:
        trainings: records of the trainings of the workspace.
    """

    def __init__(self, layout: Layout, trainings: Sequence[TrainingRecord] = ()) -> None:
        self.layout = layout
        self.trainings = trainings
        self.damaged: dict[str, str] = {}
        self._store = OciLayout(layout.blobs)
        self._carried: dict[str, Carried] = {}
        self._histories: dict[str, DatasetHistory] = {}
        self._pointers: dict[str, dict[int, dict[str, dict[str, Any]]]] = {}

    @cached_property
    def versions(self) -> tuple[names.NamedVersion, ...]:
        return names.ls(self.layout)

    @cached_property
    def runs(self) -> frozenset[str]:
        """Ids of the runs here."""
        folders = self.layout.runs.iterdir() if self.layout.runs.is_dir() else ()
        return frozenset(folder.name for folder in folders if (folder / "run.json").is_file())

    def history(self, name: str) -> DatasetHistory:
        return self._histories.setdefault(name, DatasetHistory(self.layout, name))

    def carried(self, found: names.NamedVersion) -> Carried:
        """What an artifact carries, hashed again the first time.

        Raises:
            IntegrityError: what is read of it is damaged; names the artifact and the file.
        """
        if found.digest not in self._carried:
            artifact = Artifact(self._store, found, self.layout)
            try:
                skeleton, source = json.loads(artifact.read(build.PIPELINE)), artifact.provenance
                # Those that everything here relies on.
                _ = source["run_id"], source["variant"], source["model"]["digest"], source["experiment"]
                _ = [source["dataset"][field] for field in ("name", "digest", "split", "rows")]
                one = Carried(source, skeleton.get("adapter"), (skeleton.get("retrieval") or {}).get("index"))
                _ = one.pipelines
            except IntegrityError as error:
                raise IntegrityError(f"{found.name}@{found.version}: {error.message}", hint=error.hint) from None
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise IntegrityError(
                    f"{found.name}@{found.version}: its provenance is malformed ({error!r})",
                    hint="Promote the run again.",
                ) from None
            self._carried[found.digest] = one
        return self._carried[found.digest]

    def readable(self) -> list[tuple[names.NamedVersion, Carried]]:
        """Every version of every artifact that can be read; `damaged` has the others."""
        found = []
        for version in self.versions:
            try:
                found.append((version, self.carried(version)))
            except IntegrityError as error:
                self.damaged[f"{version.name}@{version.version}"] = error.message
        return found

    def dataset(self, name: str, digest: str, *, split: str | None = None, rows: int | None = None) -> Node:
        """The rows that a run or a training names, as a version of the data set where that is known here."""
        found = self.history(name).find(digest)
        facts: dict[str, Any] = {"name": name, "digest": digest, "split": split, "rows": rows}
        if found is None:
            label = f"{name} {split}" if split else name
            return Node("dataset", digest, label, _rows(rows), facts, here=False)
        facts |= {"version": found.version, "split": split or found.split, "part": found.part, "rows": found.rows}
        return Node("dataset", digest, found.label, _rows(found.rows), facts, here=found.here)

    def run(self, fields: Mapping[str, Any]) -> Node:
        """A run by its manifest, or by what an artifact says of it."""
        told = ("experiment", "notebook", "git_commit", "git_dirty", "started_at", "finished_at", "primary")
        facts = {name: fields.get(name) for name in told} | {"command": " ".join(fields.get("command") or ())}
        id = str(fields["run_id"])
        return Node("run", id, id, str(fields["experiment"]), facts, here=id in self.runs)

    def artifact(self, found: names.NamedVersion) -> Node:
        facts = {"digest": found.digest, "created_at": found.created_at, "decision": found.decision}
        label = f"{found.name}@{found.version}"
        return Node("artifact", label, label, short(found.digest), facts)

    def adapter(self, digest: str, manifest: Mapping[str, Any] | None = None) -> Node:
        """An adapter, by its manifest where an artifact carries it."""
        training = self.training_of(digest)
        told = ("base", "base_digest", "recipe_digest", "quantization", "rank", "alpha", "metrics")
        facts = {name: manifest[name] for name in told} if manifest else {}
        name = str(manifest["name"]) if manifest else training.name if training else "adapter"
        folder = self.layout.adapters / digest.removeprefix("sha256:")
        return Node("adapter", digest, name, short(digest), facts, here=manifest is not None or folder.is_dir())

    def training_of(self, adapter: str) -> TrainingRecord | None:
        """The newest training here that came to this adapter."""
        found = [record for record in self.trainings if record.adapter == adapter]
        return max(found, key=lambda record: record.started_at, default=None)

    def add_training(self, draft: Draft, record: TrainingRecord) -> Node:
        """Add a training with the rows and the model that it saw."""
        told = ("started_at", "finished_at", "stopped", "steps", "dev_loss", "device", "quantization", "seconds")
        facts = {name: getattr(record, name) for name in told}
        recipe = record.recipe
        facts |= {"recipe": recipe.name, "recipe_digest": recipe.digest}
        node = draft.add(Node("training", record.id, record.name, f"{record.step} steps", facts))
        for word, digest, split, rows in (
            ("trained on", record.train_digest, recipe.train, record.train_rows),
            ("chosen on", record.dev_digest, recipe.dev, record.dev_rows),
        ):
            draft.link(node, word, self.dataset(dataset_name(record), digest, split=split, rows=rows))
        draft.link(node, "started from", self.model(recipe.model, record.base_digest))
        if recipe.adapter is not None:
            draft.link(node, "started from", self.adapter(recipe.adapter))
        return node

    def model(self, name: str, digest: str, facts: Mapping[str, Any] | None = None) -> Node:
        return Node("model", digest, name, short(digest), dict(facts or {}), here=None)

    def add_aliases(self, draft: Draft, found: names.NamedVersion, artifact: Node) -> None:
        """Add every alias that points at a version or once did, with who moved it there, when, and until when."""
        pointers = self._pointers_of(found.name).get(found.version, {})
        for alias in dict.fromkeys((*found.aliases, *pointers)):
            facts, now = pointers.get(alias, {}), alias in found.aliases
            note = "now" if now else f"until {str(facts.get('until', ''))[:10]}"
            label = f"{found.name}@{alias}"
            # One node a version: where an alias points now and where it pointed are two things to say.
            node = Node("alias", alias_id(artifact.label, alias), label, note, {**facts, "now": now})
            draft.link(node, "points at" if now else "pointed at", artifact)

    @cached_property
    def served(self) -> Mapping[str, ServedCalls]:
        """What was served, by `NAME@VERSION`; `damaged` has what could not be read."""
        found, problems = served_calls(self.layout)
        self.damaged |= problems
        return found

    def add_served(self, draft: Draft, artifact: Node) -> None:
        """Add the calls that a version was served to, if there are any: under it, and under the aliases they asked for."""
        found = self.served.get(artifact.label)
        if found is None:
            return
        node = Node("served", artifact.label, found.told, f"last {found.last}", found.facts())
        for alias, calls in found.by_alias.items():
            # Of an alias that never pointed at it nothing is known, as where the calls are those of a bundle.
            known = draft.nodes.get(f"alias:{alias_id(artifact.label, alias)}")
            if known is not None:
                word = "asked for" if calls == found.calls else f"{calls:,} of them asked for"
                draft.link(node, word, known)
        draft.link(node, "answered by", artifact)

    def _pointers_of(self, name: str) -> dict[int, dict[str, dict[str, Any]]]:
        """For each version the aliases that ever pointed at it, and when it was the last time."""
        if name not in self._pointers:
            pointers = self._pointers[name] = {}
            for move in names.history(self.layout, name):
                if move.kind not in ("alias", "rollback") or move.alias is None or move.to_version is None:
                    continue
                if move.from_version is not None:
                    pointers.setdefault(move.from_version, {}).setdefault(move.alias, {})["until"] = move.at
                said = {"since": move.at, "by": move.actor, "how": move.kind}
                pointers.setdefault(move.to_version, {})[move.alias] = said
        return self._pointers[name]


def alias_id(artifact: str, alias: str) -> str:
    """What an alias is known by as a pointer at one version, `NAME@VERSION`."""
    name, _, version = artifact.rpartition("@")
    return f"{name}@{alias}={version}"


def dataset_name(record: TrainingRecord) -> str:
    """The data set of a training; a recipe may name a version of it."""
    return record.recipe.dataset.partition("@")[0]


def _rows(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,} rows"
