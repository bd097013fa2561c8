"""A variant with an adapter, named in an experiment file by what people call it or by its digest."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.models.tiny import hollow_adapter
from workbench import api
from workbench.errors import ModelError, NotFoundError
from workbench.experiments.experiment import Experiment
from workbench.experiments.spec import read_experiment
from workbench.experiments.spec_schema import experiment_schema

SPEC = """
name: tuned-or-not
dataset: questions
variants:
  plain: {prompt: plain.md}
  tuned: {prompt: plain.md, adapter: triage}
"""


def read(workspace: api.Workspace, text: str = SPEC) -> Experiment:
    path: Path = workspace.root / "all.yaml"
    path.write_text(text)
    (workspace.root / "plain.md").write_text("{{ text }}")
    return read_experiment(workspace.layout, path)


def test_the_pipeline_holds_the_digest_of_the_adapter_that_is_found(workspace: api.Workspace) -> None:
    jsonschema.validate(yaml.safe_load(SPEC), experiment_schema())
    adapter = hollow_adapter(workspace.layout, "triage")
    for named in ("triage", adapter.digest, adapter.digest[7:15]):
        variants = read(workspace, SPEC.replace("triage", f'"{named}"')).variants
        assert [pipeline.adapter for pipeline in variants.values()] == [None, adapter.digest]
        assert variants["plain"].digest != variants["tuned"].digest


def test_an_adapter_that_is_not_there_is_named_with_its_place(workspace: api.Workspace) -> None:
    with pytest.raises(NotFoundError, match=r"all\.yaml: variants\.tuned\.adapter: no adapter 'triage'"):
        read(workspace)


def test_a_model_that_takes_no_adapter_is_refused_before_anything_is_asked(workspace: api.Workspace) -> None:
    hollow_adapter(workspace.layout, "triage")
    experiment = read(workspace)
    with pytest.raises(ModelError, match="instant takes no adapter"):
        experiment.run(show_progress=False)
    assert workspace.runs() == []
