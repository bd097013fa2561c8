"""Reproduce: run the notebook of an artifact again against the recorded rows, and say whether the evidence is the same.

The notebook is code of whoever promoted it, and runs with the rights of this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import ComparisonError, NotFoundError, RunError, UsageError
from workbench.progress import progress as progress_bar
from workbench.registry import build
from workbench.registry.artifact import Artifact
from workbench.registry.reproduce_workspace import make_workspace
from workbench.registry.reproduction import Reproduction, compare_runs, differences
from workbench.surroundings import ARGUMENTS_VARIABLE, NOTEBOOK_VARIABLE
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.experiments.notebook_source import NotebookRecord, NotebookSource
    from workbench.experiments.run import Run

# Lines of a notebook's output that an error shows.
_TAIL = 8
_POLL_S = 0.2
# What tells a process which notebook it is, and how to draw, which the one run here is not told.
_NOT_PASSED_ON = ("JPY_SESSION_NAME", "MPLBACKEND", NOTEBOOK_VARIABLE, ARGUMENTS_VARIABLE)


def reproduce(
    layout: Layout, reference: str, *, timeout_s: float | None = None, show_progress: bool = True
) -> Reproduction:
    """Run the notebook or experiment file of an artifact again, in a workspace of its own that is removed afterwards.

    It gets the recorded rows and the index and adapter that the artifact carries. What else it reads is that of the run's
    commit where that is known, was clean and is here, else of this workspace as it is now. No answer comes from a cache.

    Args:
        reference: `NAME`, `NAME@3`, `NAME@ALIAS` or `NAME@sha256:…`.
        timeout_s: seconds after which the notebook is ended.

    Raises:
        NotFoundError: no such artifact, it holds no notebook, or its rows are not here.
        IntegrityError: the artifact, or what is kept of the rows, is damaged.
        RunError: the notebook fails, takes too long, or ends without its run.
        ComparisonError: it makes another experiment; says what differs.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise UsageError(f"a timeout of {timeout_s:g} s", hint="Give more than 0 seconds, or none.")
    artifact = Artifact.open(layout, reference)
    artifact.verify()
    book = _notebook(artifact)
    then = artifact.run()
    with tempfile.TemporaryDirectory(prefix="workbench-reproduce-", ignore_cleanup_errors=True) as name:
        scratch, files = make_workspace(Path(name).resolve(), layout, then.manifest, book)
        parts = {title: artifact.read(title) for title in artifact.layers if title.startswith(build.PARTS)}
        variant = artifact.provenance["variant"]
        build.publish_parts(scratch, build.evaluated_pipeline(then.manifest, variant), parts)
        with progress_bar(then.expected, f"Reproducing {reference}", show=show_progress) as bar:
            failure = _Child(scratch, book.record, timeout_s).wait(bar.update)
        now = _made(scratch, then, failure, book.record.path)
        note = f"after its run, {failure.message}" if failure else ""
        return compare_runs(artifact, then, now, files=files, note=note)


def _notebook(artifact: Artifact) -> NotebookSource:
    book = artifact.notebook()
    label = f"{artifact.name}@{artifact.version}"
    if book is None:
        raise NotFoundError(
            f"{label} holds no notebook",
            hint="One is kept when a notebook or a YAML file makes the run: run it again, and promote that run.",
        )
    if book.source is None:
        raise NotFoundError(
            f"{label} holds no notebook: {book.record.path} was not kept, since {book.record.not_kept}",
            hint="Mend the file, run it again, and promote that run.",
        )
    return book


class _Child:
    """The process that runs the notebook: `workbench run` in the workspace made for it."""

    def __init__(self, scratch: Layout, record: NotebookRecord, timeout_s: float | None) -> None:
        self.scratch = scratch
        self.path = record.path
        self.timeout_s = timeout_s
        words = record.arguments if record.kind == "experiment" else ("--", *record.arguments)
        # -P: the folder it runs in may hold a copy of this package.
        self.command = [sys.executable, "-P", "-m", "workbench", "run", record.path, *words]
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self._seen: dict[Path, int] = {}
        self._calls = 0

    def wait(self, update: Callable[[int], None]) -> RunError | None:
        """Wait for its end, and tell `update` how many calls are on record; what went wrong, if anything did.

        Raises:
            RunError: it takes too long.
        """
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
        # Modules beside a notebook are links, and their compiled form would be written where they are from.
        environment |= {"WORKBENCH_WORKSPACE": str(self.scratch.root), "PYTHONDONTWRITEBYTECODE": "1"}
        began = time.monotonic()
        process = subprocess.Popen(
            self.command,
            cwd=self.scratch.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                if self.timeout_s is not None and time.monotonic() - began > self.timeout_s:
                    raise RunError(f"{self.path} took more than {self.timeout_s:g} s", hint="Give it more: --timeout")
                update(self._recorded())
                time.sleep(_POLL_S)
        finally:
            _end(process)
            # A process that the notebook left behind may hold the other end.
            reader.join(timeout=5)
            if process.stdout and not reader.is_alive():
                process.stdout.close()
        return None if process.returncode == 0 else self._failure()

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            if line.strip():
                self.tail.append(line.rstrip())

    def _recorded(self) -> int:
        """Calls in the journals: what a run has answered before it ends."""
        for journal in self.scratch.runs.glob("*/journal.jsonl"):
            with suppress(OSError), journal.open("rb") as file:
                file.seek(self._seen.get(journal, 0))
                new = file.read()
                self._seen[journal] = file.tell()
                self._calls += new.count(b"\n")
        return self._calls

    def _failure(self) -> RunError:
        # The last line is that of `workbench run`, which has nothing to add where the notebook said what is wrong.
        lines = [line for line in self.tail if not line.startswith(f"error: {self.path} failed. ")] or [*self.tail]
        last = lines[-1].removeprefix(f"error: {self.path} failed: ").partition(" The outputs up to there")[0]
        said = last.strip() or "without a word"
        before = "\n".join(f"  {line}" for line in lines)
        return RunError(
            f"{self.path} failed: {said.rstrip('.')}", hint=f"The end of its output:\n{before}" if lines else None
        )


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _made(scratch: Layout, then: Run, failure: RunError | None, path: str) -> Run:
    """The run of the recorded experiment in the workspace that the notebook ran in.

    Raises:
        RunError: there is none, or it is not complete.
        ComparisonError: there are runs of other experiments only.
    """
    from workbench.experiments.run import list_runs

    runs = list_runs(scratch)
    same = [run for run in runs if run.manifest.experiment_digest == then.manifest.experiment_digest]
    complete = [run for run in same if run.complete]
    if complete:
        rule = then.manifest.early_stopping
        return next((run for run in complete if run.manifest.early_stopping == rule), complete[0])
    named = [run for run in runs if run.manifest.experiment == then.manifest.experiment]
    if failure is not None and (same or not any(run.complete for run in named)):
        raise failure
    if same:
        raise RunError(f"{path} ended before its run did: {len(same[0].calls())} of {same[0].expected} calls")
    if not runs:
        raise RunError(
            f"{path} made no run in the workspace it was given",
            hint="It must open the workspace by wb.open(), or by its own place: wb.open(Path(__file__).parents[1]).",
        )
    found = differences(then.manifest, (named or runs)[0].manifest)
    raise ComparisonError(
        f"{path} makes another experiment now: {'; '.join(found) or 'its digest differs'}"
        + (f"; after that, {failure.message}" if failure else ""),
        hint="What it reads has changed since, or its controls stood otherwise than its arguments say.",
    )
