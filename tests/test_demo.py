"""The demo's own claims: its examples and its message are where it says they are, and it refuses what it should."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from workbench import api
from workbench.demo import DATASET, NEW_MESSAGE, PROMPTS, demo_experiment, run_demo

ROOT = Path(__file__).parents[1]


def test_the_few_shot_examples_are_rows_of_the_train_split() -> None:
    workspace = api.open(ROOT)
    train = {(row.inputs["text"]) for row in workspace.dataset(DATASET).split("train").rows()}
    examples = workspace.prompt(PROMPTS["few-shot"]).examples
    assert examples
    assert {example.inputs["text"] for example in examples} <= train


def test_the_new_message_is_in_no_split() -> None:
    assert NEW_MESSAGE not in {row.inputs["text"] for row in api.open(ROOT).dataset(DATASET).rows()}


@pytest.mark.slow
@pytest.mark.model
def test_too_few_rows_are_inconclusive_and_nothing_is_promoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = _copy(tmp_path)
    monkeypatch.chdir(workspace.root)
    text = io.StringIO()
    run_demo(limit=6, report=tmp_path / "report.html", console=Console(file=text, width=120))
    said = text.getvalue()
    assert "inconclusive" in said
    assert "Not promoted" in said
    assert workspace.artifacts() == []
    assert "<svg" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.model
def test_without_one_example_the_answers_change(tmp_path: Path) -> None:
    workspace = _copy(tmp_path)
    experiment = demo_experiment(workspace, limit=24)
    before = experiment.variants["few-shot"]
    fewer = before.with_(prompt=before.prompt.with_examples(before.prompt.examples[:-1]))
    rows = [row.inputs for row in experiment.rows]
    outputs = [
        [
            answer.completion.logprob
            for _, answer in sorted(pipeline.answers(pipeline.engine(), rows), key=lambda p: p[0])
        ]
        for pipeline in (before, fewer)
    ]
    assert outputs[0] != outputs[1]


def _copy(folder: Path) -> api.Workspace:
    for name in ("datasets", "prompts", "policies"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "workbench.toml", folder)
    return api.open(folder)
