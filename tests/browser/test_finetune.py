"""The fine-tuning notebook as an app, in a real browser: three steps on the starter data, eight test rows."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.apps import marimo_app

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["--max-steps", "3", "--eval-every", "3", "--pilot", "false", "--limit", "8"]
# A look at the dev split takes longer than the steps: a few rows do.
DEV_ROWS = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("datasets", "prompts", "policies", "adapters", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "workbench.toml", tmp_path)
    thin_out(tmp_path)
    return tmp_path


def thin_out(folder: Path) -> None:
    """Leave `DEV_ROWS` rows of the dev split."""
    from workbench import api
    from workbench.workspace import Layout

    data = folder / "datasets" / "support-tickets" / "data.jsonl"
    dropped = set(api.Workspace(Layout.find(folder)).dataset("support-tickets").split("dev").ids[DEV_ROWS:])
    kept = [line for line in data.read_text("utf-8").splitlines() if json.loads(line)["id"] not in dropped]
    data.write_text("\n".join(kept) + "\n", "utf-8")


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.browser
def test_it_plans_trains_and_compares_and_the_gate_refuses_eight_rows(folder: Path, page: Page) -> None:
    from playwright.sync_api import expect

    pytest.importorskip("peft")
    with marimo_app(folder, "notebooks/finetune.py", ARGUMENTS) as url:
        page.goto(url)
        expect(page.get_by_role("heading", name="Fine-tuning")).to_be_visible(timeout=60_000)
        expect(page.get_by_text("197 train rows")).to_be_visible(timeout=60_000)
        expect(page.get_by_text("to make the adapter")).to_be_visible()

        page.get_by_role("button", name="Plan", exact=True).click()
        expect(page.get_by_text("triage-trial fits:", exact=False).first).to_be_visible(timeout=60_000)

        page.get_by_role("button", name="Train", exact=True).click()
        expect(page.get_by_text("of 3 · loss", exact=False)).to_be_visible(timeout=120_000)
        trained = page.get_by_text("all steps done", exact=False)
        expect(trained).to_be_visible(timeout=120_000)

        page.get_by_role("button", name="Compare", exact=True).click()
        expect(page.get_by_role("heading", name="Decision")).to_be_visible(timeout=120_000)
        expect(page.get_by_text(re.compile(r", 8 rows\)")).first).to_be_visible()
        page.get_by_role("button", name="Promote").click()
        expect(page.get_by_text("the gate refused", exact=False)).to_be_visible(timeout=30_000)

        # Pressed again, it finds what is finished.
        page.get_by_role("button", name="Train", exact=True).click()
        expect(page.get_by_role("heading", name="Decision")).to_have_count(0, timeout=30_000)
        expect(trained).to_be_visible(timeout=30_000)
        expect(page.get_by_text("Traceback", exact=False)).to_have_count(0)


@pytest.mark.slow
@pytest.mark.browser
def test_what_does_not_fit_is_said_in_a_box(folder: Path, page: Page) -> None:
    from playwright.sync_api import expect

    with marimo_app(folder, "notebooks/finetune.py", ["--preset", "huge"]) as url:
        page.goto(url)
        expect(page.get_by_text("no preset 'huge'", exact=False)).to_be_visible(timeout=60_000)
        expect(page.get_by_text("Traceback", exact=False)).to_have_count(0)
