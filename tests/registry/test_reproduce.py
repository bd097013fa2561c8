"""A notebook makes a run, a variant of it is promoted, the workspace changes, and the artifact's notebook runs again."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import polars as pl
import pytest
from typer.testing import CliRunner

from tests.models.tiny import make_adapter, save_tiny_model
from tests.registry.conftest import CLEAR, UNCLEAR, MakeRun, pipelines
from workbench import api
from workbench.cli.main import app
from workbench.data.store import import_dataset
from workbench.data.versions import history_folder
from workbench.errors import ComparisonError, IntegrityError, NotFoundError, RunError, UsageError
from workbench.experiments.notebook_source import keep
from workbench.experiments.run import Run
from workbench.files import digest_bytes, digest_file
from workbench.notebook_run import run_jupyter
from workbench.registry.aliases import move_alias
from workbench.registry.artifact import Artifact
from workbench.registry.promote import promote
from workbench.registry.prompts import save_prompt, tag_prompt
from workbench.registry.reproduce import reproduce
from workbench.registry.reproduce_workspace import make_workspace
from workbench.registry.reproduction import compare_runs, differences
from workbench.workspace import Layout

ROOT = Path(__file__).parents[2]
POLICY = '[decision]\nminimum = "none"\nmin_rows = 1\n'
HEAD = """
import sys
from pathlib import Path

import workbench as wb
"""
BODY = """
data = ws.dataset("questions").split("test")
first = wb.Pipeline(model=ws.model, prompt=ws.prompt("a"), generation={"max_new_tokens": 4})
experiment = ws.experiment(
    "ab",
    dataset=data.head(limit),
    variants={"A": first, "B": first.with_(prompt=ws.prompt("b"))},
    scorers=[wb.scorers.exact(), wb.scorers.latency()],
)
run = experiment.run(show_progress=False)
"""
# After its run the script fails where it is run again, which takes nothing from the evidence.
ENDS_BADLY = """
import os

if "WORKBENCH_WORKSPACE" in os.environ:
    raise SystemExit("it ends badly")
"""
SCRIPT = f"{HEAD}\nws = wb.open(Path(__file__).parents[1], notebook=__file__)\nlimit = int(sys.argv[1])\n{BODY}"
MARIMO = """
import marimo

app = marimo.App(width="medium")

with app.setup:
    import marimo as mo

    import workbench as wb


@app.cell(hide_code=True)
def asked():
    ws = wb.open(mo.notebook_dir().parent)
    limit = int(mo.cli_args()["limit"])
    return limit, ws


@app.cell
def _(limit, ws):
    data = ws.dataset("questions").split("test")
    one = wb.Pipeline(model=ws.model, prompt=ws.prompt("a"), generation={"max_new_tokens": 4})
    other = one.with_(prompt=ws.prompt("b"))
    ws.experiment(
        "ab", dataset=data.head(limit), variants={"A": one, "B": other}, scorers=[wb.scorers.exact()]
    ).run()
    return


if __name__ == "__main__":
    app.run()
"""
YAML = """
format_version: 1
name: ab
dataset: questions
limit: 3
variants:
  A: {prompt: prompts/a.md, generation: {max_new_tokens: 4}}
  B: {prompt: prompts/b.md, generation: {max_new_tokens: 4}}
scorers: [exact]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def question_rows(count: int = 30) -> list[dict[str, str]]:
    # Their order is not that of their ids, and which rows are the first ones depends on it.
    return [{"id": f"q{n}", "text": f"question {n}", "label": f"word{n}"} for n in range(count)]


def put_rows(layout: Layout, rows: list[dict[str, str]], *, replace: bool = False) -> None:
    source = layout.root / "questions.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_dataset(layout, source, name="questions", input=("text",), target=("label",), id="id", replace=replace)


@pytest.fixture
def ws(tmp_path: Path, model: Path) -> api.Workspace:
    root = tmp_path / "ws"
    for folder in ("prompts", "policies", "notebooks", "experiments"):
        (root / folder).mkdir(parents=True)
    (root / "workbench.toml").write_text(f"model = {json.dumps(str(model))}\n")
    (root / "policies" / "default.toml").write_text(POLICY)
    (root / "prompts" / "a.md").write_text("{{ text }}\n")
    (root / "prompts" / "b.md").write_text("## system\nBe brief.\n\n## user\n{{ text }}\n")
    workspace = api.open(root)
    put_rows(workspace.layout, question_rows())
    return workspace


