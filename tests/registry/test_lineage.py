"""Where an artifact comes from, and what used a data set: of an adapter and an index too, after a pull, and after damage."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.models.tiny import hollow_adapter
from tests.registry.conftest import CLEAR, MakeRun, pipelines, write_run
from tests.registry.test_aliases import with_roles, write_policy
from tests.retrieval.words_embedder import WordsEmbedder
from workbench import api
from workbench.cli.data import app as data_app
from workbench.cli.registry import artifact_app
from workbench.data.dataset import Dataset
from workbench.data.store import import_dataset, snapshot
from workbench.data.versions import history_folder
from workbench.errors import GateRefused, IntegrityError, NotFoundError, UsageError
from workbench.files import digest_json
from workbench.finetune.recipe import FinetuneRecipe
from workbench.finetune.record import Training, TrainingRecord, list_trainings
from workbench.models.adapters import AdapterFolder
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.pipeline.retrieval import Retrieval
from workbench.registry import build, names
from workbench.registry.aliases import move_alias
from workbench.registry.approvals import approve
from workbench.registry.artifact import Artifact
from workbench.registry.lineage import lineage
from workbench.registry.lineage_graph import SHOWN, Draft, Lineage, Node
from workbench.registry.lineage_uses import lineage_of_dataset
from workbench.registry.oci import OciLayout
from workbench.registry.promote import promote
from workbench.retrieval.corpus import Corpus
from workbench.retrieval.index import Index
from workbench.retrieval.recipe import IndexRecipe
from workbench.retrieval.types import Document
from workbench.workspace import Layout

CORPUS = Corpus("handbook", tuple(Document(f"d{n}", f"chapter {n} is about word{n}") for n in range(6)))


def import_greetings(layout: Layout, *, extra: str = "", replace: bool = False) -> Dataset:
    """Sixty rows, a third of them in each split; `extra` is put into every row of the train split."""
    source = layout.root / "greetings.jsonl"
    lines = []
    for n in range(60):
        part = ("train", "dev", "test")[n % 3]
        text = f"message {n}{extra if part == 'train' else ''}"
        lines.append(json.dumps({"id": f"row-{n:03}", "text": text, "label": "yes", "part": part}) + "\n")
    source.write_text("".join(lines))
    columns: dict[str, Any] = {"input": ("text",), "target": ("label",), "id": "id", "split_column": "part"}
    return import_dataset(layout, source, "greetings", replace=replace, **columns)


def evaluated_on(dataset: Dataset) -> dict[str, Any]:
    """Fields of a run on these rows."""
    return {"dataset": dataset.name, "dataset_digest": dataset.digest, "split": dataset.split_name}


def record_training(
    layout: Layout, data: Dataset, adapter: AdapterFolder, *, id: str = "t1", start: str | None = None
) -> TrainingRecord:
    """The record of a training on the train and the dev split of `data` that came to `adapter`."""
    recipe = FinetuneRecipe(
        name="tuned", dataset=data.name, model="tiny", prompt=Prompt.from_text("{{ text }}"), adapter=start
    )
    record = TrainingRecord(
        id=id,
        name="tuned",
        recipe=recipe,
        train_digest=data.split("train").digest,
        dev_digest=data.split("dev").digest,
        base_digest=digest_json("the weights of tiny"),
        train_rows=20,
        dev_rows=20,
        steps=12,
        step=12,
        quantization="none",
        device="cpu",
        started_at=f"2026-01-01T0{len(id)}:00:00+00:00",
        adapter=adapter.digest,
    )
    Training(layout, id).save(record)
    return record


def tell_story(layout: Layout) -> Dataset:
    """`greet@1` is a prompt and was prod; `greet@2`, with an adapter and an index, was compared with it and is prod now."""
    data = import_greetings(layout)
    test = data.split("test")
    snapshot(layout, test)
    run = write_run(layout, CLEAR, run_id="run-1", changes=evaluated_on(test))
    first = promote(layout, run, "greet", "few", alias="prod", actor="ada")
    adapter = hollow_adapter(layout)
    record_training(layout, data, adapter)
    index = Index.build(layout, CORPUS, embedder=WordsEmbedder(), show_progress=False)
    few = pipelines()["few"]
    tuned = few.with_(
        adapter=adapter.digest,
        prompt=Prompt.from_text("{{ passages }} {{ text }}"),
        retrieval=Retrieval(index=index.digest, query="text"),
    )
    variants = {"few": few, "tuned": tuned}
    marks = {"few": CLEAR["base"], "tuned": CLEAR["few"]}
    run = write_run(layout, marks, run_id="run-2", variants=variants, changes=evaluated_on(test))
    second = promote(layout, run, "greet", "tuned", alias="prod", actor="ben")
    assert (first.version, second.version) == (1, 2)
    return data


def words(graph: Lineage) -> set[tuple[str, str, str]]:
    """Edges by the labels of their ends."""
    labels = {node.key: node.label for node in graph.nodes}
    return {(labels[edge.later], edge.word, labels[edge.earlier]) for edge in graph.edges}


def only(graph: Lineage, kind: str) -> Node:
    (node,) = graph.of_kind(kind)
    return node


def of(layout: Layout, reference: str) -> Lineage:
    return api.Workspace(layout).lineage(reference)


def uses(layout: Layout, reference: str) -> Lineage:
    return api.Workspace(layout).lineage_of_dataset(reference)


def test_an_artifact_tells_everything_it_came_from(layout: Layout) -> None:
    tell_story(layout)
    graph = of(layout, "greet@prod")
    assert words(graph) == {
        ("run-2", "evaluated on", "greetings@1 test"),
        ("run-2", "asked", "tiny"),
        ("run-2", "compared as few with", "greet@1"),
        ("better", "drawn from", "run-2"),
        ("greet@2", "let in by", "better"),
        ("greet@2", "carries", "tuned"),
        ("tuned", "made by", "tuned"),
        ("tuned", "trained on", "greetings@1 train"),
        ("tuned", "chosen on", "greetings@1 dev"),
        ("tuned", "started from", "tiny"),
        ("greet@2", "searches", "handbook"),
        ("handbook", "built from", "handbook"),
        ("handbook", "embedded by", IndexRecipe().embedder),
        ("greet@prod", "points at", "greet@2"),
        ("60 calls", "answered by", "greet@2"),
    }
    assert all(node.here is not False for node in graph.nodes)
    assert only(graph, "calls").facts["tokens_out"] == 120
    assert only(graph, "decision").note == "tuned over few"


def test_where_an_alias_was_before_is_told_with_the_time_and_the_person(layout: Layout) -> None:
    tell_story(layout)
    graph = of(layout, "greet@1")
    assert ("greet@prod", "pointed at", "greet@1") in words(graph)
    facts = only(graph, "alias").facts
    assert (facts["by"], facts["now"]) == ("ada", False)
    assert facts["since"] <= facts["until"]
    names.rollback(layout, "greet", "prod", actor="eve")
    again = only(of(layout, "greet@1"), "alias").facts
    assert (again["by"], again["how"], again["now"], "until" in again) == ("eve", "rollback", True, False)


def test_approvals_and_refusals_are_part_of_it(layout: Layout, make_run: MakeRun) -> None:
    layout = with_roles(layout, reviewer=["ada"])
    write_policy(layout, "prod", '[[approval]]\nrole = "reviewer"\n')
    with pytest.raises(GateRefused):
        promote(layout, make_run(), "greet", "few", alias="prod", actor="carl")
    approve(layout, "greet@1", "reviewer", comment="read all of it", actor="ada")
    graph = of(layout, "greet")
    assert {("ada", "approves", "greet@1"), ("greet@prod", "refused", "greet@1")} <= words(graph)
    assert only(graph, "approval").facts["comment"] == "read all of it"
    assert "approval by reviewer: 0 of 1" in only(graph, "refusal").facts["reasons"][0]


def test_what_was_refused_alike_is_told_once(layout: Layout, make_run: MakeRun) -> None:
    layout = with_roles(layout, reviewer=["ada"])
    write_policy(layout, "prod", '[[approval]]\nrole = "reviewer"\n')
    promote(layout, make_run(), "greet", "few")
    for actor in ("carl", "dora", "carl"):
        with pytest.raises(GateRefused):
            move_alias(layout, "greet@1", "prod", actor=actor)
    refusal = only(of(layout, "greet"), "refusal")
    assert refusal.note.startswith("×3, last ")
    assert (refusal.facts["times"], refusal.facts["by"]) == (3, "carl")
    assert refusal.facts["first_at"] <= refusal.facts["at"]


def test_what_is_not_in_this_workspace_is_marked(layout: Layout, tmp_path: Path) -> None:
    tell_story(layout)
    # As after a pull: the artifacts and their names, and nothing else.
    there = tmp_path / "there"
    there.mkdir()
    (there / "workbench.toml").write_text('name = "there"\n')
    other = Layout.find(there)
    shutil.copytree(layout.blobs, other.blobs)
    for version in names.ls(layout):
        names.register(other, "pulled", version.digest)
    graph = of(other, "pulled@2")
    away = {(node.kind, node.label) for node in graph.nodes if node.here is False}
    assert away == {("dataset", "greetings test"), ("run", "run-2"), ("training", "of tuned")}
    assert ("run-2", "compared as few with", "pulled@1") in words(graph)
    assert "run run-2 · greet (not in this workspace)" in str(graph)
    found = uses(other, "greetings")
    assert {node.label for node in found.of_kind("artifact")} == {"pulled@1", "pulled@2"}
    digest = only(found, "dataset").id
    assert {node.label for node in uses(other, f"greetings@{digest[:20]}").of_kind("artifact")} == {
        "pulled@1",
        "pulled@2",
    }


def test_the_pipeline_of_an_artifact_is_known_when_it_is_compared_again(layout: Layout, make_run: MakeRun) -> None:
    first = promote(layout, make_run(), "greet", "few")
    # Taken out of the artifact it is held to its model's digest, and so has another digest than in the first run.
    taken = first.pipeline()
    assert taken.digest != first.provenance["pipeline_digest"]
    new = pipelines()["few"].with_(prompt=Prompt.from_text("{{ text }}!"))
    marks = {"old": CLEAR["base"], "new": CLEAR["few"]}
    promote(layout, make_run(marks, run_id="run-2", variants={"old": taken, "new": new}), "greet", "new")
    assert ("run-2", "compared as old with", "greet@1") in words(of(layout, "greet@2"))


def test_a_run_of_one_variant_has_no_decision_to_tell(layout: Layout, make_run: MakeRun) -> None:
    run = make_run({"few": CLEAR["few"]})
    parts: dict[str, Any] = {"baseline": None, "comparison": None, "decision": None, "gate": {}}
    digest = build.build(OciLayout(layout.blobs), run, "few", **parts)
    names.register(layout, "alone", digest)
    graph = of(layout, "alone")
    assert (only(graph, "decision").label, only(graph, "decision").note) == ("single variant", "few")


def test_a_data_set_tells_everything_that_used_it(layout: Layout) -> None:
    tell_story(layout)
    graph = uses(layout, "greetings")
    assert words(graph) == {
        ("tuned", "trained on", "greetings@1 train"),
        ("tuned", "chosen on", "greetings@1 dev"),
        ("tuned", "made by", "tuned"),
        ("run-1", "evaluated on", "greetings@1 test"),
        ("run-2", "evaluated on", "greetings@1 test"),
        ("run-2", "asked", "tuned"),
        ("greet@1", "promoted from", "run-1"),
        ("greet@2", "promoted from", "run-2"),
        ("greet@2", "carries", "tuned"),
        ("greet@prod", "pointed at", "greet@1"),
        ("greet@prod", "points at", "greet@2"),
    }


def test_an_artifact_that_was_only_trained_on_it_counts(layout: Layout, make_run: MakeRun) -> None:
    data, adapter = import_greetings(layout), hollow_adapter(layout)
    record_training(layout, data, adapter)
    variants = {**pipelines(), "few": pipelines()["few"].with_(adapter=adapter.digest)}
    promote(layout, make_run(variants=variants, changes={"dataset": "elsewhere"}), "greet", "few")
    for reference in ("greetings", f"greetings@{data.split('train').digest[:20]}"):
        assert only(uses(layout, reference), "artifact").label == "greet@1"
    # Nothing kept the rows as a version, and they are known all the same.
    assert {node.label for node in uses(layout, "greetings").of_kind("dataset")} == {"greetings train", "greetings dev"}
    assert not uses(layout, f"greetings@{data.split('test').digest}")


def test_an_adapter_that_started_from_one_that_was_trained_on_it_counts(layout: Layout, make_run: MakeRun) -> None:
    data, first, second = import_greetings(layout), hollow_adapter(layout), hollow_adapter(layout, "second")
    record_training(layout, data, first)
    other = import_greetings(layout, extra=" again", replace=True)
    record_training(layout, other, second, id="t02", start=first.digest)
    variants = {**pipelines(), "few": pipelines()["few"].with_(adapter=second.digest)}
    promote(layout, make_run(variants=variants), "greet", "few")
    old = uses(layout, f"greetings@{data.split('train').digest}")
    assert [node.id for node in old.of_kind("training")] == ["t1", "t02"]
    assert only(old, "artifact").label == "greet@1"
    graph = of(layout, "greet")
    assert {node.id for node in graph.of_kind("adapter")} == {first.digest, second.digest}
    assert data.split("train").digest in {node.id for node in graph.of_kind("dataset")}


def test_a_split_that_two_versions_share_is_used_where_either_is(layout: Layout) -> None:
    first = import_greetings(layout)
    assert snapshot(layout, first.split("test")) == 1
    second = import_greetings(layout, extra=" changed", replace=True)
    assert snapshot(layout, second.split("test")) == 2
    assert first.split("test").digest == second.split("test").digest
    write_run(layout, CLEAR, changes=evaluated_on(first.split("test")))
    for reference in ("greetings@1", "greetings@2"):
        graph = uses(layout, reference)
        assert (only(graph, "run").label, only(graph, "dataset").label) == ("run-1", f"{reference} test")
    assert not uses(layout, f"greetings@{second.split('train').digest}")


def test_a_version_that_nothing_used_says_so(layout: Layout) -> None:
    data = import_greetings(layout)
    snapshot(layout, data)
    graph = uses(layout, "greetings@1")
    assert not graph
    assert str(graph) == "data set greetings@1 · 60 rows\n  nothing is known to have used it"


def test_rows_that_are_gone_are_told_and_marked(layout: Layout) -> None:
    data = tell_story(layout)
    test = data.split("test")
    (history_folder(layout, "greetings") / f"{test.digest.removeprefix('sha256:')}.parquet").unlink()
    (node,) = (node for node in of(layout, "greet").of_kind("dataset") if node.id == test.digest)
    assert (node.label, node.here) == ("greetings@1 test", False)


def test_what_is_not_there_is_an_error_that_says_what_is(layout: Layout) -> None:
    tell_story(layout)
    with pytest.raises(NotFoundError, match=r"no artifact 'great'.*greet"):
        of(layout, "great")
    with pytest.raises(NotFoundError, match=r"no data set 'greeting', .*Data sets here: greetings"):
        uses(layout, "greeting")
    with pytest.raises(NotFoundError, match=r"has no version '7'.*versions are: 1"):
        uses(layout, "greetings@7")
    with pytest.raises(NotFoundError, match="has no version 'sha256:000000'"):
        uses(layout, "greetings@sha256:000000")
    with pytest.raises(UsageError, match="not the name of a data set"):
        uses(layout, "../greetings")


def damage(layout: Layout, reference: str, title: str) -> None:
    artifact = Artifact.open(layout, reference)
    OciLayout(layout.blobs).blob_path(artifact.layers[title].digest).write_bytes(b"{}")


@pytest.mark.parametrize("title", [build.PROVENANCE, build.RUN, build.CALLS, build.ADAPTER_MANIFEST, build.INDEX])
def test_a_damaged_artifact_is_named(layout: Layout, title: str) -> None:
    tell_story(layout)
    damage(layout, "greet@2", title)
    with pytest.raises(IntegrityError, match=rf"greet@2: {title} .* does not match its digest"):
        of(layout, "greet@2")


def test_another_artifact_that_is_damaged_is_told_of_and_not_left_out_in_silence(layout: Layout) -> None:
    tell_story(layout)
    damage(layout, "greet@1", build.PROVENANCE)
    for graph in (of(layout, "greet@2"), uses(layout, "greetings")):
        (said,) = graph.damaged
        assert "greet@1: provenance.json" in said
        assert f"could not be read: {said}" in str(graph)
        assert "could not be read" in graph._repr_html_()
        assert "greet@1" not in {node.label for node in graph.of_kind("artifact")}


def test_a_provenance_that_lacks_what_it_must_say_is_damage(layout: Layout, make_run: MakeRun) -> None:
    artifact = promote(layout, make_run(), "greet", "few")
    store = OciLayout(layout.blobs)
    layers = [
        store.put_blob(b"{}", layer.media_type, annotations={"org.opencontainers.image.title": title})
        if title == build.PROVENANCE
        else layer
        for title, layer in artifact.layers.items()
    ]
    manifest = {**artifact.manifest, "layers": [layer.to_json() for layer in layers]}
    names.register(layout, "odd", store.add_manifest(manifest).digest)
    with pytest.raises(IntegrityError, match="odd@1: its provenance is malformed"):
        of(layout, "odd")


def test_the_tree_for_a_terminal(layout: Layout) -> None:
    tell_story(layout)
    lines = str(of(layout, "greet@2")).splitlines()
    assert lines[0].startswith("artifact greet@2 · ")
    assert lines[1] == "  comes from"
    assert "    let in by decision better · tuned over few" in lines
    assert "      drawn from run run-2 · greet" in lines
    assert "        evaluated on data set greetings@1 test · 20 rows" in lines
    assert "  is used by" in lines
    assert "    alias greet@prod · now, points at it" in lines


def test_a_long_tree_is_cut_and_says_so() -> None:
    draft, data = Draft(), Node("dataset", "d", "many@1")
    for number in range(SHOWN + 5):
        draft.link(Node("run", f"run-{number}", f"run-{number}"), "evaluated on", data)
    graph = draft.finish("many", [data])
    assert str(graph).splitlines()[-1] == "    and 5 more, in --json"
    assert len(graph.to_json()["nodes"]) == SHOWN + 6


def test_html_is_escaped() -> None:
    draft, data = Draft(), Node("dataset", "d", "<script>")
    draft.link(Node("run", "<b>", "<img>"), "evaluated on", data)
    page = draft.finish("<title>", [data])._repr_html_()
    assert not any(tag in page for tag in ("<script>", "<img>", "<b>", "<title>"))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(lambda pair: pair[0] < pair[1]), max_size=20))
def test_every_node_of_a_connected_graph_is_in_the_tree(pairs: list[tuple[int, int]]) -> None:
    """Whatever leads to the focus or comes from it is printed, once with its branches."""
    draft = Draft()
    nodes = [Node("run", str(number), f"<{number}>") for number in range(9)]
    draft.add(nodes[4])
    for earlier, later in pairs:
        draft.link(nodes[later], "after", nodes[earlier])
    text = str(draft.finish("4", [nodes[4]]))
    above, below = {4}, {4}
    for _ in range(9):
        above |= {earlier for earlier, later in pairs if later in above}
        below |= {later for earlier, later in pairs if earlier in below}
    assert {number for number in range(9) if f"<{number}>" in text} == above | below


@settings(max_examples=6)
@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5))
def test_both_directions_agree(tmp_path_factory: pytest.TempPathFactory, chosen: list[str]) -> None:
    """An artifact is among those that used a data set exactly where the data set is among what the artifact came from."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "workbench.toml").write_text('name = "both"\n')
    layout = Layout.find(folder)
    for number, name in enumerate(chosen):
        _register(layout, number, name)
    for name in {*chosen}:
        found = {node.label for node in lineage_of_dataset(layout, name).of_kind("artifact")}
        assert found == {
            f"greet@{number + 1}"
            for number in range(len(chosen))
            if name in {node.facts["name"] for node in lineage(layout, f"greet@{number + 1}").of_kind("dataset")}
        }


