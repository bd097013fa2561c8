"""A bundle: whole, the same bytes each time, without what serving does not need, and running far from its workspace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from tests.models.tiny import make_adapter, save_tiny_model
from tests.ports import free_port
from tests.registry.conftest import CLEAR, pipelines, write_run
from tests.serving.answering import Parrot
from workbench import api
from workbench.errors import IntegrityError, MissingExtraError, ModelError, NotFoundError, UsageError
from workbench.experiments import scorers
from workbench.models.store import STARTER, find_model
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt
from workbench.registry.artifact import Artifact
from workbench.registry.promote import promote
from workbench.retrieval.recipe import IndexRecipe
from workbench.serving import bundle as bundles
from workbench.serving import requirements
from workbench.serving.app import make_app
from workbench.serving.bundle import Bundle, make_bundle
from workbench.serving.own_wheel import own_wheel
from workbench.serving.requirements import extras_of, pins
from workbench.serving.served import is_bundle, open_bundle, recorded_rows, serve_artifact
from workbench.workspace import Layout, ServerSettings, Settings


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `tiny`, which no registry has, pass for a model that can be fetched."""
    monkeypatch.setattr(bundles, "STARTER", "tiny")


@pytest.fixture
def bundle(artifact: Artifact, layout: Layout, fetched: None, tmp_path: Path) -> Bundle:
    return make_bundle(artifact, layout.settings, tmp_path / "bundle")


def test_two_bundles_of_one_artifact_are_the_same_bytes(
    bundle: Bundle, artifact: Artifact, layout: Layout, tmp_path: Path
) -> None:
    again = make_bundle(artifact, layout.settings, tmp_path / "elsewhere" / "again")
    assert again.digest == bundle.digest
    assert _files(again.folder) == _files(bundle.folder)


def test_it_holds_what_a_server_needs(bundle: Bundle) -> None:
    names = set(_files(bundle.folder))
    assert {
        "README.md",
        "Dockerfile",
        ".dockerignore",
        "requirements.lock",
        "bundle.json",
        "workbench.toml",
        "smoke.py",
        "smoke.jsonl",
        "systemd/greet.service",
        "kubernetes/base/deployment.yaml",
        "kubernetes/base/service.yaml",
        "kubernetes/base/kustomization.yaml",
        "kubernetes/gpu/kustomization.yaml",
        "artifact/index.json",
        "artifact/oci-layout",
    } <= names
    assert not any(name.endswith((".lock", ".tmp")) for name in names - {"requirements.lock"})


def test_no_notebook_program_is_installed(bundle: Bundle) -> None:
    lines = (bundle.folder / "requirements.lock").read_text().splitlines()
    packages = {line.partition("==")[0] for line in lines if "==" in line}
    assert len(packages) == bundle.packages
    assert {"starlette", "uvicorn", "torch", "transformers", "polars"} <= packages
    for name in ("jupyterlab", "marimo", "ipykernel", "ipywidgets", "nbclient", "trl", "peft", "chromadb", "pytest"):
        assert name not in packages
    assert [line for line in lines if line.startswith("./wheels/")] == [
        f"./{name}" for name in _files(bundle.folder) if name.startswith("wheels/")
    ]


def test_versions_are_those_of_the_evidence() -> None:
    found = pins(["http"], {"polars": "2.1.0", "Jinja2": "3.1.6", "torch": "2.13.0+cpu", "unknown": "1"})
    assert found["polars"] == "2.1.0"
    assert found["jinja2"] == "3.1.6"
    assert "torch" not in found
    assert "unknown" not in found
    assert pins(["local"], {"torch": "2.13.0+cpu"})["torch"] == "2.13.0"


def test_what_is_not_installed_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "DISTRIBUTION", "a-package-that-nobody-has")
    with pytest.raises(MissingExtraError, match=r"is not installed.*pip install 'llmops-workbench\[http,local\]'"):
        pins(["local", "http"], {})


