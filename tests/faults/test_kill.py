"""Killed at random moments, a run goes on where it stopped, with each row exactly once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.instant import InstantEngine
from tests.workspaces import ROWS, make_experiment, make_workspace
from workbench import api
from workbench.events.journal import read_journal
from workbench.models.engines import register_engine

ROOT = Path(__file__).parents[2]
KILLS = 20


def _start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.worker", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n", process.stderr and process.stderr.read()
    return process


@pytest.mark.slow
def test_twenty_kills_lose_and_double_nothing(tmp_path: Path, instant: InstantEngine) -> None:
    workspace = make_workspace(tmp_path / "killed")
    chance = random.Random(7)
    interrupted = 0
    for _ in range(KILLS):
        process = _start(workspace.root)
        # Early enough that most kills hit a run under way, whose rows take 0.8 s in all.
        time.sleep(chance.uniform(0.0, 0.12))
        process.kill()
        interrupted += process.wait() == -signal.SIGKILL
        process.communicate()
    assert interrupted >= KILLS // 2
    finished = make_experiment(workspace).run()
    assert finished.complete
    calls = finished.calls()
    assert calls.select("variant", "row_id", "repeat").n_unique() == len(calls) == 2 * ROWS
    assert finished.scores().select("variant", "row_id", "repeat", "scorer").n_unique() == len(finished.scores())

    whole = make_experiment(make_workspace(tmp_path / "whole")).run().calls()
    told = ["variant", "row_id", "output", "result", "error_kind"]
    assert calls.select(told).equals(whole.select(told))


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path, instant: InstantEngine) -> None:
    workspace = make_workspace(tmp_path / "interrupted")
    process = _start(workspace.root)
    while not any(len(run.calls()) for run in workspace.runs()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate()
    [stopped] = workspace.runs()
    had = len(stopped.calls())
    assert 0 < had < 2 * ROWS
    run = make_experiment(workspace).run()
    assert (run.id, run.complete, instant.asked) == (stopped.id, True, 2 * ROWS - had)


@pytest.mark.slow
def test_two_processes_at_once_both_end_with_whole_runs(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "both")
    first, second = _start(workspace.root), _start(workspace.root)
    said = [process.communicate()[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    for line in said:
        run_id, complete = line.split()
        assert complete == "True"
        assert len(workspace.run(run_id).calls()) == 2 * ROWS


def test_a_damaged_journal_line_is_asked_again(workspace: api.Workspace, instant: InstantEngine) -> None:
    instant.breaking = 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.experiments.run.Run.compact", lambda self, at: None)
        run = make_experiment(workspace).run()
    lines = run.journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"output":"', b'"output":"X', 1)
    run.journal.write_bytes(b"".join(lines))
    assert read_journal(run.journal).damaged == (4,)
    fresh = InstantEngine()
    register_engine("instant", lambda name, quantization: fresh)
    again = make_experiment(workspace).run()
    assert again.id == run.id
    assert again.complete
    assert again.failed == 0
    assert not any((output or "").startswith("X") for output in again.calls()["output"])