def _register(layout: Layout, number: int, dataset: str) -> None:
    """An artifact without a gate and without rows to speak of."""
    changes = {"dataset": dataset, "dataset_digest": digest_json(dataset)}
    run = write_run(layout, {"base": [True]}, run_id=f"run-{number}", changes=changes)
    parts: dict[str, Any] = {"baseline": None, "comparison": None, "decision": None, "gate": {}}
    digest = build.build(OciLayout(layout.blobs), run, "base", **parts)
    names.register(layout, "greet", digest, at=datetime(2026, 1, 1, tzinfo=UTC))


def test_the_commands(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_story(layout)
    monkeypatch.chdir(layout.root)
    said = CliRunner().invoke(artifact_app, ["show", "greet@prod", "--lineage"])
    assert (said.exit_code, said.stdout) == (0, f"{of(layout, 'greet@2')}\n")
    printed = CliRunner().invoke(artifact_app, ["show", "greet@prod", "--lineage", "--json"])
    assert json.loads(printed.stdout) == of(layout, "greet@2").to_json()
    said = CliRunner().invoke(data_app, ["lineage", "greetings@1"])
    assert (said.exit_code, said.stdout) == (0, f"{uses(layout, 'greetings@1')}\n")
    damage(layout, "greet@1", build.PROVENANCE)
    printed = CliRunner().invoke(data_app, ["lineage", "greetings", "--json"])
    assert (printed.exit_code, len(json.loads(printed.stdout)["damaged"])) == (1, 1)


def test_trainings_are_only_told_where_they_are_given(layout: Layout) -> None:
    tell_story(layout)
    assert lineage(layout, "greet@2", list_trainings(layout)) == of(layout, "greet@2")
    assert only(lineage(layout, "greet@2"), "training").here is False


def test_a_pipeline_without_parts_has_no_adapter_and_no_index(layout: Layout, make_run: MakeRun) -> None:
    promote(layout, make_run(), "greet", "few")
    graph = of(layout, "greet")
    assert graph.of_kind("adapter") == graph.of_kind("index") == graph.of_kind("training") == ()
    assert isinstance(Artifact.open(layout, "greet").pipeline(), Pipeline)
