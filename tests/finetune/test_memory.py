"""Memory told before training: by part as counted by hand, and in all as the process then takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.finetune.small import make_layout, make_recipe
from workbench.errors import ModelError, UsageError
from workbench.finetune.memory import MB, MemoryEstimate, available_mb, estimate_memory
from workbench.finetune.recipe import FinetuneRecipe
from workbench.models.store import STARTER
from workbench.workspace import Layout

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_layout(tmp_path_factory.mktemp("memory") / "workspace")


def rows(count: int, tokens: int, learned: int = 4) -> list[dict[str, Any]]:
    """Rows that share no beginning."""
    return [
        {"input_ids": [1 + row] * tokens, "labels": [-100] * (tokens - learned) + [1] * learned} for row in range(count)
    ]


def estimate(recipe: FinetuneRecipe, count: int = 4, tokens: int = 64, **settings: Any) -> MemoryEstimate:
    return estimate_memory(recipe.with_settings(**settings) if settings else recipe, rows(count, tokens))


def test_the_parts_are_what_can_be_counted_by_hand(layout: Layout) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    recipe = make_recipe(layout)
    found = estimate(recipe)
    model = AutoModelForCausalLM.from_pretrained(recipe.model, dtype=torch.float32)
    kept = [*model.parameters(), *model.buffers()]
    linear = [m for m in model.model.modules() if isinstance(m, torch.nn.Linear)]
    adapter = sum(4 * recipe.settings.rank * (m.in_features + m.out_features) for m in linear)
    assert found.weights * MB == pytest.approx(sum(tensor.nbytes for tensor in kept))
    assert found.adapter * MB == pytest.approx(adapter)
    assert found.gradients == found.adapter
    assert found.optimizer == 2 * found.adapter
    assert found.loading > found.weights
    assert found.training == max(found.steps, found.loading)
    assert found.peak == pytest.approx(found.framework + found.training)


def test_quantized_linear_layers_take_a_quarter_or_an_eighth_and_the_rest_stays_fp32(layout: Layout) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    recipe = make_recipe(layout)
    model = AutoModelForCausalLM.from_pretrained(recipe.model, dtype=torch.float32)
    linear = [m.weight for m in model.model.modules() if isinstance(m, torch.nn.Linear)]
    numbers, outputs = sum(w.numel() for w in linear), sum(len(w) for w in linear)
    full = estimate(recipe).weights
    assert (full - estimate(recipe, quantization="int8").weights) * MB == pytest.approx(3 * numbers - 4 * outputs)
    nf4 = (full - estimate(recipe, quantization="nf4").weights) * MB / numbers
    assert nf4 == pytest.approx(4 - 0.5 - 1 / 64 - 4 / (64 * 256))


def test_activations_grow_with_rows_and_tokens_and_shrink_with_checkpointing(layout: Layout) -> None:
    recipe = make_recipe(layout)
    small, wide, long = estimate(recipe), estimate(recipe, count=8), estimate(recipe, tokens=128)
    # The gradients that were there before count once, whatever the batch.
    assert wide.activations + wide.gradients == pytest.approx(2 * (small.activations + small.gradients), rel=0.1)
    assert long.activations > 1.9 * small.activations
    assert estimate(recipe, gradient_checkpointing=True).activations < small.activations
    assert estimate(recipe, rank=16).activations > small.activations


def test_a_beginning_that_rows_share_is_counted_once(layout: Layout) -> None:
    shared = [{**row, "input_ids": [7] * 48 + row["input_ids"][48:]} for row in rows(4, 64)]
    recipe = make_recipe(layout)
    assert estimate_memory(recipe, shared).activations < 0.7 * estimate(recipe).activations


def test_packed_rows_are_one_sequence(layout: Layout) -> None:
    recipe = make_recipe(layout, packing=True, batch_size=1)
    packed = [{**rows(1, 128)[0], "seq_lengths": [64, 64]}]
    assert estimate_memory(recipe, packed).activations > estimate(recipe, count=1, tokens=64).activations


def test_what_has_no_configuration_or_no_such_module_is_refused(layout: Layout, tmp_path: Path) -> None:
    recipe = make_recipe(layout)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ModelError, match=r"configuration of .* cannot be read"):
        estimate(recipe.model_copy(update={"model": str(tmp_path)}))
    with pytest.raises(UsageError, match="names no module"):
        estimate(recipe, target_modules=("no_such_proj",))


def test_a_container_limits_what_is_free(tmp_path: Path) -> None:
    everything = available_mb("cpu", tmp_path)
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{300 * MB}\n")
    (group / "memory.current").write_text(f"{100 * MB}\n")
    assert everything > 200
    assert available_mb("cpu", tmp_path) == 200
    (group / "memory.max").write_text("max\n")
    assert available_mb("cpu", tmp_path) > 200


# Rows, tokens, checkpointing.
SHAPES = [(1, 128, False), (4, 128, False), (4, 128, True), (2, 512, True), (1, 512, False)]


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize(("count", "tokens", "checkpointing"), SHAPES)
def test_the_estimate_is_within_15_percent_of_what_a_process_takes(
    layout: Layout, count: int, tokens: int, checkpointing: bool
) -> None:
    settings = {"batch_size": count, "rank": 8, "alpha": 16, "gradient_checkpointing": checkpointing}
    recipe = make_recipe(layout, **settings).model_copy(update={"model": STARTER})
    told = estimate_memory(recipe, rows(count, tokens, 16))
    worker = ROOT / "tests" / "finetune" / "memory_worker.py"
    result = subprocess.run(
        [sys.executable, str(worker), recipe.model_dump_json(), str(count), str(tokens)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    measured = json.loads(result.stdout.splitlines()[-1])
    print(f"steps: told {told.steps:.0f} MB, measured {measured['steps']:.0f}")
    assert told.steps == pytest.approx(measured["steps"], rel=0.15)
    assert told.loading == pytest.approx(measured["loading"], rel=0.15)
