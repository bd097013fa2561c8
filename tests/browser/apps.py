"""Notebooks as apps for a real browser: `marimo run` on a port of its own, and how chromium is started."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.ports import free_port

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def marimo_app(folder: Path, notebook: str, arguments: Sequence[str] = ()) -> Iterator[str]:
    """The address of a notebook of the workspace in `folder`, served for as long as the block runs."""
    port = free_port()
    command = [sys.executable, "-m", "marimo", "run", "--headless", "--no-token", "--port", str(port), notebook]
    with (folder / "marimo.log").open("w") as log:
        server = subprocess.Popen([*command, "--", *arguments], cwd=folder, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}/"
            for _ in range(120):
                try:
                    urllib.request.urlopen(url).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield url
        finally:
            server.terminate()
            server.wait()
