"""Exact and near duplicates, leaks between splits, and copies with different labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.curation.texts import Meanings, dataset
from workbench.curation.curate import Curated, curate_dataset
from workbench.curation.settings import CurationSettings
from workbench.curation.words import WordIndex, jaccard, shingles
from workbench.errors import UsageError

LONG = "the thermostat in the hall shows nineteen degrees although the radiators are as hot as they ever were"


def curate(rows: Sequence[tuple[str, str, str | None]], embedder: Meanings | None = None, **options: Any) -> Curated:
    options = {"personal_data": "skip", "embedder": None} | options
    return curate_dataset(dataset(rows), CurationSettings(**options), embedder=embedder, show_progress=False)


def found(curated: Curated) -> set[tuple[str, str, str, str | None]]:
    return {(f.id, f.check, f.action, f.other) for f in curated.report.findings}


def test_the_second_of_two_equal_rows_is_dropped_case_and_space_aside() -> None:
    made = curate([("train", "Where is my  parcel?", "a"), ("train", "where is MY parcel? ", "a"), ("test", "x", "b")])
    assert found(made) == {("r1", "exact-duplicates", "dropped", "r0")}
    assert made.dataset.ids == ("r0", "r2")
    assert made.report.before.splits == {"test": 1, "train": 2}
    assert made.report.after.splits == {"test": 1, "train": 1}


def test_a_train_row_that_a_held_out_row_repeats_is_dropped_and_never_the_held_out_one() -> None:
    rows = [("train", LONG, "a"), ("dev", LONG, "a"), ("test", LONG, "a"), ("train", "something else", "b")]
    made = curate([*rows, ("dev", "of its own", "b")])
    assert found(made) == {("r0", "leakage", "dropped", "r2"), ("r1", "leakage", "dropped", "r2")}
    assert made.dataset.ids == ("r2", "r3", "r4")


def test_a_changed_word_is_a_near_duplicate_that_is_only_flagged() -> None:
    rows = [("train", LONG, "a"), ("train", LONG.replace("nineteen", "twenty"), "a"), ("train", "short one", "a")]
    assert found(curate(rows)) == {("r1", "near-duplicates", "flagged", "r0")}
    dropping = curate(rows, near_duplicates="drop")
    assert found(dropping) == {("r1", "near-duplicates", "dropped", "r0")}
    assert dropping.dataset.ids == ("r0", "r2")


def test_a_paraphrase_leaks_by_its_meaning() -> None:
    rows = [("train", "how do I stop paying", "a"), ("test", "end my plan", "a"), ("train", "where is it", "a")]
    made = curate(rows, Meanings({"how do I stop paying": "end my plan"}))
    assert found(made) == {("r0", "leakage", "dropped", "r1")}
    assert made.report.findings[0].reason == "nearly the meaning of test row r1"
    assert made.report.embedder == {"name": "meanings", "digest": Meanings.digest}
    assert found(curate(rows)) == set()


def test_texts_that_the_embedder_cut_are_compared_by_words_only() -> None:
    class Letters:
        def encode_batch(self, texts: list[str]) -> list[Any]:
            return [type("Encoding", (), {"ids": list(text)}) for text in texts]

    long, other = "same " * 10 + "beginning", "same " * 10 + "start of another matter altogether"
    embedder = Meanings({long: "one", other: "one"}, max_tokens=40)
    assert ("r1", "near-duplicates", "flagged", "r0") in found(
        curate([("train", long, "a"), ("train", other, "a")], embedder)
    )
    embedder.tokenizer = Letters()
    made = curate([("train", long, "a"), ("train", other, "a")], embedder)
    assert found(made) == set()
    assert "2 rows are longer than meanings reads" in str(made.report)


def test_copies_with_different_labels_contradict_each_other_and_both_stay() -> None:
    made = curate([("train", "it broke", "bug"), ("train", "It broke", "refund"), ("train", "It  broke", "bug")])
    assert found(made) == {
        ("r0", "label-noise", "flagged", "r1"),
        ("r1", "label-noise", "flagged", "r0"),
        ("r2", "label-noise", "flagged", "r1"),
        ("r2", "exact-duplicates", "dropped", "r0"),
    }
    assert made.dataset.ids == ("r0", "r1")


def test_a_leak_with_another_label_is_reported_as_both() -> None:
    made = curate([("train", "it broke", "bug"), ("test", "it broke", "refund"), ("train", "other", "bug")])
    assert ("r0", "leakage", "dropped", "r1") in found(made)
    assert {("r0", "label-noise", "flagged", "r1"), ("r1", "label-noise", "flagged", "r0")} <= found(made)


def test_rows_with_the_same_text_and_another_number_are_no_exact_duplicates() -> None:
    data = dataset([("train", LONG, "a"), ("train", LONG, "a")])
    numbered = data.frame().with_row_index("number").with_columns(number=_int64("number"))
    from workbench.data.dataset import Dataset

    both = Dataset.from_frame(numbered, input=("text", "number"), target="label", split_column="part")
    made = curate_dataset(both, CurationSettings(personal_data="skip"), show_progress=False)
    assert found(made) == {("r1", "near-duplicates", "flagged", "r0")}


def _int64(name: str) -> Any:
    import polars as pl

    return pl.col(name).cast(pl.Int64)


def test_one_split_leaves_nothing_to_leak_and_the_report_says_so() -> None:
    made = curate([("train", "one", "a"), ("train", "two", "a")])
    assert "Not checked: there is no split to keep apart" in str(made.report)


def test_splits_of_other_names_can_be_put_in_order() -> None:
    rows = [("north", LONG, "a"), ("south", LONG, "a"), ("south", "else", "a"), ("north", "more", "a")]
    # By name the two are of one kind, and the copy is a duplicate.
    assert found(curate(rows)) == {("r1", "exact-duplicates", "dropped", "r0")}
    assert found(curate(rows, splits=("north", "south"))) == {("r0", "leakage", "dropped", "r1")}
    with pytest.raises(UsageError, match="the splits are north, south, not north, west"):
        curate(rows, splits=("north", "west"))


def test_checks_that_are_skipped_find_nothing() -> None:
    rows = [("train", LONG, "a"), ("train", LONG, "a"), ("test", LONG, "b")]
    options: dict[str, Any] = dict.fromkeys(
        ("exact_duplicates", "leakage", "near_duplicates", "label_noise", "length_outliers"), "skip"
    )
    made = curate(rows, class_balance="skip", **options)
    assert found(made) == set()
    assert made.dataset.digest == made.report.before.digest


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=30).map(" ".join), min_size=2, max_size=12))
@settings(max_examples=40)
def test_what_the_hashing_finds_is_near_by_the_exact_index(texts: list[str]) -> None:
    index = WordIndex(texts, threshold=0.6)
    for place, text in enumerate(texts):
        for other, score in index.near(place):
            assert score == jaccard(shingles(text), shingles(texts[other])) >= 0.6
        index.add(place)
        assert (place, 1.0) in index.near(place)


def test_shingles_are_runs_of_words() -> None:
    assert shingles("The cat sat.") == {"the cat", "cat sat"}
    assert shingles("Cat") == {"cat"}
    assert shingles("!?") == {"!?"}
    assert jaccard(shingles("a b c"), shingles("a b d")) == pytest.approx(1 / 3)


WORDS = st.lists(st.sampled_from(["red", "green", "blue", "grey", "pink"]), min_size=1, max_size=8).map(" ".join)
ROWS = st.lists(
    st.tuples(st.sampled_from(["train", "dev", "test"]), WORDS, st.sampled_from(["a", "b", None])),
    min_size=2,
    max_size=25,
)


@given(ROWS, st.booleans())
@settings(max_examples=60)
def test_curating_what_was_curated_changes_nothing(rows: list[tuple[str, str, str | None]], near: bool) -> None:
    chosen = CurationSettings(
        personal_data="skip", jaccard=0.5, near_duplicates="drop" if near else "flag", length_outliers="drop"
    )
    embedder = Meanings({text: text.split()[0] for _, text, _ in rows if len(text.split()) > 4})
    once = curate_dataset(dataset(rows), chosen, embedder=embedder, show_progress=False)
    dropped = {f.id for f in once.report.findings if f.action == "dropped"}
    assert set(once.dataset.ids) == set(dataset(rows).ids) - dropped
    kept = dict(zip(once.dataset.ids, once.dataset.frame()["part"], strict=True))
    assert all(kept[f"r{n}"] == split for n, (split, _, _) in enumerate(rows) if f"r{n}" in kept)
    if len(once.dataset) < 2:
        return
    twice = curate_dataset(once.dataset, chosen, embedder=embedder, show_progress=False)
    assert twice.dataset.digest == once.dataset.digest
    assert not any(f.action == "dropped" for f in twice.report.findings)
    again = curate_dataset(dataset(list(rows)), chosen, embedder=embedder, show_progress=False)
    assert (again.dataset.digest, again.report.digest) == (once.dataset.digest, once.report.digest)
