"""Training: from a recipe to a published adapter, however often it is interrupted on the way."""

from __future__ import annotations

import contextlib
import errno
import gc
import shutil
import time
import warnings
from collections.abc import Mapping
from typing import Any

import polars as pl

from workbench.data.dataset import Dataset
from workbench.errors import OutOfMemoryError, RunError, UsageError, WorkbenchWarning, require
from workbench.events.journal import JournalWriter
from workbench.experiments.origin import now
from workbench.finetune import processes
from workbench.finetune.build import load_base, start_of, with_adapter
from workbench.finetune.callbacks import Recorder, Watch, callback
from workbench.finetune.checkpoints import Checkpoint, best_of, whole_checkpoints
from workbench.finetune.examples import open_splits
from workbench.finetune.inputs import Examples, as_dataset, filled_up, make_examples
from workbench.finetune.order import steps_of, training_order
from workbench.finetune.preference import dpo_trainer
from workbench.finetune.quiet import quiet
from workbench.finetune.recipe import FinetuneRecipe, TrainSettings
from workbench.finetune.record import Training, TrainingRecord, peak_memory_mb, training_id
from workbench.finetune.result import TrainResult, finished, result_of
from workbench.finetune.trainer import common_arguments, sft_trainer
from workbench.finetune.watchdog import Diverged, Watchdog
from workbench.models.adapters import publish_adapter
from workbench.models.store import find_model
from workbench.models.transformers_engine import best_device, out_of_memory
from workbench.progress import Progress
from workbench.progress import progress as progress_bar
from workbench.workspace import Layout

__all__ = ["TrainResult", "train"]


def train(
    layout: Layout,
    recipe: FinetuneRecipe,
    *,
    resume: bool = True,
    show_progress: bool = True,
    max_steps: int | None = None,
    device: str | None = None,
    watch: Watch | None = None,
) -> TrainResult:
    """Train the recipe's adapter and publish the best checkpoint's.

    Called again after it was interrupted, it goes on from the last whole checkpoint, on a CPU in fp32 to the very weights
    of a training that was not; after it has ended, it returns what came out.

    Args:
        resume: False begins anew.
        max_steps: an upper bound instead of the recipe's; it makes another recipe.
        watch: told the metrics so far, every few seconds.

    Raises:
        DataError: a split is empty, has rows without a target or too long, or holds one class.
        NotFoundError, ModelError, UsageError: no such data set, split or model, or settings that do not fit it.
        OutOfMemoryError: not even one row fits.
        RunLockedError: another process is at this very training.
        RunError: the disk is full, or training went wrong before its first checkpoint.
    """
    if max_steps is not None:
        recipe = recipe.with_settings(max_steps=max_steps)
    parts = open_splits(layout, recipe)
    base_digest = find_model(recipe.model).digest
    id = training_id(recipe, parts["train"].digest, parts["dev"].digest, base_digest)
    training = Training(layout, id)
    device = device or best_device(require("torch", extra="finetune"))
    processes.join(cpu=device == "cpu")
    with training.lock() if processes.is_main() else contextlib.nullcontext():
        found = finished(layout, training) if resume else None
        processes.wait()
        if found is not None:
            return found
        if not resume and processes.is_main():
            shutil.rmtree(training.working, ignore_errors=True)
            training.journal.unlink(missing_ok=True)
        processes.wait()
        session = Session(layout, recipe, training, parts, base_digest, device)
        try:
            return session.run(show_progress and processes.is_main(), watch)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise RunError(
                f"the disk of {training.working} is full",
                hint="Make room and run again: training goes on from its last checkpoint.",
            ) from error


