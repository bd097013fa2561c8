"""Two optimizer steps in a process of their own; prints the most memory beyond the libraries, in MB: loading, and in steps."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import peft  # noqa: F401
import torch
import trl  # noqa: F401

from workbench.finetune.build import load_base, with_adapter
from workbench.finetune.loss import completion_loss
from workbench.finetune.memory import _batch, give_back_at_once
from workbench.finetune.recipe import FinetuneRecipe


def memory(key: str) -> float:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main(recipe: FinetuneRecipe, count: int, tokens: int) -> None:
    give_back_at_once()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    base, *_ = load_base(recipe, "cpu")
    loading = memory("VmHWM") - before
    # From here on the peak is that of the steps, which loading would hide where they take less.
    Path("/proc/self/clear_refs").write_text("5")
    model = with_adapter(base, recipe)
    model.train()
    if recipe.settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()
    optimizer = torch.optim.AdamW([weights for weights in model.parameters() if weights.requires_grad], fused=True)
    rows = [{"input_ids": [1 + row] * tokens, "labels": [-100] * (tokens - 16) + [1] * 16} for row in range(count)]
    for _ in range(2):
        found = completion_loss(model, _batch(rows, packing=False), share=not recipe.settings.gradient_checkpointing)
        assert found is not None
        found[0].sum().backward()
        del found
        optimizer.step()
        optimizer.zero_grad()
    print(json.dumps({"loading": loading, "steps": memory("VmHWM") - before}))


if __name__ == "__main__":
    main(FinetuneRecipe.model_validate_json(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
