"""Training in several processes: accelerate's launcher starts them, and this one watches and reports as if it trained itself."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from workbench.errors import MissingExtraError, RunError, UsageError, WorkbenchWarning, require
from workbench.finetune.callbacks import WATCH_EVERY_S, Watch
from workbench.finetune.recipe import FinetuneRecipe
from workbench.finetune.record import Training, training_of
from workbench.finetune.result import TrainResult, finished
from workbench.finetune.train import first_micro_batch
from workbench.finetune.worker import JOB, OUTCOME, Job, Outcome
from workbench.progress import progress
from workbench.workspace import Layout

LOG = "launch.log"
# What every process runs.
WORKER = "workbench.finetune.worker"
# Seconds between two looks at the processes, and until those that were asked to end are made to.
_LOOK_S = 0.2
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class LaunchFile:
    """What matters here of a configuration of `accelerate launch`.

    Attributes:
        processes: over all machines.
        kind: accelerate's name for how they share the work, such as MULTI_GPU or FSDP.
    """

    path: Path
    processes: int
    kind: str
    cpu: bool

    @property
    def sharded(self) -> bool:
        """Whether each process keeps only a part of the weights."""
        return self.kind in ("FSDP", "DEEPSPEED")

    @staticmethod
    def read(path: Path) -> LaunchFile:
        """Read a configuration; without `num_processes` there are as many processes as GPUs.

        Raises:
            UsageError: no such file, not a configuration, or one for what this machine does not have.
            MissingExtraError: accelerate is not installed, or DeepSpeed where the file asks for it.
        """
        accelerate = require("accelerate.commands.config.config_args", extra="finetune")
        torch = require("torch", extra="finetune")
        if not path.is_file():
            raise UsageError(f"there is no file {path}", hint="Name one of launch/*.yaml.")
        try:
            found = accelerate.load_config_from_file(str(path))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"{path} is not a configuration of accelerate: {reason}", hint="Compare it with launch/ddp.yaml."
            ) from None
        kind, cpu = str(getattr(found.distributed_type, "value", found.distributed_type)), bool(found.use_cpu)
        gpus = torch.cuda.device_count()
        if not cpu and not gpus and kind != "NO":
            raise UsageError(
                f"{path} is for GPUs, and there is none here",
                hint="Leave out --launch, or try it with launch/two-processes.yaml.",
            )
        if kind == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
            raise MissingExtraError(
                f"{path} needs DeepSpeed, which is not installed", hint="Run: pip install deepspeed"
            )
        asked = int(found.num_processes)
        return LaunchFile(path, asked if asked > 0 else max(1, gpus), kind, cpu)


def launch(
    layout: Layout,
    recipe: FinetuneRecipe,
    file: LaunchFile,
    *,
    resume: bool = True,
    show_progress: bool = True,
    watch: Watch | None = None,
) -> TrainResult:
    """`train`, by the processes that a configuration asks for; what they say goes to `launch.log` beside the metrics.

    A batch has as many rows as the recipe says, dealt out evenly, so that the adapter is that of one process but for the
    order in which numbers are added. Where memory does not suffice, training ends; it does not go on in smaller pieces.

    Raises:
        UsageError: the batch cannot be dealt out evenly.
        RunError: the processes ended without a result; names the log.
        WorkbenchError: as `train`.
    """
    first_micro_batch(recipe.settings, file.processes)
    training = training_of(layout, recipe)
    if resume and (found := finished(layout, training)) is not None:
        return found
    training.folder.mkdir(parents=True, exist_ok=True)
    log = training.folder / LOG
    with tempfile.TemporaryDirectory(prefix="workbench-launch-") as folder:
        job = Job(root=layout.root, recipe=recipe, resume=resume, cpu=file.cpu)
        (Path(folder) / JOB).write_text(job.model_dump_json(), "utf-8")
        with _started(file, Path(folder), log) as process:
            _follow(process, training, recipe.name, show_progress=show_progress, watch=watch)
        outcome = Outcome.read(Path(folder) / OUTCOME)
    for message in outcome.warnings:
        warnings.warn(message, WorkbenchWarning, stacklevel=2)
    if outcome.error is not None:
        raise outcome.error.rise()
    result = finished(layout, training) if process.returncode == 0 else None
    if result is None:
        raise RunError(
            f"{file.processes} processes ended with exit code {process.returncode} and without a result",
            hint=f"See what they said in {log}; run again to go on from the last checkpoint.",
        )
    return result


@contextlib.contextmanager
def _started(file: LaunchFile, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The launcher, and all that it started gone when the block is left."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file.path.resolve())]
    command += ["--num_processes", str(file.processes), "--main_process_port", "0"]
    command += ["--module", WORKER, str(folder)]
    environment = dict(os.environ)
    if file.cpu:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // file.processes)))
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
            return


def _follow(
    process: subprocess.Popen[bytes],
    training: Training,
    title: str,
    *,
    show_progress: bool,
    watch: Watch | None,
) -> None:
    """Show what the processes record until they have ended."""
    steps = 0
    while not steps and process.poll() is None:
        time.sleep(_LOOK_S)
        if (training.folder / "training.json").exists() and (record := training.record()) is not None:
            steps = record.steps
    watched = 0.0
    with progress(max(1, steps), title, show=show_progress) as bar:
        while process.poll() is None:
            time.sleep(_LOOK_S)
            if time.monotonic() - watched < WATCH_EVERY_S:
                continue
            watched = time.monotonic()
            metrics = training.frame()
            done = metrics.filter(pl.col("loss").is_not_null())
            if len(done):
                bar.update(int(done["step"][-1]), f"loss {done['loss'][-1]:.3f}")
            if watch is not None and len(metrics):
                watch(metrics)