class Session:
    """One call of `train`: attempts with ever smaller pieces until one ends."""

    def __init__(
        self,
        layout: Layout,
        recipe: FinetuneRecipe,
        training: Training,
        parts: Mapping[str, Dataset],
        base_digest: str,
        device: str,
    ) -> None:
        self.layout = layout
        self.recipe = recipe
        self.training = training
        self.parts = parts
        self.base_digest = base_digest
        self.device = device
        self.start = start_of(layout, recipe)
        self.examples: Examples | None = None
        self.seconds = 0.0
        self.tokens = 0
        self.steps = 0

    def run(self, show_progress: bool, watch: Watch | None) -> TrainResult:
        started = time.perf_counter()
        journal_of = JournalWriter(self.training.journal) if processes.is_main() else contextlib.nullcontext()
        with quiet(), journal_of as journal:
            settings, last = self.recipe.settings, self._last()
            if last is not None:
                most = min(settings.micro_batch or settings.batch_size, last.marker.micro_batch)
                settings = settings.model_copy(update={"micro_batch": most})
            micro = first_micro_batch(settings)
            stopped = None
            while stopped is None:
                last = self._last()
                if last is not None and last.marker.ends:
                    stopped = last.marker.ends
                    break
                model, tokenizer = self.load()
                with progress_bar(self.steps, self.recipe.name, show=show_progress) as bar:
                    try:
                        stopped = self.attempt(model, tokenizer, micro, last, journal, bar, watch)
                    except Diverged as error:
                        stopped = self._gone_wrong(error)
                    except Exception as error:
                        if not out_of_memory(error):
                            raise
                        micro = self._smaller(micro, error)
                del model
                _free()
        return self._finish(stopped, micro, time.perf_counter() - started)

    def _last(self) -> Checkpoint | None:
        processes.wait()
        if processes.is_main():
            # Damaged ones are set aside by one, so that all find the same.
            whole_checkpoints(self.training.working)
        processes.wait()
        return next(iter(whole_checkpoints(self.training.working)[::-1]), None)

    def load(self) -> tuple[Any, Any]:
        """The base with a fresh adapter, and its tokenizer; the first time also encodes the examples."""
        model, tokenizer, _, _, quantization = load_base(self.recipe, self.device)
        if self.examples is None:
            self.examples = make_examples(self.recipe, self.parts, model, tokenizer)
            settings = self.recipe.settings
            self.steps = steps_of(len(self.examples.train), settings.batch_size, settings.epochs, settings.max_steps)
            self._save(self._record(started_at=now(), quantization=quantization, device=self.device))
        return with_adapter(model, self.recipe, self.start), tokenizer

    def attempt(
        self,
        model: Any,
        tokenizer: Any,
        micro: int,
        last: Checkpoint | None,
        journal: JournalWriter | None,
        bar: Progress,
        watch: Watch | None,
    ) -> str:
        """Train from `last` to the end; returns why it ended."""
        assert self.examples is not None
        settings, examples, device = self.recipe.settings, self.examples, self.device
        lengths = examples.lengths
        order = training_order(lengths, settings.batch_size, self.steps, settings.seed)
        trainer = self._trainer(
            common_arguments(settings, self.training.working, device, micro, self.steps),
            model=model,
            train_dataset=as_dataset(examples.train),
            eval_dataset=as_dataset(
                filled_up(examples.dev, 1 if processes.count() == 1 else micro * processes.count())
            ),
            processing_class=tokenizer,
        )
        trainer.order, trainer.ends = order, None
        # With dropout the beginning of each row is another; activation checkpointing keeps no keys and values.
        trainer.share = not (settings.dropout or settings.gradient_checkpointing or settings.packing)
        if device == "cpu":
            # trl keeps the adapter of a quantized base in bf16, which a CPU computes slowly.
            for weights in model.parameters():
                if weights.requires_grad:
                    weights.data = weights.data.float()
        trainer.remove_callback(require("transformers", extra="finetune").PrinterCallback)
        recorder = Recorder(
            self.training,
            journal,
            bar,
            order=order,
            lengths=lengths,
            batch_size=settings.batch_size,
            patience=settings.patience,
            device=device,
            watch=watch,
            watchdog=Watchdog(self._losses(0 if last is None else last.step)),
            stop=lambda reason: setattr(trainer, "ends", reason),
        )
        trainer.add_callback(callback(recorder))
        if last is not None:
            bar.update(last.step, "goes on")
        try:
            trainer.train(resume_from_checkpoint=None if last is None else str(last.path))
        finally:
            self.seconds += recorder.seconds
            self.tokens += recorder.tokens
        return trainer.ends or "steps"

    def _trainer(self, arguments: dict[str, Any], **parts: Any) -> Any:
        if self.recipe.kind == "dpo":
            return dpo_trainer(self.recipe.settings, arguments, fresh=self.start is None, **parts)
        return sft_trainer(self.recipe.settings, arguments, **parts)

    def _losses(self, step: int) -> list[float]:
        """Losses of the steps up to this one, as they were recorded."""
        frame = self.training.frame()
        return frame.filter(pl.col("step") <= step)["loss"].drop_nulls().to_list()

    def _gone_wrong(self, error: Diverged) -> str:
        best = best_of(whole_checkpoints(self.training.working))
        if best is None:
            raise RunError(
                f"training went wrong at step {error.step}, before its first checkpoint: {error.reason}",
                hint="Lower learning_rate, raise warmup, or look for broken rows in the train split.",
            ) from error
        message = (
            f"training was stopped at step {error.step}: {error.reason}; the checkpoint of step {best.step} is kept"
        )
        warnings.warn(message, WorkbenchWarning, stacklevel=2)
        return f"went wrong at step {error.step}: {error.reason}"

    def _smaller(self, micro: int, error: Exception) -> int:
        batch = self.recipe.settings.batch_size
        if processes.count() > 1:
            raise OutOfMemoryError(
                f"not enough memory for {micro} rows at once in each of {processes.count()} processes",
                hint="Set micro_batch lower, or gradient_checkpointing.",
            ) from error
        if micro == 1:
            raise OutOfMemoryError(
                "not enough memory to train on one row",
                hint="Lower max_length or rank, set gradient_checkpointing, use a quantized or smaller model, "
                "or close other programs.",
            ) from error
        smaller = next(size for size in range(micro // 2, 0, -1) if batch % size == 0)
        warnings.warn(
            f"not enough memory for {micro} rows at once: training goes on with {smaller}, "
            f"{batch // smaller} times a step, so a step is {batch} rows as before",
            WorkbenchWarning,
            stacklevel=2,
        )
        return smaller

    def _save(self, record: TrainingRecord) -> None:
        if processes.is_main():
            self.training.save(record)
        processes.wait()

    def _record(self, **changes: Any) -> TrainingRecord:
        """What is recorded of this training, with changes; a new record where it begins."""
        known = self.training.record()
        if known is None or known.adapter is not None:
            assert self.examples is not None
            known = TrainingRecord(
                id=self.training.id,
                name=self.recipe.name,
                recipe=self.recipe,
                train_digest=self.parts["train"].digest,
                dev_digest=self.parts["dev"].digest,
                base_digest=self.base_digest,
                train_rows=len(self.parts["train"]),
                dev_rows=len(self.parts["dev"]),
                steps=self.steps,
                too_long=self.examples.too_long,
                **changes,
            )
        return known.model_copy(update={name: value for name, value in changes.items() if name != "started_at"})

    def _finish(self, stopped: str, micro: int, seconds: float) -> TrainResult:
        if not processes.is_main():
            # The main process publishes; then the others find what it did.
            processes.wait()
            found = finished(self.layout, self.training)
            assert found is not None
            return found
        checkpoints = whole_checkpoints(self.training.working)
        best = best_of(checkpoints)
        if best is None:
            raise RunError("no checkpoint of the training is whole", hint="Run again: it begins anew.")
        begun = self._record()
        adapter = publish_adapter(
            self.layout,
            best.path,
            name=self.recipe.name,
            base=self.recipe.model,
            base_digest=begun.base_digest,
            recipe_digest=self.recipe.digest,
            quantization=begun.quantization,
            metrics={
                "dev_loss": best.marker.dev_loss or 0.0,
                "step": best.step,
                "train_rows": len(self.parts["train"]),
            },
        )
        record = self._record(
            finished_at=now(),
            adapter=adapter.digest,
            stopped=stopped,
            step=checkpoints[-1].step,
            best_step=best.step,
            dev_loss=best.marker.dev_loss,
            seconds=round(seconds, 3),
            tokens=self.tokens,
            tokens_per_s=round(self.tokens / self.seconds, 2) if self.seconds else 0.0,
            peak_mb=round(peak_memory_mb(begun.device), 1),
            micro_batch=micro,
        )
        self.training.compact()
        self.training.save(record)
        shutil.rmtree(self.training.working, ignore_errors=True)
        processes.wait()
        return result_of(self.training, record, adapter)


def first_micro_batch(settings: TrainSettings, count: int | None = None) -> int:
    """Rows that go through the model at once in each of `count` processes, to begin with; by default of those there are.

    Raises:
        UsageError: the batch cannot be dealt out evenly.
    """
    count = count or processes.count()
    share, rest = divmod(settings.batch_size, count)
    if rest:
        raise UsageError(
            f"a batch of {settings.batch_size} rows cannot be dealt out to {count} processes",
            hint=f"Set batch_size to a multiple of {count}.",
        )
    most = min(settings.micro_batch or share, share)
    return next(size for size in range(most, 0, -1) if share % size == 0)


def _free() -> None:
    torch = require("torch", extra="finetune")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
