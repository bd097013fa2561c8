"""Experiments in YAML, and the schema by which editors complete them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from workbench import api
from workbench.errors import UsageError
from workbench.experiments.spec import read_experiment, read_spec
from workbench.experiments.spec_schema import experiment_schema

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
def test_the_experiments_here_fit_it_and_can_be_built(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), experiment_schema())
    experiment = read_experiment(api.open(ROOT).layout, path)
    assert list(experiment.variants) == ["zero-shot", "few-shot"]


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
