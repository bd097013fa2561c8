"""The page of a curation: every picture, nothing of any row's text, nothing from the network."""

from __future__ import annotations

import json
import re

import pytest

from tests.curation.texts import Meanings, dataset
from workbench.curation.curate import curate_dataset
from workbench.curation.report import Finding, Span
from workbench.curation.settings import CurationSettings
from workbench.ui import curation as page

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

TEXTS = [f"message {n} about {'lamps' if n % 2 else 'locks'} and {n * n} more" for n in range(24)]
ROWS = [("test" if n % 4 == 0 else "train", text, "ab"[n % 2]) for n, text in enumerate(TEXTS)]
REPORT = curate_dataset(
    dataset([*ROWS, ("train", TEXTS[0], "a"), ("train", TEXTS[1], "<b>&")], name="mine"),
    CurationSettings(personal_data="skip"),
    embedder=Meanings(),
    show_progress=False,
).report


def test_the_page_holds_the_findings_and_no_text_of_a_row() -> None:
    text = page.html_report(REPORT)
    assert "same text as test row r0" in text
    assert "<b>&" not in text
    assert not any(row in text for row in TEXTS)
    # Nothing is fetched: the only addresses are names of SVG.
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"<(script|link|img|iframe)", text)


def test_there_is_a_picture_for_each_question() -> None:
    text = page.html_report(REPORT)
    titles = ("Rows by split", "Findings by check", "Lengths of the texts", "Closest row of a held-out split")
    assert all(title in text for title in (*titles, "Classes of label"))
    assert text.count("<svg") == 5


def test_the_split_plot_counts_every_row_before() -> None:
    values = page.splits_plot(REPORT).to_dict()["data"]["values"]
    rows: dict[str, int] = {}
    for value in values:
        rows[value["split"]] = rows.get(value["split"], 0) + value["rows"]
    assert rows == REPORT.before.splits


def test_personal_data_is_counted_by_kind_and_shown_by_place() -> None:
    span = Span(column="text", entity="EMAIL_ADDRESS", start=3, end=20, score=1.0)
    found = Finding(
        id="r1", split="train", check="personal-data", action="flagged", reason="EMAIL_ADDRESS", spans=(span,)
    )
    report = REPORT.model_copy(update={"findings": (found,)})
    [value] = page.personal_plot(report).to_dict()["data"]["values"]
    assert (value["kind"], value["rows"]) == ("email address", 1)
    assert "EMAIL_ADDRESS (text 3–20)" in page.html_report(report)


def test_what_was_not_looked_at_has_no_picture() -> None:
    bare = REPORT.model_copy(update={"findings": (), "lengths": None, "nearest": None, "classes": ()})
    text = page.html_report(bare)
    assert text.count("<svg") == 1
    assert "Lengths were not looked at" in str(page.lengths_plot(bare))
    assert "No check found anything" in str(page.findings_plot(bare))


def test_many_classes_are_the_largest_and_the_smallest() -> None:
    counts = tuple(
        REPORT.classes[0].model_copy(update={"value": f"class {n}", "splits": {"train": 100 - n}}) for n in range(60)
    )
    chart = page.classes_plot(REPORT.model_copy(update={"classes": counts}), "label").to_dict()
    shown = {value["class"] for value in chart["data"]["values"]}
    assert len(shown) == page.MOST_CLASSES
    assert {"class 0", "class 59"} <= shown
    assert "the 20 largest and 5 smallest of 60" in json.dumps(chart)
