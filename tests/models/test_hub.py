"""Fetching from the Hugging Face hub, against a small server that speaks its protocol."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from workbench.errors import ModelError, UsageError
from workbench.models.hub import fetch_from_hub
from workbench.models.store import find_model, verify_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "README.md": b"---\nlicense: apache-2.0\n---\nA model.\n",
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"a pickle",
    "modeling.py": b"print('remote code')",
}


class Hub(BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        data: bytes | None = None
        if path == f"/api/models/org/name/revision/{COMMIT}":
            siblings = [{"rfilename": name} for name in self.files]
            data = json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode()
        elif path == f"/api/models/org/name/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.files.items()
            ]
            data = json.dumps(tree).encode()
        elif path.startswith(f"/org/name/resolve/{COMMIT}/"):
            data = self.files.get(path.rpartition("/")[2])
        self.send_response(200 if data is not None else 404)
        data = data or b""
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    Hub.files = dict(FILES)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        # As in a process that has opened a model already.
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        yield Hub
        server.shutdown()
        thread.join()


def quiet(message: str) -> None:
    """A progress callback that says nothing."""


def test_weights_and_settings_are_fetched_and_code_is_not(tmp_path: Path, hub: type[Hub]) -> None:
    model = fetch_from_hub("org/name", COMMIT, tmp_path, quiet)
    assert sorted(model.files) == ["README.md", "config.json", "model.safetensors"]
    assert (model.revision, model.licence) == (COMMIT, "apache-2.0")
    verify_model(model)
    hub.files = {}
    assert fetch_from_hub("org/name", COMMIT, tmp_path, quiet) == model
    assert find_model("org/name", tmp_path) == model


def test_a_model_without_safetensors_is_refused(tmp_path: Path, hub: type[Hub]) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(ModelError, match="has no safetensors"):
        fetch_from_hub("org/name", COMMIT, tmp_path, quiet)
    with pytest.raises(ModelError, match="not on this machine"):
        find_model("org/name", tmp_path)


def test_an_unknown_model_is_one_sentence(tmp_path: Path, hub: type[Hub]) -> None:
    with pytest.raises(ModelError, match="org/other could not be fetched") as caught:
        fetch_from_hub("org/other", COMMIT, tmp_path, quiet)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("revision", [None, "main", "0123456"])
def test_a_revision_that_can_move_is_refused(tmp_path: Path, revision: str | None) -> None:
    with pytest.raises(UsageError, match="--revision COMMIT"):
        fetch_from_hub("org/name", revision, tmp_path, quiet)


@pytest.mark.parametrize("identifier", ["name", "../../etc", "org/name/more", ""])
def test_what_is_no_hub_id_is_refused(tmp_path: Path, identifier: str) -> None:
    with pytest.raises(UsageError, match="not a hub id"):
        fetch_from_hub(identifier, COMMIT, tmp_path, quiet)
