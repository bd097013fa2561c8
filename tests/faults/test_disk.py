"""A disk that fills up in the middle of a run: a clear error, nothing lost, and the run goes on when there is room."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.instant import InstantEngine
from tests.workspaces import make_experiment, make_workspace
from workbench import api
from workbench.errors import RunError, WorkbenchWarning
from workbench.events.journal import read_journal

ROWS = 1500


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A small file system at `folder`."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted as root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def without_cache(folder: Path) -> api.Workspace:
    make_workspace(folder, rows=ROWS)
    (folder / "workbench.toml").write_text('format_version = 1\nmodel = "instant"\n\n[cache]\nresponses = false\n')
    return api.open(folder)


def test_a_full_disk_ends_the_run_with_a_clear_error_and_it_goes_on_later(
    tmp_path: Path, instant: InstantEngine
) -> None:
    with small_disk(tmp_path / "disk", "2m"):
        workspace = without_cache(tmp_path / "disk" / "workspace")
        with pytest.raises(RunError, match=r"disk .* is full.*run again"):
            make_experiment(workspace).run()
        [stopped] = workspace.runs()
        kept = len(stopped.calls())
        assert 0 < kept < 2 * ROWS
        assert not read_journal(stopped.journal).damaged
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "disk")], check=True)
        asked = instant.asked
        run = make_experiment(workspace).run()
        assert (run.id, run.complete, run.failed) == (stopped.id, True, 0)
        assert instant.asked - asked == 2 * ROWS - kept
        keys = run.calls().select("variant", "row_id", "repeat")
        assert keys.n_unique() == len(keys) == 2 * ROWS


def test_a_cache_without_room_does_not_end_a_run(tmp_path: Path, instant: InstantEngine) -> None:
    workspace = make_workspace(tmp_path / "workspace", rows=200)
    with small_disk(tmp_path / "workspace" / ".workbench" / "cache", "64k"):
        with pytest.warns(WorkbenchWarning, match="off for now"):
            run = make_experiment(workspace).run()
        assert (run.complete, run.failed) == (True, 0)
