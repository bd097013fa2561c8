"""Dataset: one digest for the same rows in any form, splits that stay put, samples anyone can draw again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.dataset import Dataset
from workbench.data.splits import shuffled, split_of
from workbench.errors import NotFoundError, UsageError

ROWS: list[dict[str, Any]] = [
    {"key": "007", "text": "one, with a comma", "size": 7, "price": 1.5, "ok": True, "label": "a", "note": None},
    {"key": "008", "text": 'two "quoted"\nlines', "size": -1, "price": 2, "ok": False, "label": "b", "note": "1.50"},
    {"key": "009", "text": "drei · ünï 🙂", "size": 0, "price": 0.1, "ok": True, "label": "a", "note": "true "},
]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_same_rows_have_one_digest_in_every_form_and_order(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS, strict=False)
    frame.write_csv(tmp_path / "rows.csv")
    frame.write_csv(tmp_path / "rows.tsv", separator="\t")
    frame.reverse().write_parquet(tmp_path / "rows.parquet")
    write_jsonl(tmp_path / "rows.jsonl", [dict(reversed(row.items())) for row in reversed(ROWS)])
    forms = ("rows.csv", "rows.tsv", "rows.parquet", "rows.jsonl")
    read = [Dataset.read(tmp_path / form, target="label", id="key") for form in forms]
    read += [
        Dataset.from_frame(frame, target="label", id="key"),
        Dataset.from_frame(frame.lazy(), target="label", id="key"),
    ]
    read += [Dataset.from_frame(pd.DataFrame(ROWS), target="label", id="key")]
    assert len({dataset.digest for dataset in read}) == 1
    rows = [{row.id: (dict(row.inputs), row.target) for row in dataset.rows()} for dataset in read]
    assert all(found == rows[0] for found in rows)
    assert rows[0]["007"][0]["size"] == 7
    assert rows[0]["008"][0]["note"] == "1.50"


def test_csv_cells_are_numbers_only_where_a_whole_column_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        "zero,int,mixed,float,fixed,bool,word,empty\n007,7,1,1.5,1.50,true,true,\n8,,x,2.0,2.25,false,maybe,\n"
    )
    first, second = (row.inputs for row in Dataset.read(path).rows())
    assert (second["float"], second["fixed"]) == (2, "2.25")
    assert first == {
        "zero": "007",
        "int": 7,
        "mixed": "1",
        "float": 1.5,
        "fixed": "1.50",
        "bool": True,
        "word": "true",
        "empty": None,
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(st.fixed_dictionaries({"x": json_values, "y": json_values}), min_size=1, max_size=6), st.randoms())
def test_any_json_survives_reading_saving_and_reordering(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], order: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("json")
    named = [{"id": str(i), **row} for i, row in enumerate(rows)]
    dataset = Dataset.read(write_jsonl(folder / "rows.jsonl", named))
    assert [dict(row.inputs) for row in dataset.rows()] == rows
    order.shuffle(named)
    assert Dataset.read(write_jsonl(folder / "mixed.jsonl", named)).digest == dataset.digest
    saved = Dataset.read(dataset.save(folder / "saved") / "data.jsonl")
    assert saved.digest == dataset.digest


def test_a_changed_cell_or_part_changes_the_digest() -> None:
    frame = pl.DataFrame({"id": ["a", "b"], "x": ["1", "2"], "y": ["p", "q"]})
    dataset = Dataset.from_frame(frame, target="y")
    other = frame.with_columns(pl.lit("p").alias("y"))
    assert Dataset.from_frame(other, target="y").digest != dataset.digest
    assert Dataset.from_frame(frame, target="x").digest != dataset.digest
    assert Dataset.from_frame(frame.select("y", "x", "id"), target="y", name="other").digest == dataset.digest


def test_rows_without_ids_are_named_by_their_inputs() -> None:
    frame = pl.DataFrame({"text": ["hello", "bye", "hello"], "label": ["a", "b", "c"]})
    ids = Dataset.from_frame(frame, target="label").ids
    assert ids[2] == f"{ids[0]}-2"
    assert all(len(key) == 16 for key in ids[:2])
    assert Dataset.from_frame(frame.head(2), target="label").ids == ids[:2]


def test_several_target_columns_make_an_object_and_the_rest_is_input() -> None:
    frame = pl.DataFrame({"id": [1], "text": ["hi"], "intent": ["bug"], "urgency": [None], "who": ["ann"]})
    row = Dataset.from_frame(frame, target=["intent", "urgency"], group="who").rows()[0]
    assert (row.id, row.inputs, row.target, row.group) == (
        "1",
        {"text": "hi"},
        {"intent": "bug", "urgency": None},
        "ann",
    )


@given(st.lists(st.text(min_size=1), min_size=1, max_size=40, unique=True), st.text(min_size=1), st.text())
def test_adding_rows_moves_none_between_splits(ids: list[str], more: str, seed: str) -> None:
    shares = {"train": 0.4, "dev": 0.2, "test": 0.4}
    before = {key: split_of(key, shares, seed) for key in ids}
    after = {key: split_of(key, shares, seed) for key in [more, *reversed(ids)]}
    assert all(after[key] == split for key, split in before.items())


def test_splits_have_their_shares_and_keep_groups_whole() -> None:
    n = 4000
    frame = pl.DataFrame({"id": [f"r{i}" for i in range(n)], "x": range(n), "who": [f"g{i // 4}" for i in range(n)]})
    counts = Dataset.from_frame(frame).splits()
    assert list(counts) == ["train", "dev", "test"]
    # Five standard deviations of a binomial count.
    for split, share in (("train", 0.4), ("dev", 0.2), ("test", 0.4)):
        assert abs(counts[split] - n * share) < 5 * (n * share * (1 - share)) ** 0.5
    grouped = Dataset.from_frame(frame, group="who")
    parts = [set(grouped.split(name).frame()["who"]) for name in counts]
    assert sum(map(len, parts)) == n // 4
    assert sum(grouped.splits().values()) == n
    assert grouped.splits() != counts


def test_a_column_may_name_the_splits() -> None:
    frame = pl.DataFrame({"id": ["a", "b", "c"], "x": [1, 2, 3], "fold": ["test", "train", "test"]})
    dataset = Dataset.from_frame(frame, split_column="fold")
    assert dataset.splits() == {"test": 2, "train": 1}
    part = dataset.split("test")
    assert (part.ids, part.split_name, part.spec.input) == (("a", "c"), "test", ("x",))
    with pytest.raises(NotFoundError, match="test, train"):
        dataset.split("dev")


def test_samples_do_not_depend_on_storage_order() -> None:
    frame = pl.DataFrame({"id": [f"r{i}" for i in range(50)], "x": range(50), "label": ["a"] * 45 + ["b"] * 5})
    one, other = Dataset.from_frame(frame, target="label"), Dataset.from_frame(frame.reverse(), target="label")
    assert one.sample(8, seed=1).ids == other.sample(8, seed=1).ids
    assert one.sample(8, seed=1).digest == other.sample(8, seed=1).digest
    assert one.sample(8, seed=1).ids != one.sample(8, seed=2).ids
    assert one.sample(8, seed=1).ids == one.sample(20, seed=1).ids[:8]
    with pytest.raises(UsageError, match="cannot sample 51 of 50"):
        one.sample(51)


def test_a_stratified_sample_takes_the_labels_in_turn() -> None:
    frame = pl.DataFrame(
        {"id": [f"r{i}" for i in range(50)], "label": ["a"] * 40 + ["b"] * 8 + ["c"] * 2, "x": range(50)}
    )
    dataset = Dataset.from_frame(frame, target="label")
    sample = dataset.sample(10, seed=3, stratify=True)
    counts = dict(sample.frame()["label"].value_counts().iter_rows())
    assert counts == {"a": 4, "b": 4, "c": 2}
    assert dataset.sample(10, seed=3, stratify="label").ids == sample.ids
    with pytest.raises(UsageError, match="no column to stratify by"):
        dataset.sample(2, stratify="lable")


def test_parts_are_data_sets_that_know_their_whole() -> None:
    dataset = Dataset.from_frame(pl.DataFrame({"id": ["a", "b", "c"], "x": [1, 2, 3]}))
    assert dataset.take(["c", "a"]).ids == ("c", "a")
    assert dataset.filter(pl.col("x") > 1).ids == ("b", "c")
    assert dataset.head(1).ids == ("a",)
    assert dataset.head(2).filter(pl.col("x") > 1).whole is dataset
    assert dataset.take(["c", "b", "a"]).digest == dataset.digest
    assert dataset.head(2).digest != dataset.digest
    with pytest.raises(NotFoundError, match="'z'"):
        dataset.take(["a", "z"])


def test_parquet_is_scanned_when_rows_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"x": [1, 2, 3]}).write_parquet(path)
    dataset = Dataset.from_parquet(path)
    assert "Parquet SCAN" in dataset.lazy.explain()
    assert dataset.filter(pl.col("x") > 2).rows()[0].inputs == {"x": 3}


def test_dates_and_categories_become_text_alike_in_polars_and_pandas() -> None:
    times = ["2024-05-01T10:00:00", "2024-05-01T10:00:00.250000"]
    frame = pl.DataFrame({"id": ["a", "b"], "at": times}).with_columns(
        pl.col("at").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f")
    )
    one = Dataset.from_frame(frame)
    assert [row.inputs["at"] for row in one.rows()] == times
    pandas = pd.DataFrame({"id": pd.Categorical(["a", "b"]), "at": pd.to_datetime(times, format="ISO8601")})
    assert Dataset.from_frame(pandas).digest == one.digest


def test_how_it_shows_itself() -> None:
    dataset = Dataset.from_frame(pl.DataFrame({"id": ["a"], "x": ["<script>alert(1)</script>"]}), name="mine")
    assert repr(dataset).startswith("Dataset('mine'): 1 rows, ")
    assert "&lt;script&gt;" in dataset._repr_html_()
    assert "<script>" not in dataset._repr_html_()


def test_shuffled_is_a_permutation() -> None:
    ids = [str(i) for i in range(100)]
    assert sorted(shuffled(ids, 1)) == sorted(ids)
    assert shuffled(ids, 1) != ids
