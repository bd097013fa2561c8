"""Answers that rest on passages: what is supported, what is cited rightly, and what should not have been answered."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from workbench.errors import NotFoundError, UsageError
from workbench.experiments import scorers
from workbench.experiments.scorers.base import ScoreInput

PASSAGES = (("a#0-40", "The else clause runs when no break occurs."), ("b#0-40", "Sets are unordered."))


def item(result: object, *, answer: str | None = "yes", passages: tuple[tuple[str, str], ...] = PASSAGES) -> ScoreInput:
    target = {"answer": answer, "evidence": [{"document": "a", "quote": "runs when  no break"}] if answer else []}
    return ScoreInput("1", {}, target, result, str(result), passages=passages)


def words(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """A support without a model: the share of the sentence's words that the passage has."""
    shares = []
    for sentence, passage in pairs:
        said = {word.strip(".,").lower() for word in sentence.split()}
        there = {word.strip(".,").lower() for word in passage.split()}
        shares.append(len(said & there) / len(said))
    return shares


scorers.register_support("words", words)


def test_groundedness_is_the_share_of_supported_sentences() -> None:
    scorer = scorers.groundedness(support="words", threshold=0.8)
    whole = scorer.score(item("The else clause runs when no break occurs [1]. Sets are unordered [2]."))
    half = scorer.score(item("Sets are unordered [2]. Whales sing at night."))
    assert (whole.value, half.value) == (1.0, 0.5)
    assert half.explanation == "not supported: Whales sing at night."
    assert scorer.score(item("The passages do not say.")).value is None
    assert scorer.score(item("Sets are unordered.", passages=())).value is None
    assert scorer.score(item("")).value == 0.0


def test_citations_must_exist_and_support_their_sentence() -> None:
    scorer = scorers.citations(support="words", threshold=0.8)
    assert scorer.score(item("Sets are unordered [2].")).value == 1.0
    assert scorer.score(item("Sets are unordered [1].")).value == 0.0
    assert scorer.score(item("Sets are unordered [1, 2].")).value == 0.5
    assert scorer.score(item("Sets are unordered [9].")).explanation == "wrong: [9]"
    assert scorer.score(item("Sets are unordered.")).explanation == "nothing is cited"


@pytest.mark.parametrize(
    ("said", "answer", "value"),
    [
        ("The passages do not say.", None, 1.0),
        ("The passages do not say.", "yes", 0.0),
        ("It is forty.", None, 0.0),
        ("It is forty.", "yes", 1.0),
        ("I cannot answer that from the text.", None, 1.0),
    ],
)
def test_abstaining_is_right_where_there_is_no_answer(said: str, answer: str | None, value: float) -> None:
    assert scorers.abstention().score(item(said, answer=answer)).value == value


def test_evidence_that_was_shown_is_counted() -> None:
    scorer = scorers.evidence_recall()
    assert scorer.score(item("x")).value == 1.0
    assert scorer.score(item("x", passages=PASSAGES[1:])).value == 0.0
    assert scorer.score(item("x", answer=None)).value is None


def test_settings_are_checked_and_read_back() -> None:
    for made in (
        scorers.groundedness(threshold=0.5),
        scorers.citations(),
        scorers.abstention(),
        scorers.evidence_recall(),
    ):
        assert scorers.scorer_from_config(made.config()).digest == made.digest
    with pytest.raises(UsageError, match="threshold"):
        scorers.groundedness(threshold=0)
    with pytest.raises(NotFoundError, match="register_support"):
        scorers.groundedness(support="nobody").score(item("Sets are unordered."))


@pytest.mark.slow
@pytest.mark.model
def test_the_default_support_tells_a_paraphrase_from_an_invention() -> None:
    pytest.importorskip("sentence_transformers")
    scorer = scorers.groundedness()
    assert scorer.score(item("The else clause runs if no break occurs.")).value == 1.0
    assert scorer.score(item("Whales sing at night in the cold sea.")).value == 0.0
