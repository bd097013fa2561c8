"""Hugging Face data sets on disk and BEIR folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workbench.data.dataset import Dataset
from workbench.errors import DataError


def test_a_hugging_face_data_set_with_class_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bug", "praise"])}
    )
    made = datasets.Dataset.from_dict({"text": ["broken", "nice"], "label": [0, 1]}, features=features)
    made.save_to_disk(tmp_path / "one")
    dataset = Dataset.read(tmp_path / "one", target="label")
    assert [(row.inputs, row.target) for row in dataset.rows()] == [
        ({"text": "broken"}, "bug"),
        ({"text": "nice"}, "praise"),
    ]


def test_a_hugging_face_data_set_with_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_dict({"text": [f"{name} text"]}) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "both")
    dataset = Dataset.from_hf(tmp_path / "both", name="both")
    assert dataset.splits() == {"test": 1, "train": 1}
    assert dataset.split("test").rows()[0].inputs == {"text": "test text"}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    write(tmp_path / "corpus.jsonl", [{"_id": f"d{i}", "title": "", "text": f"document {i}"} for i in range(4)])
    write(tmp_path / "queries.jsonl", [{"_id": f"q{i}", "text": f"question {i}"} for i in range(3)])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td2\t1\nq0\td1\t2\nq0\td3\t0\n")
    (tmp_path / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\n")
    return tmp_path


def test_a_beir_folder_gives_judged_queries_with_their_documents(beir: Path) -> None:
    dataset = Dataset.read(beir)
    assert {row.id: row.target for row in dataset.rows()} == {"q0": ["d1", "d2"], "q1": ["d0"]}
    assert dataset.splits() == {"dev": 1, "test": 1}
    assert dataset.split("test").rows()[0].inputs == {"text": "question 0"}


@pytest.mark.parametrize(
    ("judgement", "said"),
    [
        ("q9\td0\t1", "the query 'q9' is not in queries.jsonl"),
        ("q1\td9\t1", "the document 'd9' is not in corpus.jsonl"),
        ("q0\td1\t1", "is in two splits"),
        ("q1\td1", "separated by tabs"),
    ],
)
def test_a_bad_judgement_names_its_line(beir: Path, judgement: str, said: str) -> None:
    file = beir / "qrels" / "train.tsv"
    file.write_text(f"query-id\tcorpus-id\tscore\n{judgement}\n")
    with pytest.raises(DataError) as caught:
        Dataset.from_beir(beir)
    assert (caught.value.line, said in str(caught.value)) == (2, True)
