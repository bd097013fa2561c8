"""The A/B notebook as an app, in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.apps import CHROMIUM, FLAGS, marimo_app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[str]:
    for name in ("datasets", "prompts", "policies", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "workbench.toml", tmp_path)
    with marimo_app(tmp_path, "notebooks/prompt_ab.py", ["--limit", "6", "--shots", "2"]) as url:
        yield url


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