@pytest.mark.parametrize(
    ("pipeline", "recipe", "extras"),
    [
        (Pipeline(model="smollm2-135m", prompt=Prompt.from_text("{{ x }}")), None, "http local"),
        (Pipeline(model="openai:gpt-5-mini", prompt=Prompt.from_text("{{ x }}")), None, "http remote"),
        (
            Pipeline(model="openai:gpt-5-mini", prompt=Prompt.from_text("{{ x }}")),
            IndexRecipe(),
            "http local minilm rag remote",
        ),
        (
            Pipeline(model="smollm2-135m", prompt=Prompt.from_text("{{ x }}"), adapter="sha256:" + "a" * 64),
            None,
            "adapters http local",
        ),
    ],
)
def test_a_pipeline_brings_only_the_extras_it_needs(pipeline: Pipeline, recipe: IndexRecipe, extras: str) -> None:
    assert " ".join(extras_of(pipeline, recipe)) == extras


def test_ten_answered_rows_are_kept_to_try_it_with(bundle: Bundle, artifact: Artifact) -> None:
    rows = [json.loads(line) for line in (bundle.folder / "smoke.jsonl").read_text().splitlines()]
    assert rows == recorded_rows(artifact, 10)
    assert len({row["row_id"] for row in rows}) == bundle.rows == 10
    calls = artifact.evidence().calls
    for row in rows:
        [call] = calls.filter((calls["variant"] == "few") & (calls["row_id"] == row["row_id"])).to_dicts()
        assert (json.loads(call["input"]), json.loads(call["result"])) == (row["inputs"], row["value"])


def test_it_answers_without_its_workspace(bundle: Bundle, parrot: Parrot, layout: Layout, tmp_path: Path) -> None:
    layout.blobs.rename(tmp_path / "gone")
    before = _files(bundle.folder)
    assert is_bundle(bundle.folder)
    artifact, there = open_bundle(bundle.folder, tmp_path / "work")
    with TestClient(make_app(serve_artifact(artifact, there))) as client:
        assert client.post("/v1/answer", json={"inputs": {"text": "hello"}}).json()["value"] == "HELLO"
    assert _files(bundle.folder) == before


