"""Agreement of a judge with labels: against scikit-learn and statsmodels, and where nothing can be said."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from tests.experiments.test_judge import by_shared_words, item, judge, rules, shown
from workbench.errors import UsageError
from workbench.experiments import scorers, statistics
from workbench.experiments.agreement import Agreement, agreement, judge_agreement

sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with sentence-transformers")

marks = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=40)


def table_of(judged: list[int], labels: list[int], classes: list[int]) -> np.ndarray[Any, Any]:
    return np.array([[sum(pair == (a, b) for pair in zip(labels, judged)) for b in classes] for a in classes])  # noqa: B905


@given(marks, st.booleans())
def test_kappa_and_its_table_are_those_of_scikit_learn(pairs: list[tuple[int, int]], ordinal: bool) -> None:
    judged, labels = [one for one, _ in pairs], [other for _, other in pairs]
    found = agreement(judged, labels, ordinal=ordinal)
    classes = sorted({*judged, *labels})
    assert list(found.classes) == classes
    if len(classes) < 2:
        assert found.kappa is None
        return
    assert [list(row) for row in found.counts] == sklearn.confusion_matrix(labels, judged, labels=classes).tolist()
    # scikit-learn weighs by places: with every mark of the scale named, place and mark are the same.
    expected = sklearn.cohen_kappa_score(
        labels, judged, labels=[1, 2, 3, 4, 5] if ordinal else None, weights="quadratic" if ordinal else None
    )
    assert found.kappa == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("ordinal", [False, True])
def test_the_interval_rests_on_the_standard_error_of_statsmodels(ordinal: bool) -> None:
    draw = random.Random(3)
    labels = [draw.randint(1, 4) for _ in range(80)]
    judged = [label if draw.random() < 0.7 else draw.randint(1, 4) for label in labels]
    found = agreement(judged, labels, ordinal=ordinal, level=0.9)
    expected = cohens_kappa(table_of(judged, labels, [1, 2, 3, 4]), wt="quadratic" if ordinal else None)
    assert found.kappa == pytest.approx(expected.kappa)
    assert found.kappa_interval is not None
    assert found.agreement == found.agreed / 80
    assert found.agreement_interval == statistics.wilson(found.agreed, 80, 0.9)
    error = 1.6448536 * expected.std_kappa / (1 - expected.kappa**2)
    assert np.arctanh(found.kappa_interval) == pytest.approx([math.atanh(expected.kappa) + d for d in (-error, error)])


def test_the_interval_covers_the_kappa_of_the_population() -> None:
    draw, rows, share = np.random.default_rng(5), 100, 0.7
    hits = 0
    for _ in range(300):
        labels = draw.integers(2, size=rows)
        # A judge that repeats the label with chance 0.7 and else guesses has a kappa of 0.7.
        judged = np.where(draw.random(rows) < share, labels, draw.integers(2, size=rows))
        low, high = agreement(judged.tolist(), labels.tolist()).kappa_interval or (1.0, -1.0)
        hits += low <= share <= high
    assert 0.91 < hits / 300 <= 0.99


@given(st.lists(st.sampled_from([1.0, 2.0, 3.5, 5.0]), min_size=2), st.booleans())
def test_identical_marks_agree_perfectly(both: list[float], ordinal: bool) -> None:
    found = agreement(both, both, ordinal=ordinal)
    assert (found.agreement, found.bias) == (1.0, 0.0)
    if len(set(both)) > 1:
        assert found.kappa == pytest.approx(1.0)
        assert found.kappa_interval is None, "no disagreement was seen, which is not to say that there is none"
    else:
        assert found.kappa is None
    assert found.reason


@given(marks, st.booleans())
def test_agreement_is_the_same_from_either_side(pairs: list[tuple[int, int]], ordinal: bool) -> None:
    judged, labels = [one for one, _ in pairs], [other for _, other in pairs]
    one, other = agreement(judged, labels, ordinal=ordinal), agreement(labels, judged, ordinal=ordinal)
    assert one.agreement == other.agreement
    assert (one.kappa is None) == (other.kappa is None)
    if one.kappa is not None and other.kappa is not None:
        assert one.kappa == pytest.approx(other.kappa, abs=1e-9)
    assert one.bias is not None
    assert other.bias is not None
    assert one.bias == pytest.approx(-other.bias)
    assert one.counts == tuple(zip(*other.counts, strict=True))


@given(st.lists(st.tuples(*[st.none() | st.sampled_from([0.0, 1.0, math.nan])] * 2)), st.booleans())
def test_nothing_is_ever_nan(pairs: list[tuple[float | None, float | None]], ordinal: bool) -> None:
    found = agreement([one for one, _ in pairs], [other for _, other in pairs], ordinal=ordinal)
    assert found.n + found.missing == len(pairs)
    assert sum(map(sum, found.counts)) == found.n
    numbers = [found.agreement, found.kappa, found.bias, *(found.kappa_interval or ())]
    assert not any(number is not None and math.isnan(number) for number in numbers)
    assert (found.kappa is None or found.kappa_interval is None) == (found.reason is not None)
    assert "nan" not in str(found) + found._repr_html_()


def test_marks_and_not_their_places_weigh_a_disagreement() -> None:
    labels, judged = [1, 2, 9, 9, 1, 2], [2, 1, 9, 9, 1, 2]
    found = agreement(judged, labels, ordinal=True)
    expected = sklearn.cohen_kappa_score(labels, judged, labels=list(range(1, 10)), weights="quadratic")
    assert found.kappa == pytest.approx(expected)
    assert expected > sklearn.cohen_kappa_score(labels, judged, weights="quadratic") + 0.1


@pytest.mark.parametrize(
    ("judged", "labels", "kappa", "reason"),
    [
        ([], [], None, "fewer than two rows"),
        ([1], [2], None, "fewer than two rows"),
        ([None, 1], [1, None], None, "fewer than two rows"),
        (["yes"] * 5, ["yes"] * 5, None, "every mark and label is yes"),
        ([1, 1, 1, 1], [1, 2, 1, 2], 0.0, "the marks vary too little"),
        ([1, 2, 1], [1, 2, 1], 1.0, "mark and label never differ"),
    ],
)
def test_what_cannot_be_known_is_none_with_a_reason(
    judged: list[Any], labels: list[Any], kappa: float | None, reason: str
) -> None:
    found = agreement(judged, labels)
    assert found.kappa == kappa
    assert found.kappa_interval is None
    assert found.reason is not None
    assert reason in found.reason
    assert reason in str(found)


def test_missing_marks_are_counted() -> None:
    found = agreement(["yes", None, "no", "yes"], ["yes", "no", None, "no"])
    assert (found.n, found.missing, found.agreed, found.bias) == (2, 2, 1, None)
    assert "2 (2 more lack a mark or a label)" in str(found)


def test_bias_is_in_the_unit_of_the_marks() -> None:
    assert agreement([5, 4, 4], [4, 4, 2]).bias == pytest.approx(1.0)
    assert agreement([True, False], [1, 1]).bias == -0.5


@pytest.mark.parametrize(
    ("judged", "labels", "options", "words"),
    [
        ([1], [1, 2], {}, "1 judged marks but 2 labels"),
        ([1, 0], ["yes", "no"], {}, "some marks are numbers and some are text"),
        (["good", "bad"], ["good", "good"], {"ordinal": True}, "have no order"),
        ([1], [1], {"level": 95}, "level 95"),
        ([math.inf], [1], {}, "no number to compare"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    judged: list[Any], labels: list[Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        agreement(judged, labels, **options)


def test_how_an_agreement_reads() -> None:
    labels = ["yes"] * 10 + ["no"] * 10
    found = agreement(["yes"] * 8 + ["no"] * 12, labels)
    assert str(found).splitlines() == [
        "rows             20",
        "agreement        90.0% (69.9% to 97.2%)",
        "Cohen's kappa    0.80 (0.37 to 0.95)",
        "",
        "label  judged no  judged yes",
        "no     10         0",
        "yes    2          8",
    ]
    assert "judged yes" in found._repr_html_()
    assert found.confusion().to_dicts()[1] == {"label": "yes", "judged no": 2, "judged yes": 8}
    assert "<script>" not in agreement(["<script>", "a"], ["a", "a"])._repr_html_()


def _said(found: Agreement) -> tuple[int, int, int]:
    return found.n, found.missing, found.agreed


def test_a_judge_against_labels() -> None:
    engine = rules(by_shared_words)
    items = [item("the red house"), item("the dog"), item("a cat"), item(None, error_kind="invalid_output")]
    found = judge_agreement(judge(), items, [5, 3, 1, 1])
    assert _said(found) == (3, 1, 2), "a failed answer was not judged, so that it cannot agree"
    assert found.ordinal
    assert found.bias == pytest.approx(-1 / 3)
    assert len(engine.calls) == 1
    assert not judge_agreement(judge(), items, [5, 3, 1, 1], ordinal=False).ordinal
    with pytest.raises(UsageError, match="4 answers but 1 labels"):
        judge_agreement(judge(), items, [5])


def test_labels_in_text_are_compared_with_the_labels_of_the_judge() -> None:
    rules(lambda prompt: json.dumps({"reasoning": "", "score": int(shown(prompt, "answer") == "red")}))
    items = [item("red"), item("blue"), item("red")]
    named = judge_agreement(judge(scale=(0, 1)), items, ["yes", "no", "no"])
    numbered = judge_agreement(judge(scale=(0, 1)), items, [1, 0, 0])
    assert _said(named) == _said(numbered) == (3, 0, 2)
    assert named.kappa == numbered.kappa
    assert named.bias is None
    assert numbered.bias == pytest.approx(1 / 3)


def test_a_judge_that_failed_is_missing_and_not_wrong() -> None:
    rules(lambda prompt: "no idea")
    found = judge_agreement(judge(), [item("red"), item("blue")], [5, 1])
    assert (found.n, found.missing, found.agreement, found.kappa) == (0, 2, None, None)


def test_any_scorer_can_be_held_against_labels() -> None:
    found = judge_agreement(scorers.exact(), [item("the red house"), item("red")], [1, 1])
    assert (found.agreed, found.n, found.ordinal) == (1, 2, False)


@given(marks)
def test_shuffled_rows_agree_as_before(pairs: list[tuple[int, int]]) -> None:
    assume(len(set(pairs)) > 1)
    turned = pairs[::-1]
    one = agreement(*map(list, zip(*pairs, strict=True)), ordinal=True)
    other = agreement(*map(list, zip(*turned, strict=True)), ordinal=True)
    assert (one.counts, one.kappa, one.kappa_interval) == (other.counts, other.kappa, other.kappa_interval)
