"""`workbench serve` as a process: several record into one workspace, one is killed, a bundle records where it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from workbench import api
from workbench.errors import WorkspaceError
from workbench.registry.artifact import Artifact
from workbench.registry.lineage_served import served_calls
from workbench.serving import bundle as bundles
from workbench.serving.bundle import make_bundle
from workbench.workspace import Layout, ServeSettings, Settings, read_settings

ROOT = Path(__file__).parents[2]


class Server:
    """A server that runs, and what it has printed once it has ended."""

    def __init__(self, layout: Layout, *arguments: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "tests.serving.parrot_server", "serve", *arguments, "--port", str(self.port)]
        environment = os.environ | {"WORKBENCH_WORKSPACE": str(layout.root), "OMP_NUM_THREADS": "1"}
        environment.pop("WORKBENCH_API_KEY", None)
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said = ""

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        url, data = f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as answer:
            return json.load(answer)

    def ask(self, text: str) -> Any:
        return self.post("/v1/answer", {"inputs": {"text": text}})

    def ready(self) -> Server:
        while self.process.poll() is None:
            try:
                self.get("/readyz")
                return self
            except urllib.error.URLError:
                time.sleep(0.05)
        raise AssertionError(self.process.communicate()[0])

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.said += self.process.communicate(timeout=60)[0]


@contextmanager
def servers(layout: Layout, *commands: tuple[str, ...]) -> Iterator[list[Server]]:
    started = [Server(layout, *command) for command in commands]
    try:
        yield [server.ready() for server in started]
    finally:
        for server in started:
            if server.process.poll() is None:
                server.end()


@pytest.mark.slow
def test_two_servers_record_into_one_workspace_and_a_kill_costs_the_last_moments(
    layout: Layout, artifact: Artifact
) -> None:
    with servers(layout, ("greet@prod",), ("greet@1", "--no-content")) as (killed, ended):
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(server.ask, f"q{n}") for n in range(30) for server in (killed, ended)]
            traces = {answer.result(30)["trace_id"] for answer in asked}
        # Asking what it is waits until what was recorded is on disk.
        assert killed.get("/")["recording"] == "on"
        assert ended.get("/")["recording"] == "on, without content"
        late = killed.ask("late")["trace_id"]
        killed.end(signal.SIGKILL)
        last = ended.ask("last")["trace_id"]
        ended.end()
    assert "questions and answers are recorded in " in killed.said
    assert "what is asked is, without its content, recorded in " in ended.said
    workspace = api.Workspace(layout)
    rows = workspace.sql("select trace_id, alias, output from calls where source = 'served'")
    found = set(rows["trace_id"])
    assert len(rows) == len(found)
    assert traces | {last} <= found <= traces | {last, late}
    assert rows.filter(alias="prod")["output"].null_count() == 0
    assert rows.filter(rows["alias"].is_null())["output"].null_count() == 31
    counted, problems = served_calls(layout)
    assert counted["greet@1"].calls == len(rows)
    assert problems == workspace.events().problems == {}
    workspace.events().compact()
    assert workspace.sql("select count(*) from calls where source = 'served'").item() == len(rows)


@pytest.mark.slow
def test_a_bundle_records_only_where_it_is_told_and_a_workspace_reads_it_there(
    layout: Layout, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "STARTER", "tiny")
    made = make_bundle(artifact, layout.settings, tmp_path / "bundle")
    folder, events = str(made.folder), tmp_path / "watched"
    (layout.root / "workbench.toml").write_text("[serve]\nrecord = false\n")
    with servers(
        layout,
        (folder, "--work", str(tmp_path / "a")),
        (folder, "--work", str(tmp_path / "b"), "--record-to", str(events)),
        ("greet@prod",),
        ("greet@prod", "--no-record"),
    ) as (silent, recording, *off):
        for server in (silent, *off):
            server.ask("hello")
            assert server.get("/")["recording"] == "off"
        trace = recording.ask("hello")["trace_id"]
        recording.post("/v1/feedback", {"trace_id": trace, "rating": 1})
    assert "nothing is recorded" in silent.said
    assert f"recorded in {events}" in recording.said
    assert api.Workspace(layout).sql("select * from calls where source = 'served'").is_empty()
    other = tmp_path / "other"
    other.mkdir()
    (other / "workbench.toml").write_text(f'[events]\npath = "{events}"\n')
    rows = (
        api.open(other).sql("select artifact, alias, output, rating from calls join feedback using (trace_id)").rows()
    )
    assert rows == [("greet@1", None, "hello", 1.0)]


def test_what_may_not_be_recorded_travels_with_a_bundle(
    layout: Layout, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "STARTER", "tiny")
    for content in (True, False):
        made = make_bundle(artifact, Settings(serve=ServeSettings(content=content)), tmp_path / str(content))
        assert read_settings(made.folder / "workbench.toml").serve.content is content


def test_a_setting_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "workbench.toml"
    for text in ("records = true", "record = 7", 'content = "some"'):
        path.write_text(f"[serve]\n{text}\n")
        with pytest.raises(WorkspaceError, match=rf"serve\.{text.split()[0]}"):
            read_settings(path)


def test_to_record_and_not_to_record_exclude_each_other(layout: Layout) -> None:
    command = [sys.executable, "-m", "workbench", "serve", "greet@prod", "--no-record", "--record-to", "there"]
    done = subprocess.run(command, cwd=layout.root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --no-record and --record-to exclude each other\n"
