"""Empty rows, lengths, labels, balance, and data sets that cannot be curated."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.curation.texts import Meanings, dataset
from workbench.curation.balance import is_classes
from workbench.curation.curate import Curated, curate_dataset
from workbench.curation.items import normalise, split_levels
from workbench.curation.labels import label_suspects
from workbench.curation.lengths import length_limits, length_scores
from workbench.curation.report import CurationReport
from workbench.curation.settings import CurationSettings, make_settings
from workbench.data.dataset import Dataset
from workbench.errors import UsageError

WORDS = ("lamp", "lock", "hub", "camera", "sensor", "plan", "parcel", "refund", "invoice", "courier", "login", "update")


def curate(data: Dataset, embedder: Meanings | None = None, **options: Any) -> Curated:
    options = {"personal_data": "skip", "embedder": None} | options
    return curate_dataset(data, CurationSettings(**options), embedder=embedder, show_progress=False)


def different(count: int) -> list[str]:
    return [f"{WORDS[n % 12]} {n} {WORDS[(n * 7) % 12]} {n * n}" for n in range(count)]


def test_empty_rows_are_flagged_and_part_of_no_other_check() -> None:
    made = curate(dataset([("train", "", "a"), ("train", " \n", "a"), ("test", "", "b"), ("train", "where", "a")]))
    assert [(f.id, f.check, f.action) for f in made.report.findings] == [
        ("r0", "empty", "flagged"),
        ("r1", "empty", "flagged"),
        ("r2", "empty", "flagged"),
    ]
    assert len(made.dataset) == 4
    dropped = curate(dataset([("train", "", "a"), ("train", "where", "a"), ("train", "when", "a")]), empty="drop")
    assert dropped.dataset.ids == ("r1", "r2")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("train", "alone", "a")], "1 row: there is nothing to compare"),
        ([("train", " ", "a"), ("train", "", "b")], "text of every row of 'mine' is empty"),
    ],
)
def test_what_cannot_be_curated_is_refused(rows: list[tuple[str, str, str | None]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        curate(dataset(rows))


def test_a_data_set_without_text_is_refused() -> None:
    numbers = Dataset.from_frame(pl.DataFrame({"id": ["a", "b"], "size": [1, 2]}), name="sizes", input="size")
    with pytest.raises(UsageError, match="no input column of 'sizes' holds text: size"):
        curate(numbers)


def test_without_a_target_labels_are_not_checked_and_the_report_says_so() -> None:
    rows: list[tuple[str, str, str | None]] = [("train", text, None) for text in different(12)]
    said = str(curate(dataset(rows), Meanings()).report)
    assert "Not checked: no row has a target." in said
    assert "Not checked: the target holds no classes." in said


def test_without_an_embedder_the_report_says_what_was_left_out() -> None:
    said = str(curate(dataset([("train", text, "a") for text in different(12)])).report)
    assert said.count("By words only: there is no embedder.") == 2
    assert "Only copies that contradict each other: there is no embedder." in said


def test_a_very_long_and_a_very_short_text_are_outliers() -> None:
    texts = [*("x" * n for n in range(40, 60)), "y", "z" * 5000]
    scores = length_scores(texts)
    assert np.flatnonzero(abs(scores) > 3.5).tolist() == [20, 21]
    logs = np.log([len(text) for text in texts])
    expected = (logs - np.median(logs)) / stats.median_abs_deviation(logs, scale="normal")
    np.testing.assert_allclose(scores, expected)
    low, high = length_limits(texts, 3.5)
    assert 1 < low < 40
    assert 60 < high < 5000
    made = curate(dataset([("train", f"{text}{n}", "a") for n, text in enumerate(texts)]), length_outliers="drop")
    assert {f.id for f in made.report.findings if f.check == "length-outliers"} == {"r20", "r21"}
    assert made.dataset.ids == tuple(f"r{n}" for n in range(20))


def test_texts_of_one_length_have_no_outliers() -> None:
    assert not length_scores(["abc"] * 20).any()
    # The MAD of these is 0 although one of them is far off.
    assert length_scores([*["abc"] * 20, "a" * 500])[-1] > 3.5


@given(st.lists(st.integers(1, 5000), min_size=10, max_size=40))
@settings(max_examples=40)
def test_dropping_length_outliers_leaves_none(lengths: list[int]) -> None:
    texts = [chr(97 + n % 26) * length + str(n) for n, length in enumerate(lengths)]
    data = dataset([("train", text, None) for text in texts])
    options: dict[str, Any] = {"length_outliers": "drop", "near_duplicates": "skip", "leakage": "skip"}
    once = curate(data, **options)
    assert curate(once.dataset, **options).dataset.digest == once.dataset.digest


def clusters(per_class: int, flipped: int, seed: int = 0) -> tuple[Any, list[str], set[int]]:
    """Unit vectors of three classes, their labels, and the places of the labels that were changed."""
    rng = np.random.default_rng(seed)
    centres = np.eye(3, 16)
    truth = np.repeat(np.arange(3), per_class)
    vectors = centres[truth] + rng.normal(0, 0.15, (3 * per_class, 16))
    places = rng.choice(3 * per_class, flipped, replace=False)
    given_labels = truth.copy()
    given_labels[places] = (given_labels[places] + rng.integers(1, 3, flipped)) % 3
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit, [f"class {n}" for n in given_labels], set(places.tolist())


def test_flipped_labels_are_suspected_with_the_label_they_had() -> None:
    vectors, labels, flipped = clusters(60, 9)
    suspects, rare = label_suspects(vectors, labels, margin=0.2)
    assert {suspect.place for suspect in suspects} == flipped
    assert [suspect.margin for suspect in suspects] == sorted((s.margin for s in suspects), reverse=True)
    assert all(suspect.likely == f"class {suspect.place // 60}" for suspect in suspects)
    assert rare == set()


def test_clean_labels_are_not_suspected_and_rare_ones_are_left_out() -> None:
    vectors, labels, _ = clusters(60, 0)
    labels[5] = "seldom"
    assert label_suspects(vectors, labels, margin=0.2) == ([], {"seldom"})
    assert label_suspects(vectors[:60], labels[:60], margin=0.2) == ([], {"seldom"})


def test_a_wrong_label_is_flagged_for_its_column_and_stays() -> None:
    texts = different(60)
    means = {text: "first" if n < 30 else "second" for n, text in enumerate(texts)}
    labels = ["a" if n < 30 else "b" for n in range(60)]
    labels[3] = "b"
    rows = [("train", text, label) for text, label in zip(texts, labels, strict=True)]
    made = curate(dataset(rows), Meanings(means), near_duplicates="skip", leakage="skip", cosine=1.0)
    [suspect] = [f for f in made.report.findings if f.check == "label-noise"]
    assert (suspect.id, suspect.action, suspect.reason) == ("r3", "flagged", "label: labelled b, reads like a")
    assert len(made.dataset) == 60


def test_balance_counts_classes_by_split_and_names_what_is_too_small() -> None:
    rows = [("train", text, "often") for text in different(30)]
    rows += [("test", f"seldom seen number {n} of {n * 13}", "seldom") for n in range(3)]
    made = curate(dataset(rows), near_duplicates="skip")
    assert [(c.value, c.splits) for c in made.report.classes] == [
        ("often", {"train": 30, "test": 0}),
        ("seldom", {"train": 0, "test": 3}),
    ]
    said = [note.text for note in made.report.notes if note.check == "class-balance"]
    assert said == [
        "label: 2 classes, the largest (often, 30 rows) is 10.0 times the smallest (seldom, 3).",
        "label: fewer than 10 rows of seldom.",
        "label: none in train of seldom.",
        "label: none in test of often.",
    ]


def test_one_class_is_nothing_to_learn() -> None:
    said = str(curate(dataset([("train", text, "a") for text in different(12)])).report)
    assert "one class only (a): there is nothing to learn" in said


def test_texts_and_measurements_are_no_classes() -> None:
    assert is_classes(["a", "b", "a", "b"], 10)
    assert is_classes([True, False, None, True, False], 10)
    assert not is_classes(["a", "b", "c"], 10)
    assert not is_classes([0.5, 0.5, 0.5], 10)
    assert not is_classes([["a"], ["a"], ["a"]], 10)
    assert not is_classes([str(n // 2) for n in range(40)], 10)
    assert not is_classes([None, None], 10)


def test_splits_are_told_by_name() -> None:
    names = ["train", "dev", "test", "validation", "oos_test", "holdout", "contest", "extra"]
    assert [split_levels(names)[name] for name in names] == [0, 1, 2, 1, 2, 2, 0, 0]


def test_normalised_texts_are_alike_but_for_what_they_say() -> None:
    assert normalise("  ＡBC\n\tdéf ") == "abc déf"
    assert normalise("e\u0301") == normalise("\u00e9")


def test_a_report_reads_back_as_it_was_and_holds_rows_for_people() -> None:
    data = dataset([("train", "same", "a"), ("train", "Same", "a"), ("train", "other", "a")])
    report = curate(data).report
    assert CurationReport.model_validate_json(report.model_dump_json()) == report
    assert report.frame().rows() == [
        ("r1", "train", "exact-duplicates", "dropped", "same text as train row r0", "r0", 1.0)
    ]
    shown = report.with_inputs(data, "exact-duplicates").select("text", "other_text").rows()
    assert shown == [("Same", "same")]
    assert report.counts()["exact-duplicates"] == {"dropped": {"train": 1}}
    assert "1 dropped, 0 masked, 0 flagged" in report._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop": ["doubles"]}, "there is no check 'doubles'"),
        ({"drop": ["leakage"], "flag": ["leakage"]}, "leakage is told to drop and to flag"),
        ({"drop": ["label-noise"]}, "label-noise never drops rows"),
        ({"cosine": 2}, "cosine: Input should be less than or equal to 1"),
        ({"personal_data": "burn"}, "personal_data: Input should be 'drop', 'mask', 'flag' or 'skip'"),
        ({"entities": ()}, "entities is empty"),
        ({"splits": ("a", "a")}, "a name is given twice"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_settings(**arguments)
    assert message in str(caught.value)
