"""`workbench doctor`: one line for each thing looked at, and what to do about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from typer.testing import CliRunner

from workbench import doctor
from workbench.cli.doctor import doctor_command
from workbench.doctor import Check, check_disk, check_extras, check_model, check_python, checks, healthy, memory
from workbench.init.init import init_workspace
from workbench.workspace import Layout


def test_every_problem_has_a_hint(tmp_path: Path) -> None:
    results = checks(Layout.find(init_workspace(tmp_path / "mine").root))
    assert [check.name for check in results if check.status != "ok" and not check.hint] == []
    assert {"python", "machine", "torch", "model", "workspace", "events", "blobs", "state", "git"} <= {
        check.name for check in results
    }


def test_without_a_workspace_it_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    (found,) = [check for check in checks() if check.name == "workspace"]
    assert found.status == "warn"
    assert "workbench init DIR" in found.hint


def test_an_old_python_is_essential() -> None:
    assert healthy([check_python((3, 11, 0))])
    assert not healthy([check_python((3, 10, 14))])


def test_a_missing_model_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    found = check_model("smollm2-135m")
    assert (found.status, found.hint) == ("missing", "Run: workbench model pull smollm2-135m")
    assert not healthy([found])


def test_memory_is_what_the_container_may_use(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  8388608 kB\nMemAvailable:  4194304 kB\n")
    assert memory(tmp_path) == (8 << 30, 4 << 30)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("2147483648\n")
    assert memory(tmp_path) == (2 << 30, 2 << 30)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert memory(tmp_path) == (8 << 30, 4 << 30)


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk("cache", tmp_path / "not" / "yet").status == "ok"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("workbench.doctor.shutil.disk_usage", lambda path: usage._replace(free=1 << 20))
    assert check_disk("cache", tmp_path).status == "warn"


def test_a_folder_that_cannot_be_written_is_essential() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a file system that nobody may write to")
    found = check_disk("blobs", Path("/proc/self/blobs"))
    assert found.status == "missing"
    assert not healthy([found])


def test_extras_name_what_they_lack() -> None:
    results = check_extras(
        [
            "rich",
            'pytest>=1; extra == "charts"',
            'pytest>=9999; extra == "jupyter"',
            'llmops-workbench[jupyter]; extra == "marimo"',
            'no-such-package; extra == "marimo"',
            'no-such-package; extra == "local"',
        ]
    )
    found = {check.name: check for check in results}
    assert found["[charts]"].status == "ok"
    assert "pytest>=9999 (here: " in found["[jupyter]"].detail
    assert "pytest>=9999" in found["[marimo]"].detail
    assert "no-such-package" in found["[marimo]"].detail
    assert found["[marimo]"].hint == "Run: pip install 'llmops-workbench[marimo]'"
    assert healthy([found["[marimo]"]])
    assert not healthy([found["[local]"]])


def test_an_extra_is_missing_only_under_its_own_name() -> None:
    requirement = Requirement('no-such-package; extra == "dev"')
    assert doctor.missing_packages([requirement], "dev") == ["no-such-package"]
    assert doctor.missing_packages([requirement], "test") == []


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("missing", 1)])
def test_the_exit_code_says_whether_something_essential_is_missing(
    monkeypatch: pytest.MonkeyPatch, status: doctor.Status, code: int
) -> None:
    monkeypatch.setattr(
        "workbench.cli.doctor.checks", lambda: [Check("[local]", status, "detail", "Run: this", essential=True)]
    )
    app = typer.Typer()
    app.command()(doctor_command)
    result = CliRunner().invoke(app, ["--json"])
    assert result.exit_code == code
    assert json.loads(result.output)["ok"] == (code == 0)
    shown = CliRunner().invoke(app, [])
    assert shown.exit_code == code
    assert "[local]" in shown.output
    assert ("Run: this" in shown.output) == (status != "ok")
