"""Fine-tuning with trl's `SFTTrainer`, as its documentation shows it: rows of prompt and completion, a LoRA configuration."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.finetune.recipe import FinetuneRecipe
    from workbench.workspace import Layout


def train(layout: Layout, recipe: FinetuneRecipe, *, plain: bool = False) -> dict[str, Any]:
    """Train on the recipe's rows and save the adapter: where it lies, and the seconds and useful tokens of all steps.

    What the recipe says of rows, adapter and learning rate is given to trl; the rest is as trl has it.

    Args:
        plain: turn off what trl's defaults have for GPUs: bf16 and activation checkpointing.
    """
    import transformers

    import datasets
    from workbench.data.store import open_dataset
    from workbench.errors import require
    from workbench.finetune.build import load_base, lora_config
    from workbench.finetune.examples import encode
    from workbench.pipeline.prompt import output_text

    trl = require("trl", extra="finetune")
    settings, part = recipe.settings, open_dataset(layout, recipe.dataset).split(recipe.train)
    model, tokenizer, *_ = load_base(recipe, "cpu")
    rows = [
        {
            "prompt": [{"role": m.role, "content": m.content} for m in recipe.prompt.render(row.inputs)],
            "completion": [{"role": "assistant", "content": output_text(row.target)}],
        }
        for row in part.rows()
    ]
    folder = layout.root / "peer"
    arguments = trl.SFTConfig(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        max_length=settings.max_length,
        seed=settings.seed,
        **({"bf16": False, "activation_checkpointing": False} if plain else {}),
    )
    took: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            took.append(time.perf_counter() - self.began)

    trainer = trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora_config(recipe),
        callbacks=[Clock()],
    )
    trainer.train()
    adapter = folder / "adapter"
    trainer.save_model(str(adapter))
    return {
        "adapter": str(adapter),
        "steps": len(took),
        "tokens": round(settings.epochs * encode(recipe, part, tokenizer).tokens),
        "seconds": sum(took),
        "defaults": f"bf16={arguments.bf16}, activation_checkpointing={arguments.activation_checkpointing}",
    }