@pytest.fixture
def run_script(ws: api.Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Run a script of the workspace in this process, as `python notebooks/ab.py WORDS` does."""

    def run(*words: str, source: str = SCRIPT) -> Run:
        path = ws.root / "notebooks" / "ab.py"
        path.write_text(source)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [str(path), *words])
            found = runpy.run_path(str(path), run_name="__main__")["run"]
        assert isinstance(found, Run)
        return found

    return run


def everything(folder: Path) -> dict[str, str]:
    """Every file of a folder with its digest; the state's files change when it is read, and are compared by rows."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("state.sqlite"))
    return {str(path.relative_to(folder)): digest_file(path) for path in paths}


@pytest.mark.slow
def test_the_data_may_change_and_the_evidence_is_the_same(ws: api.Workspace, run_script: Callable[..., Run]) -> None:
    run = run_script("6", source=SCRIPT + ENDS_BADLY)
    artifact = ws.promote(run, "ab", variant="B", over="A")
    book = artifact.notebook()
    assert book is not None
    assert book.source == (SCRIPT + ENDS_BADLY).encode()
    assert (book.record.kind, book.record.path, book.record.arguments) == ("script", "notebooks/ab.py", ("6",))
    assert dict(artifact.summary())["notebook"] == "notebooks/ab.py with 6"

    # Other rows under the same name, another default policy, and a notebook that asks something else now.
    put_rows(ws.layout, question_rows(12)[::-1], replace=True)
    (ws.root / "notebooks" / "ab.py").write_text("raise SystemExit('another notebook')")
    before, runs = everything(ws.root), [found.id for found in ws.runs()]
    found = ws.reproduce("ab@1", show_progress=False)
    assert found.verdict == "same"
    assert [(side.variant, side.same, side.all_same) for side in found.answers] == [("A", 6, True), ("B", 6, True)]
    assert found.files == "this workspace as it is now"
    assert [(score.scorer, score.different) for score in found.scores] == [("exact", 0), ("exact", 0)]
    assert found.then is not None
    assert found.now is not None
    assert found.now["outcome"] == found.then["outcome"]
    assert "all 12 answers" in str(found)
    assert found.note == "after its run, notebooks/ab.py failed: it ends badly"
    assert "reproduced" in found._repr_html_()
    assert json.loads(json.dumps(found.to_json()))["verdict"] == "same"
    # Nothing of this workspace is changed.
    assert everything(ws.root) == before
    assert [found.id for found in ws.runs()] == runs
    assert [entry["version"] for entry in ws.artifacts()] == [1]

    # The prompt is read from a file, which is another now: that is another experiment.
    (ws.root / "prompts" / "b.md").write_text("## user\nNow: {{ text }}\n")
    with pytest.raises(
        ComparisonError, match=r"ab\.py makes another experiment now: variant B has another prompt; after"
    ):
        ws.reproduce("ab@1", show_progress=False)


@pytest.mark.slow
def test_files_of_the_commit_are_taken_where_the_run_had_a_clean_one(
    ws: api.Workspace, run_script: Callable[..., Run]
) -> None:
    (ws.root / ".gitignore").write_text(".workbench/\nquestions.jsonl\n")
    (ws.root / "notebooks" / "ab.py").write_text(SCRIPT)
    # The workspace is a folder of the repository.
    git = ["git", "-C", str(ws.root.parent), "-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    run = run_script("4")
    assert run.manifest.git_dirty is False
    ws.promote(run, "ab", variant="B")
    (ws.root / "prompts" / "b.md").write_text("## user\nNow: {{ text }}\n")
    shutil.rmtree(ws.root / "datasets")
    found = reproduce(ws.layout, "ab", show_progress=False)
    assert found.verdict == "same"
    assert found.files == f"commit {str(run.manifest.git_commit)[:12]}"


@pytest.mark.slow
def test_a_marimo_notebook_keeps_its_cells_and_runs_with_its_arguments(ws: api.Workspace) -> None:
    (ws.root / "notebooks" / "ab.py").write_text(MARIMO)
    command = [sys.executable, "-m", "workbench", "run", "notebooks/ab.py", "--", "--limit=3"]
    subprocess.run(command, cwd=ws.root, check=True, capture_output=True)
    artifact = ws.promote(ws.run(), "ab", variant="B")
    book = artifact.notebook()
    assert book is not None
    assert (book.record.kind, book.record.arguments) == ("marimo", ("--limit=3",))
    assert book.record.app == {"width": "medium"}
    cells = [(cell["name"], cell["config"]) for cell in book.record.cells]
    assert cells == [("setup", {}), ("asked", {"hide_code": True}), ("_", {})]
    assert ws.reproduce("ab", show_progress=False).verdict == "same"


@pytest.mark.slow
def test_a_jupyter_notebook_is_kept_without_its_outputs_and_runs_again(ws: api.Workspace) -> None:
    opened = f"{HEAD}\nws = wb.open()"
    cells = [nbformat.v4.new_code_cell(source) for source in ("limit = 9", opened, BODY, "print('secret output')")]
    cells[0].metadata["tags"] = ["parameters"]
    path = ws.root / "notebooks" / "ab.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    run_jupyter(path, ["--limit", "4"])
    shutil.copy(ws.root / "notebooks" / "ab.executed.ipynb", path)
    [run] = ws.runs()
    book = ws.promote(run, "ab", variant="B").notebook()
    assert book is not None
    assert book.source is not None
    assert b"secret output" not in book.source.replace(b"print('secret output')", b"")
    assert (book.record.kind, book.record.path) == ("jupyter", "notebooks/ab.ipynb")
    assert book.record.arguments == ("--limit", "4")
    assert book.record.cells[0]["tags"] == ["parameters"]
    found = ws.reproduce("ab", show_progress=False)
    assert (found.verdict, found.answers[0].same) == ("same", 4)


@pytest.mark.slow
def test_an_experiment_in_yaml_is_reproduced_by_the_command(ws: api.Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ws.root)
    monkeypatch.delenv("WORKBENCH_WORKSPACE", raising=False)
    (ws.root / "experiments" / "ab.yaml").write_text(YAML)
    command = CliRunner()
    assert command.invoke(app, ["run", "experiments/ab.yaml", "--stop-early"]).exit_code == 0
    ws.promote(ws.run(), "ab", variant="B")
    book = ws.artifact("ab").notebook()
    assert book is not None
    assert (book.record.kind, book.record.arguments) == ("experiment", ("--stop-early",))
    assert "experiment.yaml" in ws.artifact("ab").layers
    said = command.invoke(app, ["artifact", "reproduce", "ab", "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["verdict"] == "same"


@pytest.mark.slow
def test_the_adapter_of_the_artifact_goes_along(ws: api.Workspace, model: Path, run_script: Callable[..., Run]) -> None:
    make_adapter(ws.layout, model, "tuned", scale=0.3)
    source = SCRIPT.replace('prompt=ws.prompt("b")', 'adapter=find_adapter(ws.layout, "tuned").digest')
    source = source.replace(
        "import workbench as wb\n", "import workbench as wb\nfrom workbench.models.adapters import *\n"
    )
    ws.promote(run_script("3", source=source), "ab", variant="B")
    shutil.rmtree(ws.layout.adapters)
    found = ws.reproduce("ab", show_progress=False)
    assert found.verdict == "same"
    assert not ws.layout.adapters.exists()


@pytest.mark.slow
@pytest.mark.model
def test_the_ab_notebook_of_the_project_is_reproduced_with_an_edited_prompt(tmp_path: Path) -> None:
    for name in ("datasets", "prompts", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "workbench.toml", tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "default.toml").write_text(POLICY)
    words = ["--limit=3", "--shots=2", "--prompt-a-text=## user\nSay a = b of {{ text }}\n"]
    command = [sys.executable, "-m", "workbench", "run", "notebooks/prompt_ab.py", "--", *words]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    ws = api.open(tmp_path)
    ws.promote(ws.run(), "triage", variant="B", over="A")
    found = ws.reproduce("triage", show_progress=False)
    assert found.verdict == "same"
    assert words[2] in found.arguments
    assert "--model=smollm2-135m" in found.arguments


# Below no model is asked: the runs are written down, and the notebooks end before they would make one.


@pytest.fixture
def kept(layout: Layout, make_run: MakeRun) -> Callable[..., Artifact]:
    """Promote a run that a script made."""

    def make(source: str, *words: str) -> Artifact:
        put_rows(layout, question_rows(5))
        path = layout.root / "notebooks" / "greet.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        run = make_run(changes={"notebook_digest": digest_bytes(source.encode())})
        rows = api.Workspace(layout).dataset("questions")
        keep(run.folder, path, "notebooks/greet.py", arguments=words, dataset=rows, experiment=False)
        return promote(layout, Run(run.folder), "greet", "few")

    return make


@pytest.mark.slow
def test_a_failing_notebook_is_an_error_with_its_last_line(layout: Layout, kept: Callable[..., Artifact]) -> None:
    kept("print('so far')\n1 / 0\n")
    with pytest.raises(RunError, match=r"notebooks/greet\.py failed: ZeroDivisionError: division by zero\.") as caught:
        reproduce(layout, "greet", show_progress=False)
    assert "so far" in str(caught.value.hint)
    said = CliRunner().invoke(app, ["artifact", "reproduce", "greet"], env={"WORKBENCH_WORKSPACE": str(layout.root)})
    assert said.exit_code == 1
    assert isinstance(said.exception, RunError)


@pytest.mark.slow
def test_a_notebook_that_makes_no_run_or_never_ends_is_an_error(layout: Layout, kept: Callable[..., Artifact]) -> None:
    kept("import sys, time\ntime.sleep(float(sys.argv[1]))\n", "0")
    with pytest.raises(RunError, match="made no run in the workspace it was given"):
        reproduce(layout, "greet", show_progress=False)
    with pytest.raises(RunError, match=r"took more than 0\.01 s"):
        reproduce(layout, "greet", timeout_s=0.01, show_progress=False)
    with pytest.raises(UsageError, match="timeout of -1 s"):
        reproduce(layout, "greet", timeout_s=-1, show_progress=False)


def test_rows_that_are_not_here_are_named(layout: Layout, kept: Callable[..., Artifact]) -> None:
    artifact = kept("1 / 0\n")
    book = artifact.notebook()
    assert book is not None
    shutil.rmtree(layout.datasets / "questions")
    shutil.rmtree(history_folder(layout, "questions"))
    with pytest.raises(NotFoundError, match=r"the rows of questions .* are not here") as caught:
        reproduce(layout, "greet", show_progress=False)
    assert book.record.dataset.digest in str(caught.value.hint)


def test_an_artifact_without_a_notebook_says_so(layout: Layout, make_run: MakeRun) -> None:
    artifact = promote(layout, make_run(), "greet", "few")
    assert artifact.notebook() is None
    assert artifact.to_json()["notebook"] is None
    with pytest.raises(NotFoundError, match="greet@1 holds no notebook"):
        reproduce(layout, "greet", show_progress=False)


def test_a_damaged_layer_is_refused(layout: Layout, kept: Callable[..., Artifact]) -> None:
    artifact = kept("1 / 0\n")
    digest = artifact.layers["notebook.py"].digest
    blob = layout.blobs / "blobs" / "sha256" / digest.removeprefix("sha256:")
    blob.chmod(0o644)
    blob.write_text("1 / 1\n")
    with pytest.raises(IntegrityError, match=r"notebook\.py"):
        reproduce(layout, "greet", show_progress=False)


def test_the_workspace_for_it_has_the_prompts_of_then_and_its_own_stores(
    tmp_path: Path, layout: Layout, kept: Callable[..., Artifact], make_run: MakeRun
) -> None:
    before, prompt = datetime(2026, 1, 1, tzinfo=UTC), pipelines()["base"].prompt
    save_prompt(layout, "greet", prompt, at=before)
    tag_prompt(layout, "greet", 1, "good", at=before)
    save_prompt(layout, "greet", pipelines()["few"].prompt)
    toml = """
model = "a \\"b\\" \\u007f"
[events]
path = "rows/events"
[roles]
reviewer = ["ada", "ben"]
[servers.lab]
base_url = "http://localhost:1/v1"
omit = ["temperature"]
"""
    (layout.root / "workbench.toml").write_text(toml)
    layout = Layout.find(layout.root)
    earlier = promote(layout, make_run(run_id="run-0"), "greet", "few", at=before)
    move_alias(layout, "greet@1", "prod", at=before)
    artifact = kept("1 / 0\n")
    move_alias(layout, "greet@2", "prod")
    built = layout.built_indexes / f"{'a' * 40}-1"
    (built / "derived").mkdir(parents=True)
    (built / "derived" / "graph").write_text("graph")
    (layout.root / "corpus").mkdir()
    (layout.root / "prompts").mkdir()
    (layout.root / "prompts" / "large.md").write_text("x" * 2_000_000)
    (layout.root / ".env").write_text("SECRET=1")
    manifest = artifact.run().manifest
    searching = {**manifest.variants["few"], "retrieval": {"index": f"sha256:{'a' * 64}"}}
    manifest = manifest.model_copy(update={"variants": {"few": searching}})
    book = artifact.notebook()
    assert book is not None
    folder = tmp_path / "scratch"
    folder.mkdir()
    scratch, files = make_workspace(folder, layout, manifest, book)

    assert files == "this workspace as it is now"
    settings = scratch.settings
    assert (settings.model, settings.roles, settings.servers) == (
        'a "b" \x7f',
        layout.settings.roles,
        layout.settings.servers,
    )
    assert not settings.cache.responses
    assert scratch.runs == folder / ".workbench" / "events" / "runs"
    saved = api.Workspace(scratch)
    assert saved.prompt("greet@latest").digest == saved.prompt("greet@good").digest == prompt.digest
    assert saved.dataset("questions").digest == book.record.dataset.digest
    assert saved.artifact("greet@prod").digest == earlier.digest
    assert saved.artifact("greet").verify()
    assert [entry["version"] for entry in saved.artifacts()] == [1]
    assert (folder / "notebooks" / "greet.py").read_text() == "1 / 0\n"
    assert (folder / "corpus").is_symlink()
    assert (folder / "prompts" / "large.md").is_symlink()
    assert not (folder / "rows").exists()
    assert not (folder / ".env").exists()
    graph = scratch.built_indexes / built.name / "derived" / "graph"
    assert graph.read_text() == "graph"
    assert not graph.is_symlink()


def test_a_path_outside_of_the_workspace_is_refused(
    tmp_path: Path, layout: Layout, kept: Callable[..., Artifact]
) -> None:
    artifact = kept("1 / 0\n")
    book = artifact.notebook()
    assert book is not None
    away = replace(book, record=book.record.model_copy(update={"path": "../away.py"}))
    folder = tmp_path / "scratch"
    folder.mkdir()
    with pytest.raises(IntegrityError, match=r"\.\./away\.py is no path in a workspace"):
        make_workspace(folder, layout, artifact.run().manifest, away)
    assert not (tmp_path / "away.py").exists()


def rows_now(make_run: MakeRun, answers: dict[str, list[bool]], **changes: object) -> Run:
    return make_run(answers, run_id="run-now", changes=changes)


def test_other_answers_with_the_same_decision(kept: Callable[..., Artifact], make_run: MakeRun) -> None:
    artifact = kept("1 / 0\n")
    answers = {**CLEAR, "few": [True] * 52 + [False] * 8}
    environment = {"python": "3.11.7", "platform": "Linux", "polars": "2.2.0", "jinja2": "3.1.6"}
    found = compare_runs(artifact, artifact.run(), rows_now(make_run, answers, environment=environment), files="here")
    assert (found.verdict, found.ok) == ("same decision", True)
    assert [(side.variant, side.same, side.different) for side in found.answers] == [("base", 60, 0), ("few", 58, 2)]
    assert [(row.row_id, row.then, row.now) for row in found.changed] == [
        ("row-050", "NO", "YES"),
        ("row-051", "NO", "YES"),
    ]
    assert [(score.variant, score.different) for score in found.scores] == [("base", 0), ("few", 2)]
    assert found.environment == {"polars": ("2.1.0", "2.2.0")}
    text = str(found)
    assert text.startswith("The decision on greet@1 is reproduced: better, though 2 of 120 answers differ.")
    assert "exact of few: 0.8333 → 0.8667, 2 rows differ" in text
    assert "package polars: 2.1.0 → 2.2.0" in text


def test_another_decision_and_rows_that_only_one_run_has(kept: Callable[..., Artifact], make_run: MakeRun) -> None:
    artifact = kept("1 / 0\n")
    fewer = {name: marks[:50] for name, marks in UNCLEAR.items()}
    found = compare_runs(artifact, artifact.run(), rows_now(make_run, fewer), files="here", note="it ended badly")
    assert (found.verdict, found.ok) == ("different", False)
    assert [side.only_then for side in found.answers] == [10, 10]
    assert "NOT reproduced: the decision was better and is inconclusive" in str(found)
    assert "it ended badly" in found._repr_html_()


def test_scores_alone_may_differ_and_latency_is_left_out(kept: Callable[..., Artifact], make_run: MakeRun) -> None:
    artifact = kept("1 / 0\n")
    now = rows_now(make_run, dict(CLEAR))
    assert compare_runs(artifact, artifact.run(), now, files="here").verdict == "same"
    flipped = pl.when(pl.col("row_id") == "row-000").then(0.0).otherwise(pl.col("value")).alias("value")
    judged = Run.of(now.manifest, now.calls(), now.scores().with_columns(flipped))
    found = compare_runs(artifact, artifact.run(), judged, files="here")
    assert (found.verdict, found.headline()[-22:]) == ("same decision", "though some scores differ."[-22:])
    slow = Run.of(now.manifest, now.calls().with_columns(pl.lit(9.0).alias("latency_s")), now.scores())
    assert compare_runs(artifact, artifact.run(), slow, files="here").verdict == "same"


def test_what_makes_another_experiment_is_told(make_run: MakeRun) -> None:
    then = make_run().manifest
    variants = pipelines()
    other = {name: pipeline.model_dump(mode="json") for name, pipeline in variants.items()}
    other["few"] = variants["few"].with_(model="small", prompt=variants["base"].prompt).model_dump(mode="json")
    scorer = {**then.scorers[0], "name": "regex"}
    now = then.model_copy(
        update={"variants": {**other, "third": other["base"]}, "rows": 12, "scorers": [scorer], "repeats": 2}
    )
    assert differences(then, now) == [
        "it asks 12 rows of greetings, split test, not 60 rows of greetings, split test",
        "variant few has another prompt, model",
        "variant third is new",
        "scorer exact differs",
        "scorer regex differs",
        "repeats is 2, not 1",
    ]
    assert differences(then, then) == []


def test_a_single_variant_has_no_decision_to_stand(
    layout: Layout, kept: Callable[..., Artifact], make_run: MakeRun
) -> None:
    kept("1 / 0\n")
    source = (layout.runs / "run-1" / "notebook.json").read_bytes()
    digest = digest_bytes(b"1 / 0\n")
    run = make_run({"few": [True] * 40}, run_id="run-2", changes={"notebook_digest": digest})
    (run.folder / "notebook.json").write_bytes(source)
    (run.folder / "notebook.py").write_text("1 / 0\n")
    (layout.policies).mkdir()
    (layout.policies / "default.toml").write_text(POLICY)
    artifact = promote(layout, run, "greet", "few")
    same = compare_runs(artifact, artifact.run(), make_run({"few": [True] * 40}, run_id="run-3"), files="here")
    assert same.headline() == "greet@2 is reproduced: all 40 answers, every score came out the same."
    other = make_run({"few": [True] * 39 + [False]}, run_id="run-4")
    found = compare_runs(artifact, artifact.run(), other, files="here")
    assert (found.verdict, found.headline()) == ("different", "greet@2 is NOT reproduced: 1 of 40 answers differ.")
