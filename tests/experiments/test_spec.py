"""Experiments in YAML, and the schema by which editors complete them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.retrieval.words_embedder import WordsEmbedder
from workbench import api
from workbench.errors import NotFoundError, PipelineError, UsageError
from workbench.experiments.spec import read_experiment, read_spec
from workbench.experiments.spec_schema import experiment_schema
from workbench.retrieval.chunking import ChunkerSettings
from workbench.retrieval.corpus import Corpus
from workbench.retrieval.index import Index, list_indexes
from workbench.retrieval.recipe import IndexRecipe
from workbench.retrieval.types import Document
from workbench.workspace import Layout

ROOT = Path(__file__).parents[2]
WHOLE = """
name: all-settings
dataset: questions
split: train
limit: 4
budget_usd: 2.5
early_stopping: {every: 16, margin: 0.05}
primary: exact
repeats: 2
scorers:
  - exact
  - {type: numeric, tolerance: 0.5}
variants:
  plain: {prompt: plain.md}
  shaped:
    prompt: plain.md
    generation: {max_new_tokens: 9, stop: ["."]}
    response_schema: {type: object}
    postprocess: [{kind: strip}]
"""


def test_the_published_schema_is_the_one_of_the_code() -> None:
    published = json.loads((ROOT / "experiments" / "experiment.schema.json").read_text())
    assert published == experiment_schema(), "run: workbench run --schema > experiments/experiment.schema.json"
    jsonschema.Draft202012Validator.check_schema(published)


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.name)
def test_the_experiments_here_fit_it_and_can_be_built(path: Path, tmp_path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), experiment_schema())
    spec, layout = read_spec(path), api.open(ROOT).layout
    for variant in spec.variants.values():
        if variant.retrieval is not None:
            layout = _with_index(tmp_path, variant.retrieval.index)
    experiment = read_experiment(layout, path)
    assert list(experiment.variants) == list(spec.variants)
    assert len({pipeline.digest for pipeline in experiment.variants.values()}) == len(spec.variants)


def _with_index(folder: Path, name: str) -> Layout:
    """A workspace with the repository's data and an index of that name."""
    for part in ("datasets", "prompts"):
        shutil.copytree(ROOT / part, folder / part, dirs_exist_ok=True)
    (folder / "workbench.toml").write_text("format_version = 1\n")
    layout = api.open(folder).layout
    if not list_indexes(layout):
        recipe = IndexRecipe(embedder="words", chunker=ChunkerSettings(kind="recursive", size=40))
        corpus = Corpus("some", (Document("del", "Deletion is recursively defined."),))
        Index.build(layout, corpus, recipe, name=name, embedder=WordsEmbedder(), show_progress=False)
    return layout


RETRIEVING = """
name: from-passages
dataset: python-reference-qa
variants:
  closed: {prompt: closed.md}
  open:
    prompt: prompts/reference-answers.md
    retrieval: {index: reference, search: {k: 2, mode: sparse}, access: [staff]}
"""


def test_a_variant_may_search_an_index_by_name(tmp_path: Path) -> None:
    layout = _with_index(tmp_path, "reference")
    (tmp_path / "all.yaml").write_text(RETRIEVING)
    (tmp_path / "closed.md").write_text("Answer in one sentence: {{ question }}")
    jsonschema.validate(yaml.safe_load(RETRIEVING), experiment_schema())
    experiment = read_experiment(layout, tmp_path / "all.yaml")
    [index] = list_indexes(layout)
    retrieval = experiment.variants["open"].retrieval
    assert experiment.variants["closed"].retrieval is None
    assert retrieval is not None
    assert (retrieval.index, retrieval.search.k, retrieval.access) == (index.digest, 2, ("staff",))
    # By default the answers are judged as answers from passages are.
    assert experiment.primary == "token_f1"
    assert "groundedness" in [scorer.name for scorer in experiment.scorers]


@pytest.mark.parametrize(
    ("change", "to", "error", "message"),
    [
        (
            "index: reference",
            "index: nowhere",
            NotFoundError,
            r"variants\.open\.retrieval: no index 'nowhere'.*index build nowhere",
        ),
        ("k: 2", "k: 0", UsageError, r"retrieval\.search\.k"),
        ("index: reference,", "", UsageError, r"retrieval\.index"),
        ("prompts/reference-answers.md", "closed.md", PipelineError, "passages"),
    ],
)
def test_a_search_that_cannot_be_is_refused(
    tmp_path: Path, change: str, to: str, error: type[Exception], message: str
) -> None:
    layout = _with_index(tmp_path, "reference")
    (tmp_path / "closed.md").write_text("Answer in one sentence: {{ question }}")
    (tmp_path / "all.yaml").write_text(RETRIEVING.replace(change, to))
    with pytest.raises(error, match=message):
        read_experiment(layout, tmp_path / "all.yaml")


def test_every_setting_reaches_the_experiment(workspace: api.Workspace) -> None:
    path = workspace.root / "all.yaml"
    path.write_text(WHOLE)
    (workspace.root / "plain.md").write_text("{{ text }}")
    jsonschema.validate(yaml.safe_load(WHOLE), experiment_schema())
    experiment, spec = read_experiment(workspace.layout, path), read_spec(path)
    shaped = experiment.variants["shaped"]
    assert (shaped.generation.max_new_tokens, shaped.generation.stop) == (9, (".",))
    assert shaped.response_schema == {"type": "object"}
    assert [step.kind for step in shaped.postprocess] == ["strip"]
    assert [scorer.name for scorer in experiment.scorers] == ["exact", "numeric"]
    assert (len(experiment.rows), experiment.repeats, spec.budget_usd) == (4, 2, 2.5)
    assert not isinstance(spec.early_stopping, bool)
    assert spec.early_stopping.margin == 0.05


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("repeats: 2", "repeats: 0"),
        ("budget_usd: 2.5", "budget_usd: -1"),
        ("{every: 16, margin: 0.05}", "{evry: 16}"),
        ("  - exact\n", "  - {type: exact, tolerance: 1}\n"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(workspace: api.Workspace, change: str, place: str) -> None:
    text = WHOLE.replace(change, place)
    (workspace.root / "all.yaml").write_text(text)
    (workspace.root / "plain.md").write_text("{{ text }}")
    with pytest.raises(UsageError):
        read_experiment(workspace.layout, workspace.root / "all.yaml")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), experiment_schema())
