"""Killed, interrupted or out of disk, a training goes on from its last whole checkpoint and ends at the same weights."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_disk import small_disk
from tests.finetune.small import make_layout, make_recipe
from workbench.errors import RunError, RunLockedError, WorkbenchWarning
from workbench.finetune.checkpoints import MARKER, best_of, whole_checkpoints
from workbench.finetune.record import Training, list_trainings
from workbench.finetune.train import TrainResult, train
from workbench.finetune.trainer import TrainerParts
from workbench.workspace import Layout

ROOT = Path(__file__).parents[2]
# Dropout makes the state of the random generators matter; an odd number of steps between checkpoints, the passes.
SETTINGS: dict[str, Any] = {"dropout": 0.1, "max_steps": 18, "eval_every": 2, "micro_batch": 2}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A folder with the model, where other workspaces can lie beside, and what comes out when nothing comes between."""
    folder = tmp_path_factory.mktemp("resume")
    layout = make_layout(folder / "uninterrupted")
    return folder, train(layout, make_recipe(layout, **SETTINGS), show_progress=False)


def weights(result: TrainResult) -> bytes:
    return (result.adapter.path / "adapter_model.safetensors").read_bytes()


def go_on(layout: Layout) -> TrainResult:
    return train(layout, make_recipe(layout, **SETTINGS), show_progress=False)


class Killed(BaseException):
    pass


@contextlib.contextmanager
def killed_after(step: int) -> Iterator[None]:
    """Training ends in the middle of the step after this one."""
    original = TrainerParts.compute_loss

    def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step >= step:
            raise Killed
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainerParts, "compute_loss", dying)
        yield


@pytest.mark.parametrize("step", [1, 7, 12, 17])
def test_wherever_it_is_stopped_it_ends_at_the_same_weights(uninterrupted: tuple[Path, TrainResult], step: int) -> None:
    folder, whole = uninterrupted
    layout = make_layout(folder / f"stopped-{step}")
    with killed_after(step), pytest.raises(Killed):
        go_on(layout)
    result = go_on(layout)
    assert weights(result) == weights(whole)
    assert result.adapter.digest == whole.adapter.digest
    told = ["step", "loss", "dev_loss", "learning_rate", "tokens"]
    assert result.metrics.select(told).equals(whole.metrics.select(told))


def test_a_finished_training_is_found_again(uninterrupted: tuple[Path, TrainResult]) -> None:
    folder, whole = uninterrupted
    layout = Layout.find(folder / "uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.finetune.train.load_base", None)
        again = go_on(layout)
    assert (again.adapter.digest, again.stopped, again.steps) == (whole.adapter.digest, "steps", SETTINGS["max_steps"])
    assert again.metrics.equals(whole.metrics)
    [record] = list_trainings(layout)
    assert (record.id, record.adapter) == (whole.id, whole.adapter.digest)
    assert not Training(layout, whole.id).working.exists()


def interrupted(folder: Path, step: int = 7) -> tuple[Layout, Training]:
    layout = make_layout(folder)
    with killed_after(step), pytest.raises(Killed):
        go_on(layout)
    [record] = list_trainings(layout)
    assert record.adapter is None
    return layout, Training(layout, record.id)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("adapter_model.safetensors", "does not match its digest"),
        ("optimizer.pt", "does not match its digest"),
        ("trainer_state.json", "is missing"),
        (MARKER, "is malformed"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    uninterrupted: tuple[Path, TrainResult], name: str, fault: str
) -> None:
    folder, whole = uninterrupted
    layout, training = interrupted(folder / f"damaged-{name}")
    assert [checkpoint.step for checkpoint in whole_checkpoints(training.working)][-2:] == [4, 6]
    broken = training.working / "checkpoint-6" / name
    if fault == "is missing":
        broken.unlink()
    else:
        broken.write_bytes(broken.read_bytes()[:-7])
    with pytest.warns(WorkbenchWarning, match=rf"checkpoint-6 is damaged \({name} {fault}\)"):
        result = go_on(layout)
    assert weights(result) == weights(whole)


def test_no_checkpoint_is_pickled_or_half_written(tmp_path: Path) -> None:
    _, training = interrupted(tmp_path / "workspace")
    checkpoints = whole_checkpoints(training.working)
    assert {path.name for path in training.working.iterdir()} == {checkpoint.path.name for checkpoint in checkpoints}
    best = best_of(checkpoints)
    assert best is not None
    assert set(best.marker.files) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    }


def test_a_full_disk_leaves_the_checkpoint_before_and_training_goes_on_later(
    uninterrupted: tuple[Path, TrainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = uninterrupted
    layout = make_layout(folder / "full")
    [size] = [sum(path.stat().st_size for path in folder.glob("uninterrupted/.workbench/adapters/*/*.safetensors"))]
    # Room for two checkpoints and some: weights, and two moments of each.
    with small_disk(layout.finetunes, f"{size * 3 * 5 // 2 // 1024}k"):
        with pytest.raises(RunError, match=r"disk of .* is full.*goes on from the checkpoint before"):
            go_on(layout)
        [record] = list_trainings(layout)
        kept = whole_checkpoints(Training(layout, record.id).working)
        assert kept
        subprocess.run(["mount", "-o", "remount,size=64m", str(layout.finetunes)], check=True)
        result = go_on(layout)
    assert weights(result) == weights(whole)


def test_two_processes_do_not_train_the_same(uninterrupted: tuple[Path, TrainResult]) -> None:
    folder, whole = uninterrupted
    layout = Layout.find(folder / "uninterrupted")
    with Training(layout, whole.id).lock(), pytest.raises(RunLockedError, match="another process"):
        go_on(layout)


def start(layout: Layout) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.finetune.train_worker", str(layout.root), json.dumps(SETTINGS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n", process.stderr and process.stderr.read()
    return process


def newest(layout: Layout) -> int:
    """The step of the newest checkpoint that is there."""
    found = layout.finetunes.glob("*/checkpoint-*")
    return max((int(path.name.split("-")[1]) for path in found), default=0)


@pytest.mark.slow
def test_kill_9_at_random_moments_ends_at_the_same_weights(tmp_path: Path) -> None:
    whole, killed = make_layout(tmp_path / "whole"), make_layout(tmp_path / "killed")
    told = start(whole).communicate()[0].strip()
    assert told.startswith("sha256:")
    chance = random.Random(5)
    interrupted = 0
    for _ in range(3):
        process, before = start(killed), newest(killed)
        while newest(killed) <= before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.2))
        process.kill()
        interrupted += process.wait() == -signal.SIGKILL
        process.communicate()
    assert interrupted >= 2
    assert start(killed).communicate()[0].strip() == told
    first, second = (
        next(layout.adapters.glob("*/adapter_model.safetensors")).read_bytes() for layout in (whole, killed)
    )
    assert first == second
