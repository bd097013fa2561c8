"""Lineage of a data set: which trainings, adapters, runs, artifacts and aliases used it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.data.spec import NAME
from workbench.errors import UsageError
from workbench.registry.lineage_data import Rows, no_dataset
from workbench.registry.lineage_graph import Draft, Lineage, Node
from workbench.registry.lineage_sources import Sources, dataset_name
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.finetune.record import TrainingRecord


def lineage_of_dataset(layout: Layout, reference: str, trainings: Sequence[TrainingRecord] = ()) -> Lineage:
    """What used a data set, to train or to evaluate: trainings, adapters, runs, artifacts and aliases, now and before.

    Rows are known by their content digest, so that a split which two versions have in common is used where either is.

    Args:
        reference: `NAME` (every version of it), `NAME@3`, or `NAME@sha256:…` (six digits or more of the digest of a
            version or of a part of one).
        trainings: of the workspace (`finetune.record.list_trainings`).

    Raises:
        NotFoundError: no such data set or version, and nothing that used one.
        UsageError: not the name of a data set.
        RunError: the record of a run is malformed.
    """
    from workbench.experiments.run import list_runs

    name, _, wanted = reference.partition("@")
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not the name of a data set", hint="Write NAME, NAME@VERSION or NAME@sha256:…")
    sources, draft = Sources(layout, trainings), Draft()
    history = sources.history(name)
    known = history.matching(wanted)
    prefix = wanted.removeprefix("sha256:")

    def uses(dataset: str, digest: str) -> bool:
        # A version that is not here is known by what names it, on its name and the beginning of its digest.
        named = dataset == name and (not wanted or (len(prefix) >= 6 and not known and digest[7:].startswith(prefix)))
        return digest in known or named

    def rows(dataset: str, digest: str, split: str | None, count: int) -> Node:
        found = known.get(digest)
        return sources.dataset(dataset, digest, split=split, rows=count) if found is None else _rows_node(found)

    adapters = _add_trainings(sources, draft, uses, rows)
    for run in list_runs(layout):
        _add_run(sources, draft, dict(run.manifest), uses, rows, adapters)
    for version, carried in sources.readable():
        source = carried.provenance
        data = source["dataset"]
        evaluated, adapter = uses(data["name"], data["digest"]), adapters.get(carried.adapter or "")
        if not evaluated and adapter is None:
            continue
        node, run_node = draft.add(sources.artifact(version)), draft.add(sources.run(source))
        draft.link(node, "promoted from", run_node)
        if evaluated:
            draft.link(run_node, "evaluated on", rows(data["name"], data["digest"], data["split"], data["rows"]))
        if adapter is not None:
            draft.link(node, "carries", adapter)
        sources.add_aliases(draft, version, node)
        sources.add_served(draft, node)
    focus = [node for node in draft.nodes.values() if node.kind == "dataset"]
    if not focus and not known:
        raise no_dataset(history, wanted)
    # Versions of which nothing was used are told too.
    told = {node.facts.get("version") for node in focus}
    alone = [one for one in known.values() if not focus and len(known) == 1]
    idle = [one for one in known.values() if not one.part and one.version not in told]
    focus += [draft.add(_rows_node(one)) for one in alone or idle]
    return draft.finish(reference, focus, tuple(sources.damaged.values()))


def _add_trainings(
    sources: Sources, draft: Draft, uses: Callable[[str, str], bool], rows: Callable[[str, str, str | None, int], Node]
) -> dict[str, Node]:
    """Add the trainings that saw the rows, and those that started from what these came to; adapters by their digest."""
    adapters: dict[str, Node] = {}
    for record in sorted(sources.trainings, key=lambda record: (record.started_at, record.id)):
        name, recipe = dataset_name(record), record.recipe
        facts = {"recipe_digest": recipe.digest, "started_at": record.started_at, "stopped": record.stopped}
        node = Node("training", record.id, record.name, f"{record.step} steps", facts)
        seen = False
        for word, digest, split, count in (
            ("trained on", record.train_digest, recipe.train, record.train_rows),
            ("chosen on", record.dev_digest, recipe.dev, record.dev_rows),
        ):
            if uses(name, digest):
                draft.link(node, word, rows(name, digest, split, count))
                seen = True
        if recipe.adapter in adapters:
            draft.link(node, "started from", adapters[recipe.adapter])
            seen = True
        if seen and record.adapter is not None:
            adapters[record.adapter] = draft.add(sources.adapter(record.adapter))
            draft.link(adapters[record.adapter], "made by", node)
    return adapters


def _add_run(
    sources: Sources,
    draft: Draft,
    fields: Mapping[str, Any],
    uses: Callable[[str, str], bool],
    rows: Callable[[str, str, str | None, int], Node],
    adapters: Mapping[str, Node],
) -> None:
    node = sources.run(fields)
    if uses(fields["dataset"], fields["dataset_digest"]):
        draft.link(
            node, "evaluated on", rows(fields["dataset"], fields["dataset_digest"], fields["split"], fields["rows"])
        )
    for pipeline in fields["variants"].values():
        if pipeline.get("adapter") in adapters:
            draft.link(node, "asked", adapters[pipeline["adapter"]])


def _rows_node(rows: Rows) -> Node:
    facts = {"name": rows.name, "version": rows.version, "split": rows.split, "part": rows.part, "rows": rows.rows}
    return Node(
        "dataset", rows.digest, rows.label, f"{rows.rows:,} rows", {**facts, "digest": rows.digest}, here=rows.here
    )
