"""A workspace with forty questions, and an experiment on them."""

from __future__ import annotations

import json
from pathlib import Path

from workbench import api
from workbench.data.store import import_dataset
from workbench.experiments import scorers
from workbench.experiments.experiment import Experiment
from workbench.pipeline.pipeline import Pipeline
from workbench.pipeline.prompt import Prompt

ROWS = 40


def make_workspace(folder: Path, rows: int = ROWS) -> api.Workspace:
    folder.mkdir(parents=True)
    (folder / "workbench.toml").write_text('format_version = 1\nmodel = "instant"\n')
    source = folder / "questions.jsonl"
    lines = [
        {"id": f"q{n}", "text": f"question {n} word{n}", "label": f"word{n}" if n % 5 else f"WORD{n}"}
        for n in range(rows)
    ]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    workspace = api.open(folder)
    import_dataset(workspace.layout, source, name="questions", input=("text",), target=("label",), id="id")
    return workspace


def make_experiment(workspace: api.Workspace, *, repeats: int = 1, name: str = "quiet-or-loud") -> Experiment:
    quiet = Pipeline(model="instant", prompt=Prompt.from_text("{{ text }}"))
    loud = quiet.with_(prompt=Prompt.from_text("## system\nShout.\n## user\n{{ text }}"))
    return workspace.experiment(
        name,
        dataset=workspace.dataset("questions"),
        variants={"quiet": quiet, "loud": loud},
        scorers=[scorers.exact(), scorers.latency()],
        repeats=repeats,
    )
