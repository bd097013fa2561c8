"""A workspace that may not be written, as on a medium or of another user: what only reads works, the rest says why not."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.registry.conftest import MakeRun
from workbench.registry.promote import promote
from workbench.state.db import database_path
from workbench.workspace import Layout

# Runs commands one after another, each as the program does, and prints what came of them.
PROGRAM = """\
import json, sys
from typer.testing import CliRunner
from tests.registry.test_cli import Parrot
from workbench.cli.main import app
from workbench.pipeline.pipeline import Pipeline

Pipeline.engine = lambda _: Parrot()
told = []
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, arguments)
    told.append({"code": done.exit_code, "said": done.stdout, "error": str(done.exception or "")})
print(json.dumps(told))
"""


@pytest.fixture
def sealed(layout: Layout, make_run: MakeRun) -> Iterator[Layout]:
    """`greet@1` is prod in a workspace whose folders and files may not be written."""
    promote(layout, make_run(), "greet", "few", alias="prod")
    places = [layout.root, *layout.root.rglob("*")]
    modes = {path: path.stat().st_mode for path in places}
    for path in places:
        path.chmod(modes[path] & ~0o222)
    yield layout
    for path, mode in modes.items():
        path.chmod(mode)


def call(layout: Layout, *commands: list[str]) -> list[dict[str, Any]]:
    """What comes of commands by somebody for whom the rights of files count, as they do not for root."""
    drop: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("there is no setpriv, and root may write everywhere")
        drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    done = subprocess.run(
        [*drop, sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=layout.root,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_what_only_reads_works(sealed: Layout, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("out") / "audit.jsonl"
    before = sorted(sealed.root.rglob("*"))
    ls, show, verify, history, diff, run, audit, exported = call(
        sealed,
        ["artifact", "ls"],
        ["artifact", "show", "greet@prod"],
        ["artifact", "verify", "greet"],
        ["artifact", "history", "greet"],
        ["artifact", "diff", "greet@1", "greet@prod"],
        ["artifact", "run", "greet@prod", "text=hi"],
        ["audit", "verify"],
        ["audit", "export", str(out)],
    )
    for done in (ls, show, verify, history, diff, run, audit, exported):
        assert done["code"] == 0, done
    assert "greet@1" in ls["said"]
    assert "run-1" in show["said"]
    assert "greet@1 is whole" in verify["said"]
    assert "register" in history["said"]
    assert run["said"].strip() == "HI"
    assert len(out.read_text().splitlines()) >= 2
    assert sorted(sealed.root.rglob("*")) == before


def test_what_writes_says_why_not(sealed: Layout) -> None:
    sealed.root.chmod(0o755)
    (sealed.root / "prompts").mkdir()
    (sealed.root / "prompts" / "voice.md").write_text("Say {{ text }}")
    sealed.root.chmod(0o555)
    alias, save, promoted = call(
        sealed,
        ["artifact", "alias", "greet@1", "staging"],
        ["prompt", "save", "voice"],
        ["promote", "run-1", "greet", "--variant", "few"],
    )
    for done in (alias, save):
        assert done["code"] == 1
        assert "state.sqlite cannot be written, as its folder cannot. Get the right to write there" in done["error"]
    assert f"{sealed.blobs} cannot be written. Get the right" in promoted["error"]


def test_nothing_was_ever_written(tmp_path: Path) -> None:
    (tmp_path / "workbench.toml").write_text('name = "empty"\n')
    tmp_path.chmod(0o555)
    ls, alias = call(Layout.find(tmp_path), ["artifact", "ls", "--json"], ["artifact", "alias", "greet@1", "prod"])
    tmp_path.chmod(0o755)
    assert (ls["code"], json.loads(ls["said"])) == (0, [])
    assert "no artifact 'greet'" in alias["error"]


def test_it_is_read_along_with_somebody_who_writes(sealed: Layout) -> None:
    """What is committed counts, in the file or in the log beside it; a log that nobody can take in is not passed over."""
    database = database_path(sealed.state_url)
    assert database is not None
    database.parent.chmod(0o755)
    database.chmod(0o644)
    writer = sqlite3.connect(database)
    writer.execute("INSERT INTO artifact_versions VALUES ('greet', 2, 'sha256:00', '2026', NULL, NULL, NULL)")
    writer.commit()
    database.parent.chmod(0o555)
    [ls] = call(sealed, ["artifact", "ls", "--json"])
    assert [version["version"] for version in json.loads(ls["said"])] == [1, 2]
    # As a process leaves it that is killed.
    left = database.with_name("state.sqlite-wal").read_bytes()
    database.parent.chmod(0o755)
    whole = database.read_bytes()
    writer.close()
    database.write_bytes(whole)
    database.with_name("state.sqlite-wal").write_bytes(left)
    database.parent.chmod(0o555)
    [ls] = call(sealed, ["artifact", "ls", "--json"])
    database.parent.chmod(0o755)
    database.with_name("state.sqlite-wal").unlink()
    assert ls["code"] == 1
    assert "its last changes are in state.sqlite-wal" in ls["error"]
