"""The cost and quality notebook as an app, in a real browser: filters, clicks, the empty state, and axe's rules."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.accessibility import violations
from tests.browser.apps import marimo_app
from workbench import api
from workbench.analytics.synthetic import write_history

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("app")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    (folder / "workbench.toml").write_text('format_version = 1\nmodel = "instant"\n')
    return folder


@pytest.fixture(scope="module")
def app(folder: Path) -> Iterator[str]:
    write_history(api.open(folder).events(), last=date(2026, 3, 20), days=40)
    with marimo_app(folder, "notebooks/cost_quality.py") as url:
        yield url


@pytest.mark.slow
@pytest.mark.browser
def test_it_filters_drills_down_and_looks_ahead(app: str, page: Page) -> None:
    from playwright.sync_api import expect

    page.goto(app)
    expect(page.get_by_role("heading", name="Cost and quality")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Made-up rows:", exact=False)).to_be_visible(timeout=60_000)
    expect(page.get_by_text("19 Feb 2026 to 20 Mar 2026", exact=False)).to_be_visible(timeout=60_000)
    expect(page.get_by_role("heading", name="Calls of the whole period")).to_be_visible(timeout=60_000)

    page.get_by_label("Period").select_option("14 days")
    expect(page.get_by_text("07 Mar 2026 to 20 Mar 2026", exact=False)).to_be_visible(timeout=30_000)

    # A click on a bar leads to its calls.
    bars = page.locator("marimo-vega svg [aria-roledescription='bar']")
    expect(bars.and_(page.locator("[aria-label*='2026-02']"))).to_have_count(0, timeout=30_000)
    bars.and_(page.locator("[aria-label*='2026-03-11']")).first.click()
    expect(page.get_by_role("heading", name=re.compile(r"Calls of 2026-03-11, "))).to_be_visible(timeout=30_000)

    # So does a control, without a mouse.
    page.get_by_label("Day", exact=True).select_option("2026-03-17")
    expect(page.get_by_role("heading", name=re.compile("Calls of 2026-03-17"))).to_be_visible(timeout=30_000)

    page.get_by_role("textbox", name=re.compile("Budget of the month")).fill("1")
    page.keyboard.press("Tab")
    expect(page.get_by_text("That is over the budget", exact=False)).to_be_visible(timeout=30_000)
    expect(page.get_by_text("If small-1b took 60%", exact=False)).to_be_visible()

    page.get_by_text("Show made-up rows").click()
    expect(page.get_by_text("no call is left", exact=False)).to_be_visible(timeout=30_000)
    expect(page.get_by_text("Made-up rows:", exact=False)).to_have_count(0)
    expect(page.get_by_text("Traceback", exact=False)).to_have_count(0)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(app: str, page: Page, scheme: str) -> None:
    from playwright.sync_api import expect

    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(app)
    expect(page.get_by_text("If small-1b took 60%", exact=False)).to_be_visible(timeout=60_000)
    assert violations(page) == []


@pytest.mark.slow
@pytest.mark.browser
def test_an_empty_workspace_says_what_to_run(tmp_path: Path, page: Page) -> None:
    from playwright.sync_api import expect

    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "workbench.toml").write_text('format_version = 1\nmodel = "instant"\n')
    with marimo_app(tmp_path, "notebooks/cost_quality.py") as url:
        page.goto(url)
        expect(page.get_by_text("workbench demo --history", exact=False)).to_be_visible(timeout=60_000)
        expect(page.get_by_text("Traceback", exact=False)).to_have_count(0)
        assert violations(page) == []
