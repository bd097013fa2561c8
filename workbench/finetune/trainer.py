"""The trainer: trl's, with a loss that looks at the answers alone, a fixed order of rows, and checkpoints that are whole."""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import RunError, require
from workbench.finetune import processes
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
        measures: what `measure` sums, by name.
    """

    order: Sequence[int]
    share: bool
    ends: str | None
    measures: tuple[str, ...] = ("loss",)
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
        # The adapter alone: the base is found by its name, and nothing is pickled. Of weights that are dealt out the
        # main process has all, and the others, which may be asked to save too, none.
        if not processes.is_main():
            return
        self.model.save_pretrained(
            output_dir or self.args.output_dir, state_dict=state_dict, save_embedding_layers=False
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder, step = Path(self.args.output_dir), self.state.global_step
        staged = staging(folder, step)
        try:
            if processes.is_main():
                shutil.rmtree(staged, ignore_errors=True)
                staged.mkdir(parents=True)
            processes.wait()
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            processes.wait()
            if processes.is_main():
                self._publish(folder, step)
            processes.wait()
        except Exception as error:
            room = shutil.disk_usage(folder).free
            shutil.rmtree(staged, ignore_errors=True)
            if not _disk_is_full(error, room):
                raise
            raise RunError(
                f"the disk of {folder} is full: the checkpoint of step {step} could not be kept",
                hint="Make room and run again: training goes on from the checkpoint before.",
            ) from error

    def _publish(self, folder: Path, step: int) -> None:
        losses = [
            entry["eval_loss"] for entry in self.state.log_history if entry.get("step") == step and "eval_loss" in entry
        ]
        publish_checkpoint(
            folder,
            step,
            micro_batch=self.args.per_device_train_batch_size,
            dev_loss=losses[-1] if losses else None,
            ends=self.ends or ("steps" if step >= self.state.max_steps else None),
        )
        prune(folder)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Means over the dev split: of its learned tokens, or of its pairs, the same however rows are batched."""
        torch = require("torch", extra="finetune")
        self.model.eval()
        total = torch.zeros(1 + len(self.measures), dtype=torch.float64, device="cpu")
        for inputs in self.get_eval_dataloader(eval_dataset):  # type: ignore[attr-defined]
            inputs = self._prepare_inputs(inputs)  # type: ignore[attr-defined]
            with torch.no_grad(), self.compute_loss_context_manager():  # type: ignore[attr-defined]
                total += torch.tensor(self.measure(inputs), dtype=torch.float64)
        if self.accelerator.num_processes > 1:
            total = self.accelerator.reduce(total.to(self.accelerator.device), "sum").cpu()
        means = (total[1:] / total[0]).tolist()
        metrics = {f"{metric_key_prefix}_{name}": mean for name, mean in zip(self.measures, means, strict=True)}
        self.log(metrics)  # type: ignore[attr-defined]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measure(self, inputs: dict[str, Any]) -> list[float]:
        """Of a batch, what `measures` are means over, and the sum of each."""
        count = float((inputs["labels"][:, 1:] != -100).sum())
        loss = float(self.compute_loss(self.model, inputs))
        # A batch that only fills up has no mean.
        return [count, loss * count if count else 0.0]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood of the learned tokens, by `completion_loss` where that suits, else by trl."""
        found = None
        if not return_outputs and self.accelerator.num_processes == 1:
            found = completion_loss(model, inputs, share=self.share)
        if found is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        losses, counts = found
        return losses.sum() / (counts.sum() if num_items_in_batch is None else num_items_in_batch)


def _disk_is_full(error: Exception, room: int) -> bool:
    """Whether saving failed for want of room; the writers of weights and optimizer states say so in words of their own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return room < _NO_ROOM


def sft_trainer(settings: TrainSettings, arguments: dict[str, Any], **parts: Any) -> Any:
    """trl's SFTTrainer with our parts.

    Args:
        arguments: as of `common_arguments`.
        parts: `model`, `train_dataset`, `eval_dataset` and `processing_class`, as trl's takes them.
    """
    trl = require("trl", extra="finetune")
    made = type("WorkbenchSFTTrainer", (TrainerParts, trl.SFTTrainer), {})
    ours = {
        "max_length": settings.max_length,
        "packing": settings.packing,
        "eval_packing": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    return made(args=trl.SFTConfig(**arguments, **ours), **parts)


def common_arguments(
    settings: TrainSettings, folder: Path, device: str, micro_batch: int, steps: int
) -> dict[str, Any]:
    """Arguments that every kind of training has, for trl's configurations."""
    every = look_every(steps, settings.eval_every)
    cuda = device.startswith("cuda")
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": micro_batch,
        "per_device_eval_batch_size": micro_batch,
        "gradient_accumulation_steps": settings.batch_size // (micro_batch * processes.count()),
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
        # Every weight of an adapter is used in every step.
        "ddp_find_unused_parameters": False,
        "push_to_hub": False,
    }