def test_a_byte_that_differs_is_refused(bundle: Bundle, parrot: Parrot, tmp_path: Path) -> None:
    blob = max((bundle.folder / "artifact" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    artifact, layout = open_bundle(bundle.folder, tmp_path / "work")
    with pytest.raises(IntegrityError, match="does not match its digest"):
        serve_artifact(artifact, layout)


def test_another_artifact_in_its_place_is_refused(bundle: Bundle, parrot: Parrot, tmp_path: Path) -> None:
    about = json.loads((bundle.folder / "bundle.json").read_text())
    (bundle.folder / "bundle.json").write_text(json.dumps({**about, "digest": "sha256:" + "0" * 64}))
    artifact, layout = open_bundle(bundle.folder, tmp_path / "work")
    with pytest.raises(IntegrityError, match="missing"):
        serve_artifact(artifact, layout)


def test_a_folder_that_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is no bundle"):
        open_bundle(tmp_path)
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"bundle\.json is malformed: the file: Invalid JSON"):
        open_bundle(tmp_path)
    (tmp_path / "bundle.json").write_text('{"name": "greet", "version": "one"}')
    with pytest.raises(IntegrityError, match=r"bundle\.json is malformed: version: Input should be a valid integer"):
        open_bundle(tmp_path)


def test_a_folder_with_something_in_it_is_left_alone(
    artifact: Artifact, layout: Layout, fetched: None, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="is there already"):
        make_bundle(artifact, layout.settings, tmp_path / "mine")
    assert _files(tmp_path / "mine") == {"notes.txt": b"keep"}


def test_kubernetes_manifests_name_probes_limits_and_secrets(bundle: Bundle) -> None:
    folder = bundle.folder / "kubernetes"
    deployment = yaml.safe_load((folder / "base" / "deployment.yaml").read_text())
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 300
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [entry["name"] for entry in container["env"]] == ["WORKBENCH_API_KEY"]
    assert container["resources"]["limits"]["memory"].endswith("Gi")
    service = yaml.safe_load((folder / "base" / "service.yaml").read_text())
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    gpu = yaml.safe_load((folder / "gpu" / "kustomization.yaml").read_text())
    [patch] = yaml.safe_load(gpu["patches"][0]["patch"])
    assert patch["path"].endswith("/limits/nvidia.com~1gpu")
    assert gpu["patches"][0]["target"]["name"] == deployment["metadata"]["name"]


def test_kubectl_builds_both_kustomizations(bundle: Bundle) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    built = {name: _run(["kubectl", "kustomize", f"kubernetes/{name}"], bundle.folder) for name in ("base", "gpu")}
    assert "nvidia.com/gpu: 1" in built["gpu"]
    assert "nvidia.com/gpu" not in built["base"]


def test_the_server_of_its_model_travels_and_its_key_does_not(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEAM_KEY", "sk-1234567890")
    server = ServerSettings(base_url="http://models.example/v1", key_env="TEAM_KEY", timeout_s=12.5, omit=("top_p",))
    settings = Settings(servers={"team": server, "other": ServerSettings(base_url="http://other.example/v1")})
    remote = {name: pipeline.with_(model="team:large") for name, pipeline in pipelines().items()}
    found = promote(layout, write_run(layout, CLEAR, variants=remote), "greet", "few")
    made = make_bundle(found, settings, tmp_path / "bundle")
    _, there = open_bundle(made.folder, tmp_path / "work")
    assert there.settings.servers == {"team": server}
    deployment = yaml.safe_load((made.folder / "kubernetes" / "base" / "deployment.yaml").read_text())
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert [entry["name"] for entry in container["env"]] == ["WORKBENCH_API_KEY", "TEAM_KEY"]
    assert not any(b"sk-1234567890" in data for data in _files(made.folder).values())
    assert "torch" not in (made.folder / "requirements.lock").read_text()
    assert "model pull" not in (made.folder / "Dockerfile").read_text()


def test_the_wheel_is_one_that_pip_would_take() -> None:
    name, data = own_wheel()
    assert own_wheel() == (name, data)
    path = Path(os.environ.get("TMPDIR", "/tmp")) / name
    path.write_bytes(data)
    try:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
    finally:
        path.unlink()
    assert {"workbench/__init__.py", "workbench/py.typed", "workbench/serving/files/smoke.py"} <= set(names)
    assert not any("__pycache__" in entry for entry in names)


@pytest.mark.slow
def test_a_model_of_this_machine_travels_only_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an adapter, too: a tiny random model of one's own, in a folder."""
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "workbench.toml").write_text('name = "test"\n')
    layout = api.open(root).layout
    base = find_model(save_tiny_model(tmp_path / "models" / "tiny"))
    model = {
        "name": base.name,
        "digest": base.digest,
        "provider": "transformers",
        "device": "cpu",
        "dtype": "float32",
        "quantization": "none",
    }
    adapter = make_adapter(layout, base.path)
    own = {
        name: pipeline.with_(model=str(base.path), adapter=adapter.digest if name == "few" else None)
        for name, pipeline in pipelines().items()
    }
    run = write_run(
        layout,
        CLEAR,
        variants=own,
        changes={"models": dict.fromkeys(own, model)},
        edit=lambda call: {**call, "model_digest": base.digest},
    )
    artifact = promote(layout, run, "own", "few")
    expected = artifact.pipeline().answer({"text": "hello"}).value
    with pytest.raises(UsageError, match="--with-model"):
        make_bundle(artifact, layout.settings, tmp_path / "bundle")
    made = make_bundle(artifact, layout.settings, tmp_path / "bundle", with_model=True)
    base.path.rename(tmp_path / "away")
    root.rename(tmp_path / "workspace-away")
    assert "peft==" in (made.folder / "requirements.lock").read_text()
    found, there = open_bundle(made.folder, tmp_path / "work")
    with TestClient(make_app(serve_artifact(found, there))) as client:
        assert client.post("/v1/answer", json={"inputs": {"text": "hello"}}).json()["value"] == expected
    with pytest.raises(ModelError):
        find_model(str(base.path))


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> tuple[api.Workspace, Artifact]:
    """Twelve tickets, answered by the starter model."""
    root = tmp_path_factory.mktemp("workspace")
    (root / "workbench.toml").write_text('name = "test"\n')
    (root / "datasets").symlink_to(Path(__file__).parents[2] / "datasets")
    workspace = api.open(root)
    prompt = Prompt.from_text("Answer with one word.\n\n{{ text }}")
    base = Pipeline(model=STARTER, prompt=prompt)
    experiment = workspace.experiment(
        "words",
        dataset=workspace.dataset("support-tickets").split("test").head(12),
        variants={"one": base, "two": base.with_(prompt=Prompt.from_text("{{ text }}\n\nOne word:"))},
        scorers=[scorers.latency()],
    )
    policy = root / "open.toml"
    policy.write_text('format_version = 1\n[decision]\nminimum = "none"\nmin_rows = 1\n')
    run = experiment.run(show_progress=False)
    return workspace, workspace.promote(run, "words", variant="two", alias="prod", policy=policy)


@pytest.mark.slow
@pytest.mark.model
def test_installed_in_a_clean_environment_it_gives_the_recorded_answers(
    promoted: tuple[api.Workspace, Artifact], tmp_path: Path
) -> None:
    workspace, artifact = promoted
    command = [sys.executable, "-m", "workbench", "artifact", "bundle", "words@prod", "--out", tmp_path / "b", "--json"]
    assert json.loads(_run(command, workspace.root))["rows"] == 10
    folder = tmp_path / "b"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "WORKBENCH_WORKSPACE")}
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-compile",
        "-r",
        "requirements.lock",
    ]
    _run(install, folder, environment)
    there = _run([python, "-c", "import workbench; print(workbench.__file__)"], folder, environment)
    assert str(tmp_path / "venv") in there

    port = free_port()
    environment["WORKBENCH_API_KEY"] = "a-long-random-text"
    workbench = [str(tmp_path / "venv" / "bin" / "workbench"), "serve", ".", "--host", "0.0.0.0", "--port", str(port)]
    workbench += ["--work", str(tmp_path / "work")]
    with subprocess.Popen(workbench, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            smoke = [sys.executable, "smoke.py", f"http://127.0.0.1:{port}"]
            said = _run(smoke, folder, environment)
            assert said.endswith("10 of 10 recorded rows give the recorded outputs\n")
            without = {**environment, "WORKBENCH_API_KEY": ""}
            refused = subprocess.run(smoke, cwd=folder, env=without, capture_output=True, text=True)
            assert refused.returncode == 1
            assert "401" in refused.stdout
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        assert server.returncode in (0, -signal.SIGTERM)
    line = (folder / "smoke.jsonl").read_text().splitlines()[0]
    assert artifact.pipeline()(**json.loads(line)["inputs"]) == json.loads(line)["value"]


def test_smoke_says_that_no_server_is_there(bundle: Bundle) -> None:
    command = [sys.executable, "smoke.py", f"http://127.0.0.1:{free_port()}", "--wait", "0"]
    done = subprocess.run(command, cwd=bundle.folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not ready" in done.stderr


def test_the_command_line_says_what_is_missing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_API_KEY", raising=False)
    monkeypatch.chdir(layout.root)
    for arguments, code, said in [
        (["serve", "nothing@prod"], 1, "no artifact 'nothing'"),
        (["serve", "nothing@prod", "--host", "0.0.0.0"], 2, "WORKBENCH_API_KEY is not set"),
        (["artifact", "bundle", "nothing", "--out", "there"], 1, "no artifact 'nothing'"),
    ]:
        command = [sys.executable, "-m", "workbench", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _run(command: list[Any], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
