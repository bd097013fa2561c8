"""Preference tuning: trl's DPOTrainer with our parts, and its loss without the work that does not change it."""

from __future__ import annotations

import math
from typing import Any

from workbench.errors import require
from workbench.finetune.loss import completion_loss
from workbench.finetune.recipe import TrainSettings
from workbench.finetune.trainer import TrainerParts


class PreferenceParts(TrainerParts):
    """What is particular to preferences.

    The loss is that of direct preference optimization (Rafailov et al. 2023, equation 7): of each pair
    -log σ(β (log π(chosen)/π₀(chosen) - log π(rejected)/π₀(rejected))), where π₀ is the base, or the adapter that training
    started from.

    Attributes:
        beta: how dearly it costs to move away from π₀.
    """

    beta: float
    # trl's: what its loss measured on the way.
    _metrics: Any
    measures = ("loss", "accuracy")

    def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
        # The rows are tokens already, those of the question exactly as the engine feeds them.
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss of the pairs, in nats."""
        found = None
        if not return_outputs and self.accelerator.num_processes == 1:
            found = self._margins(model, inputs)
        if found is None:
            # Past our own: trl's takes no count of items.
            return super(TrainerParts, self).compute_loss(model, inputs, return_outputs)  # type: ignore[misc]
        return _loss(self.beta * found).mean()

    def measure(self, inputs: dict[str, Any]) -> list[float]:
        """Number of pairs, their losses summed, and in how many the chosen answer gained more than the rejected one."""
        pairs = len(inputs["input_ids"]) // 2
        found = self._margins(self.model, inputs) if self.accelerator.num_processes == 1 else None
        if found is not None:
            return [pairs, float(_loss(self.beta * found).sum()), float((found > 0).sum())]
        real = int(inputs["completion_mask"].any(dim=1).sum()) // 2
        # Of a pair that only fills up, both answers are empty: its loss is log 2.
        total = float(self.compute_loss(self.model, inputs)) * pairs - (pairs - real) * math.log(2)
        preferred = self._metrics["eval"]["rewards/accuracies"][-1] * pairs
        return [real, total, preferred]

    def _margins(self, model: Any, inputs: dict[str, Any]) -> Any | None:
        """By how much more than π₀ the model prefers the chosen answer, in nats, of shape (pairs,); None as `completion_loss`."""
        torch = require("torch", extra="finetune")
        from trl.models.utils import disable_gradient_checkpointing
        from trl.trainer.utils import use_adapter

        batch = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        batch["labels"] = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        reference = "ref" if "ref" in model.peft_config else None
        with (
            torch.no_grad(),
            disable_gradient_checkpointing(model, self.args.gradient_checkpointing_kwargs),
            use_adapter(model, adapter_name=reference),
        ):
            before = completion_loss(model, batch, share=self.share)
        if before is None:
            return None
        now = completion_loss(model, batch, share=self.share)
        assert now is not None
        chosen, rejected = (before[0] - now[0]).chunk(2)
        return chosen - rejected


def _loss(margins: Any) -> Any:
    torch = require("torch", extra="finetune")
    return -torch.nn.functional.logsigmoid(margins)


def dpo_trainer(settings: TrainSettings, arguments: dict[str, Any], *, fresh: bool, **parts: Any) -> Any:
    """trl's DPOTrainer with our parts.

    Args:
        arguments: as of `common_arguments`.
        fresh: whether the adapter is a new one, and π₀ therefore the base.
        parts: `model`, `train_dataset`, `eval_dataset` and `processing_class`, as trl's takes them.
    """
    trl = require("trl", extra="finetune")
    made = type("WorkbenchDPOTrainer", (PreferenceParts, trl.DPOTrainer), {})
    trainer = made(args=trl.DPOConfig(**arguments, max_length=None, beta=settings.beta), **parts)
    if fresh:
        parts["model"].delete_adapter("ref")
    # Since the copy was added, the adapter itself is no longer marked as what is trained.
    parts["model"].set_adapter("default")
    return trainer
