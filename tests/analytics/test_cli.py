"""`workbench sql` and `workbench events`, as somebody types them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.events.rows import a_call
from tests.workspaces import make_experiment
from workbench import api
from workbench.events.manifest import load_manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def filled(workspace: api.Workspace) -> api.Workspace:
    make_experiment(workspace).run()
    with workspace.events().log() as log:
        log.record_many("calls", [a_call(n) for n in range(10)])
    return workspace


def run(workspace: api.Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workbench", *arguments]
    environment = os.environ | {"WORKBENCH_WORKSPACE": str(workspace.root)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def as_json(workspace: api.Workspace, *arguments: str) -> Any:
    done = run(workspace, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_question_is_answered_as_a_table_json_csv_or_file(filled: api.Workspace, tmp_path: Path) -> None:
    asked = "select source, count(*) as n from calls where source <> $not group by all order by all"
    shown = run(filled, "sql", asked, "-p", "not=x")
    assert shown.stdout.splitlines()[-1] == "2 rows"
    assert "served" in shown.stdout
    assert as_json(filled, "sql", asked, "-p", "not=run") == [{"source": "served", "n": 10}]
    assert run(filled, "sql", asked, "-p", "not=run", "--csv").stdout == "source,n\nserved,10\n"
    target = tmp_path / "calls.parquet"
    assert as_json(filled, "sql", "select * from calls", "--export", str(target)) == {"rows": 90, "path": str(target)}
    assert len(pl.read_parquet(target)) == 90
    odd = "select max(started_at) - max(started_at) as took, '\\x00a'::blob as b, 'nan'::double as n, [1e400, 1] as l from calls"
    assert as_json(filled, "sql", odd) == [{"took": "00:00:00", "b": "0061", "n": None, "l": [None, 1.0]}]
    assert run(filled, "sql", odd, "--csv").stdout.splitlines()[1].startswith("00:00:00,0061,NaN,")
    times = as_json(filled, "sql", "select max(started_at) as at, max(day) as day from calls")
    assert times[0]["at"].startswith(times[0]["day"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["select * from cals"], "there is no view cals. Did you mean calls?"),
        (["delete from calls"], "only one SELECT can be asked"),
        (["select 1", "--json", "--csv"], "exclude each other"),
        (["select 1", "-p", "x"], "Write NAME=VALUE"),
        (["select 1", "--export", "x.doc"], ".csv, .parquet or .xlsx"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(workspace: api.Workspace, arguments: list[str], said: str) -> None:
    done = run(workspace, "sql", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_compact_and_check(filled: api.Workspace) -> None:
    done = as_json(filled, "events", "compact")
    assert done["calls"] | {"written": 1} == done["calls"] | {"rows": 90, "written": 1, "aside": 0}
    assert run(filled, "events", "check").stdout == "sound\n"
    [path] = (filled.layout.runs.parent / "scores").glob("day=*/*")
    path.write_bytes(path.read_bytes()[:-1])
    found = run(filled, "events", "check", "--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["problems"][0]["path"] == str(path)
    # It stays named until somebody has seen to it.
    [said] = json.loads(run(filled, "events", "check", "--json").stdout)["problems"]
    assert "was set aside, with 160 rows of " in said["what"]
    asked = run(filled, "sql", "select count(*) as n from scores", "--csv")
    assert f"warning: {filled.layout.runs.parent}/aside/scores-" in asked.stderr
    # The folder of the run has them still.
    assert asked.stdout == "n\n160\n"
    assert as_json(filled, "events", "compact")["scores"]["rows"] == 160
    assert run(filled, "sql", "select count(*) as n from scores", "--csv").stdout == "n\n160\n"
    for path in (filled.layout.runs.parent / "aside").iterdir():
        path.unlink()
    assert run(filled, "events", "check").stdout == "sound\n"


def test_a_malformed_run_is_found_by_a_check(filled: api.Workspace) -> None:
    [manifest] = filled.layout.runs.glob("*/run.json")
    manifest.write_text("{")
    found = run(filled, "events", "check")
    assert found.returncode == 1
    assert f"DAMAGED  {manifest} is malformed; the run is left out." in found.stdout


def test_a_lost_manifest_is_made_again(filled: api.Workspace) -> None:
    as_json(filled, "events", "compact")
    manifest = filled.layout.runs.parent / "calls" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    asked = run(filled, "sql", "select count(*) as n from calls")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "`workbench events rebuild` makes it again" in asked.stderr
    assert len(asked.stderr.splitlines()) == 1
    found = run(filled, "events", "check")
    assert (found.returncode, found.stdout.splitlines()[-1]) == (1, "damaged")
    made = run(filled, "events", "rebuild")
    assert made.stdout.splitlines()[:2] == [
        "calls: made again, of 1 files with 90 rows",
        "scores: sound, left as it is",
    ]
    assert run(filled, "sql", "select count(*) as n from calls", "--csv").stdout == "n\n90\n"
    assert as_json(filled, "events", "rebuild")["calls"]["files"] is None
    [live] = load_manifest(filled.layout.runs.parent, "calls").files
    manifest.unlink()
    shutil.copy(manifest.parent / live.name, manifest.parent / live.name.replace("/", "/mine-"))
    strange = run(filled, "events", "rebuild")
    assert strange.returncode == 1
    assert f"ASIDE    aside/calls-{live.day}-mine-" in strange.stdout
