"""The A/B notebook as an app, in a real browser."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[str]:
    for name in ("datasets", "prompts", "policies", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "workbench.toml", tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--headless",
        "--no-token",
        "--port",
        str(port),
        "notebooks/prompt_ab.py",
        "--",
        "--limit",
        "6",
        "--shots",
        "2",
    ]
    with (tmp_path / "marimo.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "marimo", "run", *options], cwd=tmp_path, stdout=log, stderr=log
        )
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


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.browser
def test_running_it_shows_a_decision_and_the_gate_refuses_six_rows(app: str) -> None:
    if not CHROMIUM.exists():
        pytest.skip("/usr/bin/chromium is not installed: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page()
        page.goto(app)
        expect(page.get_by_role("heading", name="Prompt A/B")).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="Run", exact=True).click(timeout=60_000)
        expect(page.get_by_role("heading", name="Decision")).to_be_visible(timeout=120_000)
        expect(page.get_by_text("6 rows", exact=False).first).to_be_visible()
        page.get_by_role("button", name="Promote B").click()
        expect(page.get_by_text("the gate refused", exact=False)).to_be_visible(timeout=30_000)
        browser.close()
