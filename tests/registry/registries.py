"""OCI registries to test on: Debian's docker-registry, and a server in front of it that breaks what a test wants broken."""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.ending import at_end
from tests.ports import free_port

USER, PASSWORD = "ada", "s3cret-word"
# bcrypt with 16 rounds: what htpasswd -B writes.
_HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuzQDw2v3CQSMowG.sq3X.nH1lfmlmQMW\n"
_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}}}
http: {{addr: "127.0.0.1:{port}", relativeurls: true}}
"""
_AUTH = "auth: {{htpasswd: {{realm: tests, path: {passwords}}}}}\n"

_numbers = itertools.count()


@dataclass(frozen=True)
class Server:
    """A registry: its address, as `host:port`, and the folder in which it keeps blobs and manifests."""

    address: str
    storage: Path

    def new_repository(self) -> str:
        """`host:port/team/repository`, not used before."""
        return f"{self.address}/team/greet-{next(_numbers)}"

    def blob(self, digest: str) -> Path:
        """The file of a blob or a manifest."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"


@functools.cache
def registry(*, login: bool = False) -> Server:
    """A registry that ends with this process; with `login`, one that asks for `USER` and `PASSWORD`.

    Skips where there is none.
    """
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed: apt-get install docker-registry")
    folder = Path(tempfile.mkdtemp(prefix="workbench-registry-"))
    port = free_port()
    (folder / "htpasswd").write_text(_HTPASSWD)
    text = _CONFIG + (_AUTH if login else "")
    (folder / "config.yml").write_text(
        text.format(storage=folder / "storage", port=port, passwords=folder / "htpasswd")
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")], stdout=log, stderr=subprocess.STDOUT, cwd="/"
        )

    def stop() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    at_end(stop)
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return Server(f"127.0.0.1:{port}", folder / "storage")
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    raise AssertionError((folder / "log").read_text())


@dataclass(frozen=True)
class Reply:
    """What a rule answers in the place of the registry. `status` 0 breaks the connection."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Rule = Callable[[str, str, dict[str, str]], Reply | None]


@dataclass
class Front:
    """A server in front of a registry.

    Attributes:
        address: as `host:port`.
        rule: asked with method, path and headers of each request; None hands the request on to the registry.
        seen: method and path of each request, in their order.
    """

    address: str
    rule: Rule = lambda method, path, headers: None
    seen: list[tuple[str, str]] = field(default_factory=list)

    def count(self, *methods: str) -> int:
        """How many requests had one of these methods."""
        return sum(method in methods for method, _ in self.seen)


@contextlib.contextmanager
def front(behind: str = "") -> Iterator[Front]:
    """A front for the registry at the address `behind`; without one, the rule must answer everything."""
    made: Front

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            made.seen.append((self.command, self.path))
            reply = made.rule(self.command, self.path, dict(self.headers))
            if reply is None:
                reply = self.from_behind(body)
            if reply.status == 0:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in reply.headers:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
                # Fewer bytes than were announced: the connection ends in the middle of them.
                self.close_connection |= reply.headers.get("Content-Length", "") not in ("", str(len(reply.body)))

        def from_behind(self, body: bytes) -> Reply:
            connection = http.client.HTTPConnection(behind, timeout=30)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                hop = ("connection", "transfer-encoding")
                return Reply(
                    answer.status,
                    answer.read(),
                    {name: value for name, value in answer.getheaders() if name.lower() not in hop},
                )
            finally:
                connection.close()

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, format: str, *args: Any) -> None:
            return None

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            return None

    with Quiet(("127.0.0.1", 0), Handler) as server:
        made = Front(f"127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
