"""What a training comes to, also when it is asked for again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from workbench.errors import IntegrityError, NotFoundError
from workbench.finetune.record import Training, TrainingRecord
from workbench.models.adapters import AdapterFolder, find_adapter
from workbench.workspace import Layout


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        adapter: the published adapter: that of the best checkpoint.
        folder: the training's record and metrics, in the events store.
        metrics: one row a step; columns as in `record.METRICS`.
        stopped: `steps` (all were done), `patience` (the dev loss got no better), or what went wrong.
        steps: how many were done. best_step, dev_loss: of the adapter.
        seconds: of the call that ended the training. tokens_per_s: in its steps, without padding.
        peak_mb: most memory of the process, on CUDA of torch there.
        micro_batch: rows that went through the model at once, in the end.
        too_long: id and length in tokens of train rows above the limit, which were dropped or cut.
    """

    id: str
    adapter: AdapterFolder
    folder: Path
    metrics: pl.DataFrame = field(repr=False)
    stopped: str
    steps: int
    best_step: int
    dev_loss: float
    seconds: float
    tokens_per_s: float
    peak_mb: float
    micro_batch: int
    too_long: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        why = {"steps": "all steps done", "patience": "the dev loss got no better"}.get(self.stopped, self.stopped)
        dropped = f"; {len(self.too_long)} rows were too long" if self.too_long else ""
        return (
            f"{self.adapter}: dev loss {self.dev_loss:.4f} at step {self.best_step} of {self.steps} "
            f"({why}), {self.tokens_per_s:.0f} tokens/s, peak {self.peak_mb:.0f} MB{dropped}"
        )


def finished(layout: Layout, training: Training) -> TrainResult | None:
    """The result of a training that has ended, where its adapter is still there."""
    record = training.record()
    if record is None or record.adapter is None:
        return None
    try:
        adapter = find_adapter(layout, record.adapter)
    except (NotFoundError, IntegrityError):
        return None
    return result_of(training, record, adapter)


def result_of(training: Training, record: TrainingRecord, adapter: AdapterFolder) -> TrainResult:
    """What the record of an ended training and its adapter say."""
    assert record.stopped is not None
    assert record.best_step is not None
    assert record.dev_loss is not None
    return TrainResult(
        id=training.id,
        adapter=adapter,
        folder=training.folder,
        metrics=training.frame(),
        stopped=record.stopped,
        steps=record.step,
        best_step=record.best_step,
        dev_loss=record.dev_loss,
        seconds=record.seconds,
        tokens_per_s=record.tokens_per_s,
        peak_mb=record.peak_mb,
        micro_batch=record.micro_batch or 0,
        too_long=record.too_long,
    )
