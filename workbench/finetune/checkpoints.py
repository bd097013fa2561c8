"""Checkpoints of a training: each a folder that is there whole or not at all, and is known to be whole before it is used."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import WorkbenchWarning
from workbench.files import digest_file, fsync_directory, write_atomic

MARKER = "workbench.json"
KEPT = 2


class CheckpointMarker(BaseModel):
    """`workbench.json` of a checkpoint, written last.

    Attributes:
        micro_batch: rows that went through the model at once.
        dev_loss: at this step.
        ends: why training ended here; None where it goes on.
        files: digest of every other file, by its path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1] = 1
    step: int
    micro_batch: int
    dev_loss: float | None = None
    ends: str | None = None
    files: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    marker: CheckpointMarker

    @property
    def step(self) -> int:
        return self.marker.step


def staging(folder: Path, step: int) -> Path:
    """Where the folder `checkpoint-STEP` is written before it is published."""
    return folder / f".saving-{step}"


def publish_checkpoint(
    folder: Path, step: int, *, micro_batch: int, dev_loss: float | None, ends: str | None
) -> Checkpoint:
    """Name the files of the staged checkpoint of `step`, make them survive a power cut, and rename it into place."""
    staged = staging(folder, step) / f"checkpoint-{step}"
    files = {}
    for path in sorted(path for path in staged.rglob("*") if path.is_file()):
        files[path.relative_to(staged).as_posix()] = digest_file(path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    marker = CheckpointMarker(step=step, micro_batch=micro_batch, dev_loss=dev_loss, ends=ends, files=files)
    write_atomic(staged / MARKER, json.dumps(marker.model_dump(mode="json"), indent=1) + "\n")
    target = folder / staged.name
    if target.exists():
        shutil.rmtree(target)
    staged.rename(target)
    fsync_directory(folder)
    staged.parent.rmdir()
    return Checkpoint(target, marker)


def whole_checkpoints(folder: Path) -> list[Checkpoint]:
    """Checkpoints whose files are what was written, by step. Any other is set aside as `damaged-…`, with a warning."""
    if not folder.is_dir():
        return []
    for path in folder.glob(".saving-*"):
        shutil.rmtree(path, ignore_errors=True)
    found: list[Checkpoint] = []
    for path in folder.glob("checkpoint-*"):
        checkpoint, fault = _read(path)
        if checkpoint is not None:
            found.append(checkpoint)
            continue
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        warnings.warn(
            f"the checkpoint {path.name} is damaged ({fault}) and was set aside as {aside}; "
            "training goes on from the one before",
            WorkbenchWarning,
            stacklevel=2,
        )
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def _read(path: Path) -> tuple[Checkpoint | None, str]:
    try:
        marker = CheckpointMarker.model_validate_json((path / MARKER).read_bytes())
    except FileNotFoundError:
        return None, f"{MARKER} is missing"
    except (ValidationError, OSError):
        return None, f"{MARKER} is malformed"
    for name, digest in marker.files.items():
        if not (path / name).is_file():
            return None, f"{name} is missing"
        if digest_file(path / name) != digest:
            return None, f"{name} does not match its digest"
    return Checkpoint(path, marker), ""


def best_of(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The one with the lowest dev loss, the earliest of equals."""
    measured = [checkpoint for checkpoint in checkpoints if checkpoint.marker.dev_loss is not None]
    return min(measured, key=lambda checkpoint: (checkpoint.marker.dev_loss, checkpoint.step), default=None)


def prune(folder: Path) -> None:
    """Remove all but the best checkpoint and the last ones. Reads markers only."""
    found = []
    for path in folder.glob("checkpoint-*"):
        try:
            marker = CheckpointMarker.model_validate_json((path / MARKER).read_bytes())
        except (ValidationError, OSError):
            continue
        found.append(Checkpoint(path, marker))
    found.sort(key=lambda checkpoint: checkpoint.step)
    best = best_of(found)
    for checkpoint in found[:-KEPT]:
        if best is None or checkpoint.step != best.step:
            shutil.rmtree(checkpoint.path, ignore_errors=True)
