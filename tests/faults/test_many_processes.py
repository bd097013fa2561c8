"""Eight processes run experiments in one workspace at once: every run is whole, and the cache holds every answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.instant import InstantEngine
from tests.workspaces import ROWS, make_workspace

ROOT = Path(__file__).parents[2]
PROCESSES = 8


@pytest.mark.slow
def test_eight_processes_in_one_workspace(tmp_path: Path, instant: InstantEngine) -> None:
    workspace = make_workspace(tmp_path / "shared")
    # Half of them run the same experiment, so that they meet in one run as well.
    names = [f"mine-{n}" if n % 2 else "ours" for n in range(PROCESSES)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker", str(workspace.root), name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, [err for _, err in said]
    for out, _ in said:
        run_id, complete = out.splitlines()[-1].split()
        assert complete == "True"
        run = workspace.run(run_id)
        keys = run.calls().select("variant", "row_id", "repeat")
        assert keys.n_unique() == len(keys) == 2 * ROWS
        assert run.failed == 0
        assert run.scores().select("variant", "row_id", "repeat", "scorer").n_unique() == len(run.scores()) == 4 * ROWS
    assert {run.manifest.experiment for run in workspace.runs()} == set(names)
    # What eight processes wrote into one cache is there for the ninth.
    from tests.workspaces import make_experiment

    assert make_experiment(workspace, name="ninth").run().calls()["cached"].all()
    assert instant.asked == 0
