"""The questions on Python's language reference are what their card says, and their quotes are where they say."""

from __future__ import annotations

import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest

from tests.data.similarity import most_alike
from workbench.data.dataset import Dataset
from workbench.data.store import open_dataset
from workbench.workspace import Layout, Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "datasets" / "python-reference-qa"
KINDS = ("short", "explain", "multi", "unanswerable")
# The texts differ a little between versions; the set was written for this one.
WRITTEN_FOR = sys.version_info[:2] == (3, 11)
OTHER_VERSIONS_MAY_LACK = 0.05

# What an answer could not do without. None of it is in the reference, so the question cannot be answered from it.
ABSENT = {
    "pr-049": r"heapq",
    "pr-056": r"siphash|\bfnv",
    "pr-057": r"argparse",
    "pr-070": r"recursion limit|recursionlimit",
    "pr-080": r"multiprocessing|\bspawn",
    "pr-083": r"pathlib|rglob",
    "pr-102": r"\bpip\b|no-deps",
    "pr-135": r"\bjson\b|ensure_ascii",
    "pr-170": r"\bcsv\b|DictReader",
    "pr-172": r"growth|over-allocates|spare",
    "pr-190": r"dataclass",
    "pr-194": r"half|nearest even|banker",
    "pr-199": r"asyncio",
    "pr-212": r"re\.VERBOSE|re\.X\b",
    "pr-236": r"\bGIL\b|global interpreter lock",
    "pr-239": r"root logger|FileHandler|basicConfig",
    "pr-269": r"subprocess|capture_output",
    "pr-270": r"lru_cache|cache_clear",
    "pr-272": r"TypedDict|NotRequired",
    "pr-278": r"utcnow|timezone",
}


def one_line(text: str) -> str:
    """The text with each run of white space as one space, in which the quotes are looked up."""
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def questions() -> Dataset:
    """Opening it holds every row to schema.json."""
    return open_dataset(Layout(ROOT, Settings()), "python-reference-qa")


@pytest.fixture(scope="module")
def records(questions: Dataset) -> list[dict[str, Any]]:
    return list(questions.records())


