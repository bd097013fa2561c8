"""Lineage of an artifact: what it came from, and what points at it.

An artifact is asked itself: its provenance, its run, its adapter and its index are layers, hashed when they are read. The
workspace adds the names, the history of the aliases and the trainings. What an artifact names and the workspace does not
have, as after a pull, is in the lineage and marked.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from workbench.errors import IntegrityError
from workbench.files import short
from workbench.registry import build, names
from workbench.registry.approvals import approvals
from workbench.registry.artifact import Artifact
from workbench.registry.lineage_graph import Draft, Lineage, Node
from workbench.registry.lineage_sources import Sources
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.finetune.record import TrainingRecord


def lineage(layout: Layout, reference: str, trainings: Sequence[TrainingRecord] = ()) -> Lineage:
    """What an artifact came from (data, models, training, index, run, decision) and what points at it.

    Args:
        reference: `NAME`, `NAME@3`, `NAME@ALIAS` or `NAME@sha256:…`.
        trainings: of the workspace (`finetune.record.list_trainings`); without them an adapter's data are not told.

    Raises:
        NotFoundError: no such artifact.
        IntegrityError: what is read of it is damaged; names it. Other artifacts that are damaged are in `damaged`.
    """
    sources, draft = Sources(layout, trainings), Draft()
    artifact = Artifact.open(layout, reference)
    found = names.resolve(layout, f"{artifact.name}@{artifact.version}")
    carried, node = sources.carried(found), draft.add(sources.artifact(found))
    try:
        _add_evidence(sources, draft, artifact, node)
        if carried.adapter is not None:
            _add_adapter(sources, draft, node, _document(artifact, build.ADAPTER_MANIFEST), carried.adapter)
        if carried.index is not None:
            _add_index(draft, node, _document(artifact, build.INDEX), carried.index)
    except IntegrityError as error:
        raise IntegrityError(f"{node.label}: {error.message}", hint=error.hint) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{node.label}: its evidence is malformed ({error!r})", hint="Promote it again.") from None
    sources.add_aliases(draft, found, node)
    sources.add_served(draft, node)
    _add_people(sources, draft, found, node)
    return draft.finish(node.label, [node], tuple(sources.damaged.values()))


def _document(artifact: Artifact, title: str) -> dict[str, Any]:
    return dict(json.loads(artifact.read(title)))


def _add_evidence(sources: Sources, draft: Draft, artifact: Artifact, node: Node) -> None:
    """The run with its rows and models, the decision, what else was compared, and the calls."""
    source = artifact.provenance
    data, variant, model = source["dataset"], source["variant"], source["model"]
    run = draft.add(sources.run(source))
    draft.link(
        run, "evaluated on", sources.dataset(data["name"], data["digest"], split=data["split"], rows=data["rows"])
    )
    draft.link(run, "asked", sources.model(model["name"], model["digest"], model))
    gate = artifact.gate
    facts: dict[str, Any] = {
        "variant": variant,
        "baseline": source["baseline"],
        "policy_digest": gate.get("policy_digest"),
        "checks": [f"{check['name']}: {check['detail']}" for check in gate.get("checks", ())],
    }
    if build.DECISION in artifact.layers:
        decided = _document(artifact, build.DECISION)
        label = str(decided["outcome"])
        facts |= {"sentence": decided["sentence"]}
    else:
        label = "single variant"
    over = f"{variant} over {source['baseline']}" if source["baseline"] else str(variant)
    decision = draft.add(Node("decision", artifact.digest, label, over, facts))
    draft.link(decision, "drawn from", run)
    draft.link(node, "let in by", decision)

    calls = pl.read_parquet(io.BytesIO(artifact.read(build.CALLS)))
    own = calls.filter(pl.col("variant") == variant)
    counts = {
        "calls": len(own),
        "errors": int(own["error_kind"].is_not_null().sum()),
        "tokens_in": int(own["tokens_in"].sum()),
        "tokens_out": int(own["tokens_out"].sum()),
        "first": own["started_at"].min(),
        "last": own["started_at"].max(),
        "from": "evidence",
    }
    draft.link(Node("calls", artifact.digest, f"{len(own):,} calls", "in evidence", counts), "answered by", node)
    if build.RUN in artifact.layers:
        _add_compared(sources, draft, run, artifact, _document(artifact, build.RUN)["pipeline_digests"])


def _add_compared(sources: Sources, draft: Draft, run: Node, artifact: Artifact, digests: Mapping[str, str]) -> None:
    """Other variants of the run that are the pipelines of registered versions.

    Where several have the pipeline: the newest of the same name from before this one, else of another.
    """
    wanted = {digest: name for name, digest in digests.items() if name != artifact.provenance["variant"]}
    same: dict[str, list[names.NamedVersion]] = {}
    for version, carried in sources.readable() if wanted else ():
        for digest in {*carried.pipelines} & wanted.keys():
            if version.digest != artifact.digest:
                same.setdefault(digest, []).append(version)

    def rank(version: names.NamedVersion) -> tuple[bool, bool, str, int]:
        before = (version.created_at, version.version) <= (artifact.created_at, artifact.version)
        return before, version.name == artifact.name, version.created_at, version.version

    for digest, versions in same.items():
        best = sources.artifact(max(versions, key=rank))
        draft.link(run, f"compared as {wanted[digest]} with", best)


def _add_adapter(sources: Sources, draft: Draft, node: Node, manifest: Mapping[str, Any], digest: str) -> None:
    adapter = draft.add(sources.adapter(digest, manifest))
    draft.link(node, "carries", adapter)
    record = sources.training_of(digest)
    if record is not None:
        draft.link(adapter, "made by", sources.add_training(draft, record))
        _add_earlier_trainings(sources, draft, record)
        return
    facts = {"recipe_digest": manifest["recipe_digest"], "metrics": manifest["metrics"]}
    training = Node("training", f"of {digest}", f"of {manifest['name']}", "", facts, here=False)
    draft.link(adapter, "made by", training)
    draft.link(training, "started from", sources.model(manifest["base"], manifest["base_digest"]))


def _add_earlier_trainings(sources: Sources, draft: Draft, record: TrainingRecord) -> None:
    """The trainings of the adapters that a training started from, one after another."""
    seen = {record.id}
    while record.recipe.adapter is not None:
        adapter = sources.adapter(record.recipe.adapter)
        earlier = sources.training_of(record.recipe.adapter)
        if earlier is None or earlier.id in seen:
            return
        draft.link(adapter, "made by", sources.add_training(draft, earlier))
        seen.add(earlier.id)
        record = earlier


def _add_index(draft: Draft, node: Node, manifest: Mapping[str, Any], digest: str) -> None:
    sizes = {name: manifest[name] for name in ("documents", "chunks", "characters", "dimensions")}
    index = Node("index", digest, str(manifest["name"]), f"{manifest['chunks']:,} chunks", sizes)
    draft.link(node, "searches", index)
    corpus = {"digest": manifest["corpus_digest"], "documents": manifest["documents"]}
    draft.link(
        index,
        "built from",
        Node(
            "corpus",
            manifest["corpus_digest"],
            manifest["corpus"],
            f"{manifest['documents']:,} documents",
            corpus,
            None,
        ),
    )
    embedder = manifest["embedder_digest"]
    draft.link(index, "embedded by", Node("model", embedder, manifest["embedder"], short(embedder), {}, None))


def _add_people(sources: Sources, draft: Draft, found: names.NamedVersion, node: Node) -> None:
    """Who approved the version, and what was refused to it or to its run before; what was refused alike is one node."""
    for consent in approvals(sources.layout, found.name, found.version):
        id = f"{node.label}:{consent.role}:{consent.actor}"
        facts = {"at": consent.at, "comment": consent.comment}
        draft.link(Node("approval", id, consent.actor, f"as {consent.role}", facts), "approves", node)
    source = sources.carried(found).provenance
    alike: dict[tuple[str, ...], list[names.Move]] = {}
    for move in names.history(sources.layout, found.name):
        if move.kind != "refuse":
            continue
        of_run = (move.detail.get("run_id"), move.detail.get("variant")) == (source["run_id"], source["variant"])
        if move.detail.get("version", found.version if of_run else None) == found.version:
            label = f"{found.name}@{move.alias}" if move.alias else found.name
            alike.setdefault((label, *map(str, move.detail.get("reasons", ()))), []).append(move)
    for (label, *reasons), moves in alike.items():
        last = moves[-1]
        said: dict[str, Any] = {"at": last.at, "by": last.actor, "reasons": reasons}
        note = last.at[:10]
        if len(moves) > 1:
            said |= {"times": len(moves), "first_at": moves[0].at}
            note = f"×{len(moves)}, last {note}"
        draft.link(Node("refusal", str(last.seq), label, note, said), "refused", node)
