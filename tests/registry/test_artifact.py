"""Artifacts: built the same twice, whole or refused, and run by the pipeline that was evaluated."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest

from tests.registry.conftest import MODEL, MakeRun, pipelines
from workbench.errors import IntegrityError, NotFoundError, PipelineError
from workbench.experiments.compare import Comparison
from workbench.experiments.run import Run
from workbench.files import digest_bytes
from workbench.models.engine import ModelInfo
from workbench.registry import names
from workbench.registry.artifact import Artifact
from workbench.registry.oci import MANIFEST_TYPE, OciLayout
from workbench.registry.promote import promote
from workbench.workspace import Layout

LAYERS = [
    "environment.lock",
    "evidence/calls.parquet",
    "evidence/comparison.json",
    "evidence/decision.json",
    "evidence/gate.json",
    "evidence/run.json",
    "evidence/scores.parquet",
    "pipeline.json",
    "postprocess/shout.py",
    "prompt.json",
    "provenance.json",
]


@pytest.fixture
def artifact(layout: Layout, make_run: MakeRun) -> Artifact:
    return promote(layout, make_run(), "greet", "few", alias="staging", actor="ada")


def test_an_artifact_is_an_oci_manifest_with_a_layer_for_each_part(artifact: Artifact) -> None:
    manifest = artifact.manifest
    assert manifest["mediaType"] == MANIFEST_TYPE
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert sorted(artifact.layers) == LAYERS
    assert artifact.layers["pipeline.json"].media_type == "application/vnd.llmops-workbench.pipeline.v1+json"
    assert artifact.layers["evidence/calls.parquet"].media_type == "application/vnd.llmops-workbench.calls.v1+parquet"
    assert artifact.layers["postprocess/shout.py"].media_type == "text/x-python"
    config = json.loads(artifact.store.read_blob(artifact.config.digest))
    assert set(config) == {"descriptor", "config", "modelfs"}
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in manifest["layers"]]}
    assert [entry.digest for entry in artifact.store.manifests()] == [artifact.digest]


def test_building_twice_gives_the_same_digest(artifact: Artifact, layout: Layout) -> None:
    """In the same workspace, and from the same run on another path at another time."""
    again = promote(layout, Run(layout.runs / "run-1"), "greet", "few")
    assert (again.version, again.digest) == (1, artifact.digest)
    elsewhere = layout.root / "elsewhere"
    (elsewhere / ".workbench").mkdir(parents=True)
    shutil.copy(layout.root / "workbench.toml", elsewhere)
    shutil.copytree(layout.root / ".workbench" / "events", elsewhere / ".workbench" / "events")
    other = Layout.find(elsewhere)
    assert promote(other, Run(other.runs / "run-1"), "other-name", "few").digest == artifact.digest


def test_rows_in_another_order_give_the_same_digest(artifact: Artifact, layout: Layout) -> None:
    for name in ("calls", "scores"):
        path = layout.runs / "run-1" / f"{name}.parquet"
        rows = pl.read_parquet(path, memory_map=False)
        rows.reverse().write_parquet(path)
    assert promote(layout, Run(layout.runs / "run-1"), "greet", "few").digest == artifact.digest


def test_the_pipeline_comes_back_held_to_the_model_it_was_evaluated_with(artifact: Artifact) -> None:
    pipeline = artifact.pipeline()
    assert pipeline == pipelines()["few"].with_(model_digest=MODEL["digest"])
    assert artifact.provenance["pipeline_digest"] == pipelines()["few"].digest

    class OtherModel:
        info = ModelInfo(**{**MODEL, "digest": digest_bytes(b"other weights")})

    with pytest.raises(PipelineError, match="was made with model"):
        pipeline.check_engine(OtherModel())  # type: ignore[arg-type]


def test_the_evidence_comes_back(artifact: Artifact) -> None:
    calls, scores, decision, comparison = artifact.evidence()
    assert (len(calls), len(scores)) == (120, 120)
    assert decision is not None
    assert comparison is not None
    assert (decision["outcome"], decision["n"]) == ("better", 60)
    assert Comparison.from_json(comparison).decision("few").sentence == decision["sentence"]
    assert artifact.gate["passed"] is True
    assert artifact.provenance["dataset"]["name"] == "greetings"
    assert artifact.environment == {"jinja2": "3.1.6", "polars": "2.1.0"}
    assert artifact.read("environment.lock").startswith(b"# python 3.11.7\n# platform Linux\n")


def test_it_shows_itself(artifact: Artifact) -> None:
    assert repr(artifact) == f"Artifact(greet@1 ({artifact.digest[7:19]}))"
    shown = artifact._repr_html_()
    assert artifact.digest in shown
    assert "staging" in shown


def test_one_flipped_bit_in_any_blob_is_refused_by_name(artifact: Artifact, layout: Layout) -> None:
    blobs = {"manifest": artifact.digest, "config": artifact.config.digest}
    blobs |= {title: layer.digest for title, layer in artifact.layers.items()}
    assert [check.title for check in artifact.verify()] == list(blobs)[:2] + LAYERS
    for title, digest in blobs.items():
        path = artifact.store.blob_path(digest)
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            fresh = Artifact.open(layout, "greet@staging")
            with pytest.raises(IntegrityError) as caught:
                fresh.pipeline()
            assert f"{title} ({digest})" in str(caught.value)
            assert path.name in str(caught.value)
            assert [check.title for check in fresh.check() if not check.ok] == [title]
        path.write_bytes(whole)
    assert Artifact.open(layout, "greet").pipeline().model == "tiny"


def test_missing_and_cut_blobs_are_refused_too(artifact: Artifact) -> None:
    path = artifact.store.blob_path(artifact.layers["prompt.json"].digest)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"prompt\.json"):
        artifact.pipeline()
    path.unlink()
    with pytest.raises(IntegrityError, match=r"prompt\.json .* is missing"):
        artifact.verify()
    assert "evidence/calls.parquet" in artifact.layers
    assert len(artifact.evidence().calls) == 120


def test_promoting_again_mends_a_damaged_blob(artifact: Artifact, layout: Layout) -> None:
    artifact.store.blob_path(artifact.layers["prompt.json"].digest).write_bytes(b"")
    promote(layout, Run(layout.runs / "run-1"), "greet", "few")
    artifact.verify()


def test_a_manifest_of_something_else_is_refused(layout: Layout) -> None:
    store = OciLayout(layout.blobs)
    names.register(layout, "image", store.add_manifest({"artifactType": "application/x.other", "layers": []}).digest)
    with pytest.raises(IntegrityError, match="not a workbench artifact"):
        Artifact.open(layout, "image").pipeline()


def test_a_run_whose_manifest_was_edited_cannot_be_promoted(layout: Layout, make_run: MakeRun) -> None:
    edited = {name: pipeline.model_dump(mode="json") for name, pipeline in pipelines().items()}
    edited["few"]["prompt"]["messages"][0]["content"] = "Say YES."
    run = make_run(changes={"variants": edited})
    with pytest.raises(IntegrityError, match="does not match its digest"):
        promote(layout, run, "greet", "few")


def test_an_unknown_artifact_says_what_to_do(layout: Layout) -> None:
    with pytest.raises(NotFoundError, match="workbench promote RUN NAME"):
        Artifact.open(layout, "nothing")
