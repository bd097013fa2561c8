"""A workspace with a tiny random model and sixty rows to train it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.models.tiny import save_tiny_model
from workbench.data.store import import_dataset
from workbench.finetune.recipe import FinetuneRecipe, TrainSettings
from workbench.pipeline.prompt import Prompt
from workbench.workspace import Layout

ROWS = 60
COLOURS = ("red", "green", "blue")
PROMPT = "## system\nName the colour.\n## user\n{{ text }}"


def make_layout(
    folder: Path, *, rows: int = ROWS, target: Callable[[int], Any] = lambda n: COLOURS[n % 3], **model: Any
) -> Layout:
    """The model lies beside the workspace, so that workspaces beside one another share it."""
    folder.mkdir(parents=True)
    (folder / "workbench.toml").write_text("format_version = 1\n")
    if not model_of(folder).exists():
        save_tiny_model(model_of(folder), **model)
    source = folder / "rows.jsonl"
    lines = [
        {
            "id": f"r{n}",
            "text": f"{COLOURS[n % 3][::-1]} {'x' * (n * 7 % 23)}",
            "label": target(n),
            "part": "dev" if n % 5 == 4 else "train",
        }
        for n in range(rows)
    ]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    layout = Layout.find(folder)
    import_dataset(layout, source, name="colours", input=("text",), target=("label",), id="id", split_column="part")
    return layout


def model_of(folder: Path) -> Path:
    return folder.parent / "model"


def make_recipe(layout: Layout, **settings: Any) -> FinetuneRecipe:
    """Twelve steps of four rows, with a look at the dev split every three."""
    fields = {
        "quantization": "none",
        "rank": 4,
        "alpha": 8,
        "batch_size": 4,
        "max_steps": 12,
        "eval_every": 3,
        "patience": 100,
        "learning_rate": 5e-3,
    }
    return FinetuneRecipe(
        name="colours",
        dataset="colours",
        model=str(model_of(layout.root)),
        prompt=Prompt.from_text(PROMPT),
        settings=TrainSettings.model_validate(fields | settings),
    )
