"""The starter data set is what its card says."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.similarity import most_alike
from workbench.data.dataset import Dataset
from workbench.data.store import open_dataset
from workbench.workspace import Layout, Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "datasets" / "support-tickets"
INTENTS = ("account", "billing", "bug", "cancellation", "feedback", "how_to", "refund", "shipping")


@pytest.fixture(scope="module")
def tickets() -> Dataset:
    """Opening it holds every row to schema.json."""
    return open_dataset(Layout(ROOT, Settings()), "support-tickets")


@pytest.fixture(scope="module")
def records(tickets: Dataset) -> list[dict[str, Any]]:
    return list(tickets.records())


@pytest.fixture(scope="module")
def card() -> str:
    return (FOLDER / "README.md").read_text("utf-8")


def test_parts_and_counts(tickets: Dataset, records: list[dict[str, Any]]) -> None:
    assert (tickets.spec.input, tickets.spec.target) == (("text",), ("intent", "urgency"))
    assert (FOLDER / "schema.json").is_file()
    assert [record["id"] for record in records] == [f"st-{i:03d}" for i in range(1, 497)]
    assert Counter(record["intent"] for record in records) == dict.fromkeys(INTENTS, 62)
    assert len({record["text"].casefold() for record in records}) == 496


def test_the_card_counts_what_is_there(tickets: Dataset, records: list[dict[str, Any]], card: str) -> None:
    for intent in INTENTS:
        of = Counter(record["urgency"] for record in records if record["intent"] == intent)
        assert f"| {intent} | {of['high']} | {of['normal']} | {of['low']} | {of.total()} |" in card
    for channel, count in Counter(record["channel"] for record in records).items():
        assert f"`{channel}` {count}" in card
    assert f"all of it fictional: {sum(record['pii'] for record in records)} rows" in card
    assert f"another intent too: {sum(record['ambiguous'] for record in records)} rows" in card
    splits = tickets.splits()
    assert ", ".join(f"{name} {count}" for name, count in splits.items()) in card
    words = [len(record["text"].split()) for record in records]
    assert f"{min(words)} to {max(words)} words (median {int(np.median(words))})" in card
    short, long = sum(n < 12 for n in words), sum(n > 45 for n in words)
    sentence = f"{short} messages have fewer than 12 words, {496 - short - long} have 12 to 45, {long} have more"
    assert sentence in card


def test_every_split_has_every_label(tickets: Dataset) -> None:
    sizes = {"train": (0.35, 0.45), "dev": (0.15, 0.25), "test": (0.35, 0.45)}
    for name, (low, high) in sizes.items():
        rows = tickets.split(name).rows()
        assert low < len(rows) / 496 < high
        assert {row.target["intent"] for row in rows} == set(INTENTS)
        assert {row.target["urgency"] for row in rows} == {"high", "normal", "low"}


def test_an_id_does_not_tell_the_label(records: list[dict[str, Any]]) -> None:
    # Sorted by label, neighbours would agree almost always; by chance they do in 1 of 8.
    same = sum(a["intent"] == b["intent"] for a, b in pairwise(records))
    assert same < 100


RESERVED_PHONE = re.compile(r"555-01\d\d|07700 900\d{3}|\+44 7700 900\d{3}|01632 960\d{3}")
OTHER_NUMBERS = re.compile(r"4111 1111 1111 1111|\b\d{2}[./]\d{2}[./]\d{4}\b")
LONG_NUMBER = re.compile(r"\+?\(?\d(?:[ ().-]{0,2}\d){6,}")


def test_telephone_numbers_are_in_ranges_reserved_for_fiction(records: list[dict[str, Any]]) -> None:
    phones = 0
    for record in records:
        rest, found = RESERVED_PHONE.subn("", record["text"])
        phones += found
        assert not LONG_NUMBER.search(OTHER_NUMBERS.sub("", rest)), record["id"]
        assert not found or record["pii"], record["id"]
    assert phones >= 30


def test_addresses_of_mail_and_sites_are_examples(records: list[dict[str, Any]]) -> None:
    mails = 0
    for record in records:
        for domain in re.findall(r"\w@([\w.-]+\w)", record["text"]):
            mails += 1
            assert domain in {"example.com", "example.org"}, record["id"]
            assert record["pii"], record["id"]
        assert not re.search(r"https?://|www\.", record["text"]), record["id"]
    assert mails >= 30


def test_no_two_messages_say_the_same(records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    cosine, first, second = most_alike([record["text"] for record in records], monkeypatch)
    assert cosine < 0.9, (records[first]["id"], records[second]["id"])
