"""Trainings in the events store: what was trained, its metrics by step, and how it ended."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import NotFoundError, RunError, RunLockedError
from workbench.events.journal import iterate_journal
from workbench.files import atomic_file, digest_json, write_atomic
from workbench.finetune.examples import open_splits
from workbench.finetune.recipe import FinetuneRecipe
from workbench.models.engine import Quantization
from workbench.models.store import find_model
from workbench.surroundings import peak_memory
from workbench.workspace import Layout

RECORD = "training.json"
METRICS: dict[str, Any] = {
    "step": pl.Int64,
    "loss": pl.Float64,
    "dev_loss": pl.Float64,
    "dev_accuracy": pl.Float64,
    "learning_rate": pl.Float64,
    "tokens": pl.Int64,
    "tokens_per_s": pl.Float64,
    "memory_mb": pl.Float64,
    "at": pl.String,
}


class TrainingRecord(BaseModel):
    """`training.json`, written when a training begins and again when it ends.

    Attributes:
        train_digest, dev_digest, base_digest: of the rows and the model that it saw.
        adapter: digest of what came out; None while it is under way.
        stopped: why it ended: `steps` (all are done), `patience` (the dev loss got no better), or what went wrong.
        seconds: of the call that ended it. tokens_per_s: without padding, dev split and saving.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1] = 1
    id: str
    name: str
    recipe: FinetuneRecipe
    train_digest: str
    dev_digest: str
    base_digest: str
    train_rows: int
    dev_rows: int
    steps: int
    quantization: Quantization
    device: str
    too_long: tuple[tuple[str, int], ...] = ()
    started_at: str
    finished_at: str | None = None
    adapter: str | None = None
    stopped: str | None = None
    step: int = 0
    best_step: int | None = None
    dev_loss: float | None = None
    seconds: float = 0.0
    tokens: int = 0
    tokens_per_s: float = 0.0
    peak_mb: float = 0.0
    micro_batch: int | None = None


def training_id(recipe: FinetuneRecipe, train_digest: str, dev_digest: str, base_digest: str) -> str:
    """16 hexadecimal digits over everything that decides the weights: another row or another base is another training."""
    parts = {"recipe": recipe.digest, "train": train_digest, "dev": dev_digest, "base": base_digest}
    return digest_json(parts)[7:23]


class Training:
    """One training on disk: its record, its metrics, and the folder in which it works."""

    def __init__(self, layout: Layout, id: str) -> None:
        self.id = id
        self.folder = layout.trainings / id
        self.working = layout.finetunes / id

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def parquet(self) -> Path:
        return self.folder / "metrics.parquet"

    def record(self) -> TrainingRecord | None:
        """What is recorded; None where nothing is.

        Raises:
            RunError: the record is malformed.
        """
        path = self.folder / RECORD
        try:
            return TrainingRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise RunError(
                f"{path} is malformed: {str(error).splitlines()[0]}", hint="Remove the folder and train again."
            ) from None

    def save(self, record: TrainingRecord) -> None:
        write_atomic(self.folder / RECORD, json.dumps(record.model_dump(mode="json"), indent=1) + "\n")

    def frame(self) -> pl.DataFrame:
        """Metrics, one row a step; columns as in `METRICS`. A step that was repeated after a kill counts once."""
        rows = [row for row in iterate_journal(self.journal) if row is not None]
        if not rows and self.parquet.exists():
            # Columns that are newer than the file are empty.
            return pl.scan_parquet(self.parquet, schema=METRICS, missing_columns="insert").collect()
        frame = pl.DataFrame(rows, schema=METRICS, orient="row")
        last = [pl.col(name).drop_nulls().last() for name in METRICS if name != "step"]
        return frame.group_by("step", maintain_order=True).agg(last).sort("step").select(list(METRICS))

    def compact(self) -> None:
        """Turn the journal into Parquet."""
        frame = self.frame()
        with atomic_file(self.parquet) as file:
            frame.write_parquet(file, compression="zstd")
        self.journal.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the training; the lock ends with the process, however that ends.

        Raises:
            RunLockedError: another process is at it.
        """
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunLockedError(f"another process is at training {self.id}", hint="Wait for it to end.") from None
            yield


def training_of(layout: Layout, recipe: FinetuneRecipe) -> Training:
    """The training that a recipe comes to with the rows and the model that are here, begun or not.

    Raises:
        DataError, NotFoundError, ModelError: no such data set, split or model, or rows of which nothing can be learned.
    """
    parts = open_splits(layout, recipe)
    digests = parts["train"].digest, parts["dev"].digest, find_model(recipe.model).digest
    return Training(layout, training_id(recipe, *digests))


def training_frame(layout: Layout, id: str) -> pl.DataFrame:
    """Metrics of a training, finished or under way, one row a step; columns as in `METRICS`.

    Raises:
        NotFoundError: there is none, or several begin with `id`.
    """
    return open_training(layout, id).frame()


def open_training(layout: Layout, id: str) -> Training:
    """A training by its id or a unique beginning of it.

    Raises:
        NotFoundError: there is none, or several fit.
    """
    found = [training for training in _folders(layout) if training.id.startswith(id)]
    if len(found) != 1:
        what = f"{len(found)} trainings begin with {id!r}" if found else f"no training {id!r}"
        raise NotFoundError(what, hint="List them with: workbench finetune ls")
    return found[0]


def list_trainings(layout: Layout) -> list[TrainingRecord]:
    """Every training of the workspace, the newest first."""
    records = [record for training in _folders(layout) if (record := training.record()) is not None]
    return sorted(records, key=lambda record: (record.started_at, record.id), reverse=True)


def _folders(layout: Layout) -> list[Training]:
    if not layout.trainings.is_dir():
        return []
    return [Training(layout, path.name) for path in layout.trainings.iterdir() if (path / RECORD).is_file()]


def peak_memory_mb(device: str) -> float:
    """Most memory so far, in MB: of this process on a CPU, of torch's allocations on CUDA."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.max_memory_allocated()) / 2**20
    return peak_memory() / 2**20