@pytest.fixture(scope="module")
def evidence(records: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [item for record in records for item in record["evidence"]]


@pytest.fixture(scope="module")
def card() -> str:
    return one_line((FOLDER / "README.md").read_text("utf-8"))


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    return {topic: one_line(text) for topic, text in topics.items()}


def test_parts_and_counts(questions: Dataset, records: list[dict[str, Any]]) -> None:
    assert (questions.spec.input, questions.spec.target) == (("question",), ("answer", "evidence"))
    assert (FOLDER / "schema.json").is_file()
    assert [record["id"] for record in records] == [f"pr-{i:03d}" for i in range(1, 282)]
    assert len({record["question"].casefold() for record in records}) == 281
    assert [record["id"] for record in records if not record["answerable"]] == list(ABSENT)
    assert len(ABSENT) == 20


def test_the_card_counts_what_is_there(
    questions: Dataset, records: list[dict[str, Any]], evidence: list[dict[str, str]], card: str
) -> None:
    kinds = Counter(record["kind"] for record in records)
    for kind in KINDS:
        assert f"| {kind} | {kinds[kind]} |" in card
    assert f"the reference answers it: {sum(record['answerable'] for record in records)} rows" in card
    two = sum(len({item["document"] for item in record["evidence"]}) > 1 for record in records)
    assert f"two passages are needed, in {two} cases from two topics" in card
    words = [len(record["question"].split()) for record in records]
    assert f"{min(words)} to {max(words)} words (median {int(np.median(words))})" in card
    assert f"{sum(n < 10 for n in words)} questions have fewer than 10 words, {sum(n > 25 for n in words)} have" in card
    answers = [len(record["answer"].split()) for record in records if record["answerable"]]
    assert f"a short gold answer, {min(answers)} to {max(answers)} words" in card
    lengths = [len(item["quote"]) for item in evidence]
    assert f"{len(evidence)} quotes, {min(lengths)} to {max(lengths)} characters long" in card
    for topic, count in Counter(item["document"] for item in evidence).most_common(3):
        assert f"{topic} ({count})" in card
    assert ", ".join(f"{name} {count}" for name, count in questions.splits().items()) in card


def test_a_kind_is_what_the_card_calls_it(records: list[dict[str, Any]]) -> None:
    for record in records:
        passages, answer = len(record["evidence"]), record["answer"]
        if not record["answerable"]:
            expected = "unanswerable"
        elif passages == 2:
            expected = "multi"
        else:
            expected = "short" if len(answer.split()) <= 5 else "explain"
        assert record["kind"] == expected, record["id"]


def test_both_splits_have_a_fair_share_of_every_kind(questions: Dataset) -> None:
    shares = {}
    for name in ("dev", "test"):
        kinds = Counter(record["kind"] for record in questions.split(name).records())
        assert 0.45 < kinds.total() / 281 < 0.55
        shares[name] = [kinds[kind] / kinds.total() for kind in KINDS]
    assert np.abs(np.subtract(shares["dev"], shares["test"])).max() < 0.05


def test_the_topics_are_many_and_exist(evidence: list[dict[str, str]], reference: dict[str, str]) -> None:
    named = {item["document"] for item in evidence}
    assert named <= set(reference)
    assert len(named) == 79


def test_every_quote_stands_once_in_its_topic(evidence: list[dict[str, str]], reference: dict[str, str]) -> None:
    for item in evidence:
        assert item["quote"] == one_line(item["quote"]).strip()
    found = {(e["document"], e["quote"]): reference.get(e["document"], "").count(e["quote"]) for e in evidence}
    missing = [place for place, times in found.items() if not times]
    assert not [place for place, times in found.items() if times > 1]
    if WRITTEN_FOR:
        assert not missing
        return
    assert len(missing) <= OTHER_VERSIONS_MAY_LACK * len(found), missing
    if missing:
        pytest.skip(
            f"the reference of this Python words {len(missing)} of {len(found)} quotes in another way: {missing}"
        )


@pytest.mark.skipif(not WRITTEN_FOR, reason="counts repeats within the topics of Python 3.11")
def test_the_card_tells_how_many_quotes_stand_in_another_topic_too(
    evidence: list[dict[str, str]], reference: dict[str, str], card: str
) -> None:
    repeated = 0
    for item in evidence:
        others = [topic for topic, text in reference.items() if item["quote"] in text and topic != item["document"]]
        repeated += bool(others)
    assert f"{repeated} of the {len(evidence)} quotes also stand in another topic" in card


@pytest.mark.parametrize(("id", "words"), ABSENT.items())
@pytest.mark.skipif(not WRITTEN_FOR, reason="searched for in the topics of Python 3.11")
def test_the_reference_lacks_what_an_unanswerable_question_needs(
    id: str, words: str, reference: dict[str, str]
) -> None:
    assert not [topic for topic, text in reference.items() if re.search(words, text, re.IGNORECASE)]


def plain(text: str) -> str:
    return one_line(re.sub(r"[\"'*.,?]", " ", text.casefold())).strip()


def test_short_answers_mostly_stand_in_the_evidence(records: list[dict[str, Any]]) -> None:
    short = [record for record in records if record["kind"] == "short"]
    verbatim = [plain(record["answer"]) in plain(record["evidence"][0]["quote"]) for record in short]
    assert np.mean(verbatim) > 0.8


def test_an_answer_takes_its_words_from_its_own_evidence(records: list[dict[str, Any]]) -> None:
    """Gold answers that were swapped or made up would share few words with the passage."""

    def words(text: str) -> set[str]:
        return set(re.findall(r"[a-z_]{4,}", text.casefold()))

    answered = [record for record in records if record["answerable"] and words(record["answer"])]
    passages = [words(" ".join(item["quote"] for item in record["evidence"])) for record in answered]

    def overlap(shift: int) -> float:
        pairs = zip(answered, [*passages[shift:], *passages[:shift]], strict=True)
        return float(np.mean([len(words(r["answer"]) & p) / len(words(r["answer"])) for r, p in pairs]))

    assert overlap(0) > 0.6 > 0.2 > overlap(1)


def test_an_id_does_not_tell_the_topic(records: list[dict[str, Any]]) -> None:
    firsts = [record["evidence"][0]["document"] for record in records if record["answerable"]]
    # In the order of writing, neighbours would agree almost always; by chance they do in about 1 of 40.
    assert sum(a == b for a, b in pairwise(firsts)) < 25


def test_questions_are_short_and_long(records: list[dict[str, Any]]) -> None:
    words = [len(record["question"].split()) for record in records]
    assert np.quantile(words, 0.1) < 9
    assert np.quantile(words, 0.9) > 20
    assert sum("\n" in record["question"] for record in records) >= 5
    assert sum("Error" in record["question"] for record in records) >= 25
    # A question formed from a template would begin as many others do.
    starts = Counter(" ".join(record["question"].casefold().split()[:3]) for record in records)
    assert starts.most_common(1)[0][1] < 8


def test_no_two_questions_ask_the_same(records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    cosine, first, second = most_alike([record["question"] for record in records], monkeypatch)
    assert cosine < 0.9, (records[first]["id"], records[second]["id"])
