"""The adapter of an artifact: stored as layers, published where the artifact is opened, refused once it is another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.models.tiny import hollow_adapter, make_adapter, save_tiny_model
from tests.registry.conftest import CLEAR, MakeRun, pipelines
from workbench.errors import IntegrityError, NotFoundError
from workbench.models.adapters import AdapterFolder, find_adapter, list_adapters, verify_adapter
from workbench.models.engine import Generation
from workbench.models.transformers_engine import TransformersEngine
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.registry import names
from workbench.registry.artifact import Artifact
from workbench.registry.build import build, part_files
from workbench.registry.diff import diff
from workbench.registry.oci import OciLayout
from workbench.registry.promote import promote
from workbench.workspace import Layout

LAYERS = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/manifest.json"]


def adapted(adapter: AdapterFolder) -> dict[str, Pipeline]:
    return {**pipelines(), "few": pipelines()["few"].with_(adapter=adapter.digest)}


def moved(layout: Layout, to: Path) -> Layout:
    """A second workspace with the artifacts and names of the first, and nothing else."""
    (to / ".workbench").mkdir(parents=True)
    shutil.copy(layout.root / "workbench.toml", to)
    for path in (layout.blobs, layout.root / ".workbench" / "state.sqlite"):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, to / path.relative_to(layout.root))
    return Layout.find(to)


@pytest.fixture
def adapter(layout: Layout) -> AdapterFolder:
    return hollow_adapter(layout)


@pytest.fixture
def artifact(layout: Layout, make_run: MakeRun, adapter: AdapterFolder) -> Artifact:
    return promote(layout, make_run(variants=adapted(adapter)), "greet", "few")


def test_an_artifact_carries_its_adapter(artifact: Artifact, adapter: AdapterFolder) -> None:
    stored = [artifact.layers[title] for title in LAYERS]
    assert [layer.media_type.removeprefix("application/vnd.llmops-workbench.") for layer in stored] == [
        "adapter-config.v1+json",
        "adapter-weights.v1+safetensors",
        "adapter.v1+json",
    ]
    files = adapter.files()
    assert {title: artifact.read(title) for title in LAYERS} == {f"adapter/{name}": files[name] for name in files}


def test_it_is_published_where_the_artifact_is_opened(
    artifact: Artifact, adapter: AdapterFolder, tmp_path: Path
) -> None:
    other = moved(artifact._layout or Layout.find(tmp_path), tmp_path / "other")
    assert list_adapters(other) == []
    pipeline = Artifact.open(other, "greet").pipeline()
    assert pipeline.adapter == adapter.digest
    verify_adapter(find_adapter(other, adapter.digest))
    path = find_adapter(other, adapter.digest).path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="adapter_model"):
        Artifact.open(other, "greet").pipeline()


def test_a_run_whose_adapter_is_gone_or_damaged_is_not_promoted(
    layout: Layout, make_run: MakeRun, adapter: AdapterFolder
) -> None:
    run = make_run(variants=adapted(adapter))
    (adapter.path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors"):
        promote(layout, run, "greet", "few")
    shutil.rmtree(adapter.path)
    with pytest.raises(NotFoundError, match="workbench finetune ls"):
        promote(layout, run, "greet", "few")


def test_an_artifact_with_another_adapter_or_none_is_refused(
    layout: Layout, make_run: MakeRun, adapter: AdapterFolder
) -> None:
    run = make_run(variants=adapted(adapter))
    other = part_files(layout, adapted(hollow_adapter(layout, "other"))["few"])
    for parts, message in ((other, "another adapter than its pipeline names"), ({}, r"no adapter/manifest\.json")):
        digest = build(
            OciLayout(layout.blobs), run, "few", baseline=None, comparison=None, decision=None, gate={}, parts=parts
        )
        names.register(layout, "odd", digest, run_id=run.id, variant="few", decision=None)
        with pytest.raises(IntegrityError, match=message):
            Artifact.open(layout, "odd").pipeline()


def test_a_change_of_adapter_is_shown(
    layout: Layout, make_run: MakeRun, artifact: Artifact, adapter: AdapterFolder
) -> None:
    wider = hollow_adapter(layout, rank=8)
    second = promote(layout, make_run(run_id="run-2", variants=adapted(wider)), "greet", "few")
    found = diff(artifact, second)
    assert found.settings == {
        "adapter.digest": (adapter.digest, wider.digest),
        "adapter.rank": (4, 8),
        "adapter.alpha": (8, 16),
    }
    without = promote(layout, make_run({"base": CLEAR["base"], "few": CLEAR["few"]}, run_id="run-3"), "greet", "few")
    assert diff(without, second).settings["adapter.digest"] == (None, wider.digest)
    assert "adapter.rank: 4 → 8" in str(found)


@pytest.mark.slow
def test_the_pipeline_answers_in_another_workspace_as_in_its_own(
    layout: Layout, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny_model(tmp_path / "models" / "tiny")
    engine = TransformersEngine.load(str(base), device="cpu")
    pipeline = Pipeline(
        model=str(base),
        adapter=make_adapter(layout, base).digest,
        prompt=Prompt.from_text("{{ text }}"),
        generation=Generation(max_new_tokens=8),
    )
    rows = [{"text": "where is my parcel?"}, {"text": "hi"}]
    monkeypatch.setattr("workbench.workspace._opened", layout)
    here = {index: answer.value for index, answer in pipeline.answers(engine, rows)}
    plain = {index: answer.value for index, answer in pipeline.with_(adapter=None).answers(engine, rows)}
    run = make_run(
        variants={"base": pipeline.with_(adapter=None), "few": pipeline},
        changes={"models": dict.fromkeys(("base", "few"), engine.info.to_dict())},
        edit=lambda call: {**call, "model_digest": engine.info.digest},
    )
    promote(layout, run, "greet", "few")

    other = moved(layout, tmp_path / "other")
    monkeypatch.setattr("workbench.workspace._opened", other)
    again = Artifact.open(other, "greet").pipeline()
    there = {
        index: answer.value for index, answer in again.answers(TransformersEngine.load(str(base), device="cpu"), rows)
    }
    assert there == here != plain
