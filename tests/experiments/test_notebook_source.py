"""What a run keeps of the notebook or file that made it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.instant import InstantEngine
from tests.workspaces import make_experiment, make_workspace
from workbench import api
from workbench.data.store import import_dataset
from workbench.errors import IntegrityError, WorkbenchWarning
from workbench.experiments.experiment import Experiment
from workbench.experiments.notebook_cells import marimo_shape, stripped_jupyter
from workbench.experiments.notebook_source import MOST_ORDERED, make_source
from workbench.experiments.run import Run
from workbench.files import digest_bytes
from workbench.registry.build import NOTEBOOK
from workbench.registry.diff import diff
from workbench.registry.policy import Policy
from workbench.registry.promote import promote
from workbench.validation import line_with_key

LET_PASS = Policy.model_validate({"decision": {"minimum": "none", "min_rows": 1}})
SCRIPT = "# asks\nprint('hello')\n"
# Put together here, so that no file of the project holds what looks like a key.
KEYS = [
    "sk" + "-proj-" + "a1B2c3D4e5F6g7H8i9J0k1L2",
    "hf" + "_" + "abcdEFGHijklMNOPqrstUVWXyzabCDEFgh",
    "AI" + "za" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "AK" + "IA" + "ABCDEFGHIJKLMNOP",
]


@pytest.fixture
def workspace(tmp_path: Path, instant: InstantEngine) -> api.Workspace:
    return make_workspace(tmp_path / "workspace", rows=6)


def run_with(workspace: api.Workspace, source: str | bytes, name: str = "one.py", **options: Any) -> Run:
    path = workspace.root / "notebooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return experiment_of(workspace, notebook=path, **options).run(show_progress=False)


def experiment_of(workspace: api.Workspace, **options: Any) -> Experiment:
    plain = make_experiment(workspace)
    return Experiment(plain.name, plain.dataset, plain.variants, plain.scorers, plain.layout, **options)


def test_the_file_is_kept_as_it_is_on_disk(workspace: api.Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["one.py", "--limit", "6"])
    run = run_with(workspace, SCRIPT)
    assert (run.folder / "notebook.py").read_text() == SCRIPT
    book = Run(run.folder).notebook()
    assert book is not None
    record = book.record
    assert (record.kind, record.path, record.arguments) == ("script", "notebooks/one.py", ("--limit", "6"))
    assert record.digest == run.manifest.notebook_digest == digest_bytes(SCRIPT.encode())
    # Stored order: q0, q1, … q5, which is that of the ids.
    assert (record.dataset.name, record.dataset.order) == ("questions", None)


def test_what_is_kept_changes_nothing_of_the_experiment(workspace: api.Workspace) -> None:
    plain = make_experiment(workspace)
    run = run_with(workspace, SCRIPT, arguments=["--limit=6"], file=Path("x.yaml"))
    assert run.manifest.experiment_digest == plain.digest
    # The same experiment from another place finds the run, which still says what made it.
    again = run_with(workspace, "print('edited since')\n")
    assert again.id == run.id
    book = again.notebook()
    assert book is not None
    assert (book.source, book.record.arguments) == (SCRIPT.encode(), ("--limit=6",))


def test_a_run_without_any_file_keeps_none(workspace: api.Workspace) -> None:
    run = make_experiment(workspace).run(show_progress=False)
    assert run.notebook() is None
    artifact = promote(workspace.layout, run, "loud", "loud", policy=LET_PASS)
    assert NOTEBOOK not in artifact.layers
    assert dict(artifact.summary())["notebook"] == "none"


def test_an_experiment_file_is_kept_where_no_notebook_made_the_run(workspace: api.Workspace) -> None:
    path = workspace.root / "ask.yaml"
    path.write_text("name: x\n")
    run = experiment_of(workspace, file=path, arguments=["--stop-early"]).run(show_progress=False)
    assert (run.folder / "experiment.yaml").read_text() == "name: x\n"
    book = run.notebook()
    assert book is not None
    assert (book.record.kind, book.record.path) == ("experiment", "ask.yaml")
    assert book.record.arguments == ("--stop-early",)
    assert run.manifest.notebook is None


@pytest.mark.parametrize("key", KEYS)
def test_a_source_with_a_key_is_not_kept_and_the_run_goes_on(workspace: api.Workspace, key: str) -> None:
    with pytest.warns(WorkbenchWarning, match="line 3 holds what looks like an API key") as warned:
        run = run_with(workspace, f"{SCRIPT}client = Client('{key}')\n")
    assert run.complete
    assert not (run.folder / "notebook.py").exists()
    book = run.notebook()
    assert book is not None
    assert book.record.not_kept == "line 3 holds what looks like an API key"
    assert key not in (run.folder / NOTEBOOK).read_text() + str(warned[0].message)
    artifact = promote(workspace.layout, run, "loud", "loud", policy=LET_PASS)
    assert dict(artifact.summary())["notebook"] == f"notebooks/one.py, not kept: {book.record.not_kept}"


def test_a_key_in_the_arguments_is_not_kept_either(workspace: api.Workspace) -> None:
    with pytest.warns(WorkbenchWarning, match="its arguments hold"):
        run = run_with(workspace, SCRIPT, arguments=[f"--key={KEYS[0]}"])
    assert KEYS[0] not in (run.folder / NOTEBOOK).read_text()
    book = run.notebook()
    assert book is not None
    assert (book.source, book.record.arguments) == (None, ())


@pytest.mark.parametrize(
    "line",
    [
        "hf_save_dataset_to_disk(sk_learn_pipeline_of_words)",
        "Pipeline(model='Qwen2-5-Coder-32B-Instruct-GPTQ-Int4', max_new_tokens=64)",
        "key = os.environ['OPENAI_API_KEY']",
        "digest = 'sha256:" + "0a" * 32 + "'",
        "tokenizer = AutoTokenizer.from_pretrained('SmolLM2-135M-Instruct-Q4x1-Gguf')",
    ],
)
def test_what_only_resembles_a_key_is_kept(line: str) -> None:
    assert line_with_key(line) is None


def test_a_random_text_is_a_key_where_the_line_speaks_of_one() -> None:
    random = "aB3dE6gH9j" + "K2mN5pQ8sT1vW4x"
    assert line_with_key(f"x = 1\napi_key = '{random}'") == 2
    assert line_with_key(f"name = '{random}'") is None


@pytest.mark.parametrize(("source", "why"), [(b"\xff\xfe", "no UTF-8"), (b"{]", "no Jupyter notebook")])
def test_a_file_that_cannot_be_read_is_not_kept(workspace: api.Workspace, source: bytes, why: str) -> None:
    name = "one.py" if why == "no UTF-8" else "one.ipynb"
    with pytest.warns(WorkbenchWarning, match=why):
        run = run_with(workspace, source, name)
    assert run.complete
    book = run.notebook()
    assert book is not None
    assert book.source is None


def notebook(output: str, count: int) -> bytes:
    cells = [
        nbformat.v4.new_markdown_cell("# A title", id="title"),
        nbformat.v4.new_code_cell(
            "limit = 6",
            id="given",
            execution_count=count,
            outputs=[nbformat.v4.new_output("stream", text=output)],
            metadata={"tags": ["parameters"], "execution": {"at": output}},
        ),
    ]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book.metadata["widgets"] = {"state": output}
    return str(nbformat.writes(book)).encode()


def test_a_jupyter_notebook_is_the_same_however_often_it_ran(workspace: api.Workspace) -> None:
    first, shape = stripped_jupyter(notebook("one", 1))
    second, _ = stripped_jupyter(notebook("two", 9))
    assert first == second
    assert b"one" not in first
    nbformat.validate(nbformat.reads(first.decode(), as_version=4))
    assert shape.app == {"kernelspec": "python3"}
    kinds = [(cell["type"], cell["id"], cell["tags"]) for cell in shape.cells]
    assert kinds == [("markdown", "title", []), ("code", "given", ["parameters"])]
    run = run_with(workspace, notebook("one", 1), "one.ipynb")
    assert (run.folder / "notebook.ipynb").read_bytes() == first
    assert run.manifest.notebook_digest == digest_bytes(notebook("one", 1))


def test_a_key_in_a_cell_is_told_by_cell_and_line(workspace: api.Workspace) -> None:
    book = json.loads(notebook("one", 1))
    book["cells"][1]["source"] = ["limit = 6\n", f"key = '{KEYS[0]}'"]
    found = make_source(json.dumps(book).encode(), "one.ipynb", arguments=(), dataset=workspace.dataset("questions"))
    assert found.record.not_kept == "line 2 of cell 2 holds what looks like an API key"
    assert found.source is None


def test_cells_of_a_marimo_file_are_told_without_running_it() -> None:
    source = (
        "import marimo\n\napp = marimo.App(width='medium', css_file=pick())\n\n"
        "with app.setup(hide_code=True):\n    import this_is_not_installed\n\n"
        "@app.function\ndef double(x):\n    return 2 * x\n\n"
        "@app.cell(disabled=True, column=1)\ndef first():\n    limit = 6\n    return (limit,)\n\n"
        "@app.cell\nasync def _(limit):\n    limit\n    return\n"
    )
    shape = marimo_shape(source)
    assert shape is not None
    assert shape.app == {"width": "medium", "css_file": "pick()"}
    assert [(cell["name"], cell["config"]) for cell in shape.cells] == [
        ("setup", {"hide_code": True}),
        ("double", {}),
        ("first", {"disabled": True, "column": 1}),
        ("_", {}),
    ]
    edited = marimo_shape(source.replace("limit = 6", "limit = 7"))
    assert edited is not None
    changed = [a["name"] for a, b in zip(shape.cells, edited.cells, strict=True) if a["digest"] != b["digest"]]
    assert changed == ["first"]
    assert marimo_shape("print(1)\n") is None
    assert marimo_shape("def broken(:\n") is None


def test_the_order_of_rows_is_kept_where_it_is_not_that_of_the_ids(workspace: api.Workspace) -> None:
    rows = workspace.root / "mixed.jsonl"
    rows.write_text("".join(json.dumps({"id": name, "text": name}) + "\n" for name in "cab"))
    data = import_dataset(workspace.layout, rows, name="mixed", input=("text",), id="id", unlabelled=True)
    assert len(data) < MOST_ORDERED
    record = make_source(b"", "one.py", arguments=(), dataset=data.head(2)).record
    assert record.dataset.digest == data.digest
    assert record.dataset.order == (2, 0, 1)
    assert record.dataset.splits == (("train", 0.4), ("dev", 0.2), ("test", 0.4))
    assert "order" not in record.to_json()["dataset"]


@pytest.mark.parametrize("damage", ["edited", "removed", "record", "both"])
def test_a_damaged_source_is_refused(workspace: api.Workspace, damage: str) -> None:
    run = run_with(workspace, SCRIPT)
    if damage == "removed":
        (run.folder / "notebook.py").unlink()
    elif damage == "record":
        (run.folder / NOTEBOOK).write_text("{}")
    else:
        (run.folder / "notebook.py").write_text("print('other')\n")
    if damage == "both":
        record = json.loads((run.folder / NOTEBOOK).read_text())
        record["digest"] = digest_bytes(b"print('other')\n")
        (run.folder / NOTEBOOK).write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match="notebook"):
        promote(workspace.layout, run, "loud", "loud", policy=LET_PASS)
    assert workspace.artifacts() == []


def test_the_artifact_holds_it_and_the_same_run_gives_the_same_artifact(workspace: api.Workspace) -> None:
    run = run_with(workspace, notebook("one", 1), "one.ipynb", arguments=["--limit=6"])
    artifact = promote(workspace.layout, run, "loud", "loud", policy=LET_PASS)
    assert promote(workspace.layout, Run(run.folder), "loud", "loud", policy=LET_PASS).digest == artifact.digest
    assert {"notebook.ipynb", "notebook.json"} <= set(artifact.layers)
    assert artifact.notebook() == run.notebook()
    shown = artifact.to_json()["notebook"]
    assert (shown["kind"], shown["arguments"]) == ("jupyter", ["--limit=6"])
    assert dict(artifact.summary())["notebook"] == "notebooks/one.ipynb with --limit=6"


def test_a_diff_tells_which_parts_of_the_notebook_changed(workspace: api.Workspace) -> None:
    made = []
    for limit, words in ((6, ["--a"]), (7, ["--b"])):
        source = f"import marimo\n\napp = marimo.App()\n\n@app.cell\ndef first():\n    limit = {limit}\n    return\n"
        path = workspace.root / "one.py"
        path.write_text(source)
        experiment = experiment_of(workspace, notebook=path, arguments=words)
        run = experiment.run(fresh=True, show_progress=False)
        made.append(promote(workspace.layout, run, "loud", "loud", policy=LET_PASS))
    found = diff(*made)
    assert not found
    assert sorted(found.notebook) == ["arguments", "cell first", "source"]
    assert found.notebook["arguments"] == ("--a", "--b")
    assert "cell first" in str(found)
    assert diff(made[0], made[0]).notebook == {}
