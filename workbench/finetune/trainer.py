"""The trainer: trl's, with a loss that looks at the answers alone, a fixed order of rows, and checkpoints that are whole."""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import RunError, require
from workbench.finetune.checkpoints import prune, publish_checkpoint, staging
from workbench.finetune.loss import completion_loss
from workbench.finetune.order import look_every
from workbench.finetune.recipe import TrainSettings

# Bytes: with less left when a write failed, that is why.
_NO_ROOM = 1 << 20


class Order:
    """A sampler that yields a fixed list of rows."""

    def __init__(self, rows: Sequence[int]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class TrainerParts:
    """What all our trainers share; mixed in before one of trl's.

    Attributes:
        order: rows of the whole training, in order.
        share: whether the beginning that rows have in common goes through the model once.
        ends: why training stops at this step; a checkpoint remembers it.
    """

    order: Sequence[int]
    share: bool
    ends: str | None
    # Set by the trainer that this is mixed into.
    args: Any
    state: Any
    control: Any
    model: Any
    accelerator: Any
    callback_handler: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return Order(self.order)

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        # The rows lie in order of length.
        return Order(range(len(eval_dataset)))

    def create_model_card(self, **kwargs: Any) -> None:
        """None: the adapter's manifest says what it is."""

    def _determine_best_metric(self, metrics: Any, trial: Any) -> bool:
        # The best checkpoint is told by the markers of those that are whole.
        return False

    def _get_output_dir(self, trial: Any) -> str:
        return str(staging(Path(self.args.output_dir), self.state.global_step))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # The adapter alone: the base is found by its name, and nothing is pickled.
        self.model.save_pretrained(
            output_dir or self.args.output_dir, state_dict=state_dict, save_embedding_layers=False
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder, step = Path(self.args.output_dir), self.state.global_step
        staged = staging(folder, step)
        try:
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            losses = [
                entry["eval_loss"]
                for entry in self.state.log_history
                if entry.get("step") == step and "eval_loss" in entry
            ]
            publish_checkpoint(
                folder,
                step,
                micro_batch=self.args.per_device_train_batch_size,
                dev_loss=losses[-1] if losses else None,
                ends=self.ends or ("steps" if step >= self.state.max_steps else None),
            )
        except Exception as error:
            room = shutil.disk_usage(folder).free
            shutil.rmtree(staged, ignore_errors=True)
            if not _disk_is_full(error, room):
                raise
            raise RunError(
                f"the disk of {folder} is full: the checkpoint of step {step} could not be kept",
                hint="Make room and run again: training goes on from the checkpoint before.",
            ) from error
        prune(folder)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss over the learned tokens of the dev split: the same however rows are batched."""
        torch = require("torch", extra="finetune")
        self.model.eval()
        total = torch.zeros(2, dtype=torch.float64, device="cpu")
        for inputs in self.get_eval_dataloader(eval_dataset):  # type: ignore[attr-defined]
            inputs = self._prepare_inputs(inputs)  # type: ignore[attr-defined]
            with torch.no_grad(), self.compute_loss_context_manager():  # type: ignore[attr-defined]
                count = (inputs["labels"][:, 1:] != -100).sum()
                loss = self.compute_loss(self.model, inputs)
            total += torch.tensor([float(loss) * float(count), float(count)], dtype=torch.float64)
        if self.accelerator.num_processes > 1:
            total = self.accelerator.reduce(total.to(self.accelerator.device), "sum").cpu()
        metrics = {f"{metric_key_prefix}_loss": float(total[0] / total[1])}
        self.log(metrics)  # type: ignore[attr-defined]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood of the learned tokens, by `completion_loss` where that suits, else by trl."""
        found = None
        if not return_outputs and self.accelerator.num_processes == 1:
            found = completion_loss(model, inputs, share=self.share)
        if found is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        total, count = found
        return total / (count if num_items_in_batch is None else num_items_in_batch)


def _disk_is_full(error: Exception, room: int) -> bool:
    """Whether saving failed for want of room; the writers of weights and optimizer states say so in words of their own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return room < _NO_ROOM


def sft_trainer() -> type[Any]:
    """trl's SFTTrainer with our parts."""
    trl = require("trl", extra="finetune")
    return type("WorkbenchSFTTrainer", (TrainerParts, trl.SFTTrainer), {})


def common_arguments(
    settings: TrainSettings, folder: Path, device: str, micro_batch: int, steps: int
) -> dict[str, Any]:
    """Arguments that every kind of training has, for trl's configurations."""
    every = look_every(steps, settings.eval_every)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = device.startswith("cuda")
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": micro_batch,
        "per_device_eval_batch_size": micro_batch,
        "gradient_accumulation_steps": max(1, settings.batch_size // (micro_batch * processes)),
        "num_train_epochs": 1,
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "warmup_steps": math.ceil(settings.warmup * steps),
        "lr_scheduler_type": "cosine",
        "activation_checkpointing": settings.gradient_checkpointing,
        "bf16": cuda,
        "use_cpu": device == "cpu",
        "seed": settings.seed,
        "data_seed": settings.seed,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "prediction_loss_only": True,
        "logging_steps": 1,
        # A loss that is not a number must be seen, not smoothed away.
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": cuda,
        "push_to_hub": False,
    }


def as_dataset(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows in memory, in the form that trl's trainers take."""
    datasets = require("datasets", extra="finetune")
    return datasets.Dataset.from_list([dict(row) for row in rows])
