"""Foreign sources: pandas frames, Hugging Face `datasets` on disk and BEIR folders."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from workbench.data.check import Source
from workbench.data.readers import Table, normalise_keys, read_bytes, read_jsonl
from workbench.data.values import as_text, normalise
from workbench.errors import DataError, require


def is_hf(path: Path) -> bool:
    """Whether `path` is a folder that `datasets.save_to_disk` wrote."""
    return (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file()


def is_beir(path: Path) -> bool:
    """Whether `path` is a folder in BEIR's form: `queries.jsonl`, `corpus.jsonl`, `qrels/*.tsv`."""
    return (path / "queries.jsonl").is_file() and (path / "qrels").is_dir()


def read_pandas(frame: Any) -> Table:
    """The columns of a pandas frame; its index is left out. NaN, NaT and `pd.NA` are null.

    Raises:
        DataError: a column has no name or a cell has no JSON form.
    """
    source = Source()
    try:
        normalise_keys(dict.fromkeys(frame.columns))
    except ValueError as error:
        source.fail(str(error), hint="Name the columns with text")
    if not frame.columns.is_unique:
        source.fail("two columns have the same name")
    columns: dict[str, list[Any]] = {}
    for name in frame.columns:
        missing = frame[name].isna().tolist()
        columns[name] = [None if gone else value for gone, value in zip(missing, frame[name].tolist(), strict=True)]
    rows: list[dict[str, Any]] = []
    for index in range(len(frame)):
        row: dict[str, Any] = {}
        for name, values in columns.items():
            try:
                row[name] = normalise(values[index])
            except ValueError as error:
                source.fail(f"column {name!r}: {error}", row=index)
        rows.append(row)
    return Table(tuple(columns), rows, source)


def read_hf(path: Path) -> tuple[pl.DataFrame, bool]:
    """A folder written by `datasets.save_to_disk`, and whether a column "split" was added for a `DatasetDict`.

    Class labels become their names.

    Raises:
        DataError: not such a folder, or a `DatasetDict` that has a column "split" already.
        MissingExtraError: `datasets` is not installed.
    """
    datasets = require("datasets", extra="datasets")
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise DataError(f"not a Hugging Face data set on disk: {error}", path=str(path)) from None
    if not isinstance(loaded, datasets.DatasetDict):
        return _labelled(loaded, datasets.ClassLabel), False
    frames = []
    for split, part in loaded.items():
        if "split" in part.column_names:
            raise DataError(
                "the data set has splits and a column 'split' too", path=str(path), hint="Rename the column"
            )
        frames.append(_labelled(part, datasets.ClassLabel).with_columns(pl.lit(str(split)).alias("split")))
    return pl.concat(frames, how="diagonal"), True


def _labelled(dataset: Any, class_label: Any) -> pl.DataFrame:
    frame: pl.DataFrame = dataset.to_polars()
    named = {name: feature.names for name, feature in dataset.features.items() if isinstance(feature, class_label)}
    return frame.with_columns(
        # -1 is how `datasets` writes a row without a label.
        pl.col(name).replace_strict(list(range(len(labels))), labels, default=None, return_dtype=pl.String)
        for name, labels in named.items()
    )


def read_beir(path: Path) -> Table:
    """The judged queries of a BEIR folder as rows: id, text, relevant (document ids, most relevant first) and split.

    The split is the name of the file under `qrels/`. Queries that no file judges are left out; judgements of 0 or less
    are not relevant.

    Raises:
        DataError: a malformed file, a judgement of a query or document that isn't there, or a query in two splits.
    """
    queries = read_jsonl(path / "queries.jsonl")
    text: dict[str, Any] = {}
    for index, row in enumerate(queries.rows):
        if row.get("_id") is None or row.get("text") is None:
            queries.source.fail("a query needs '_id' and 'text'", row=index)
        text[as_text(row["_id"])] = row["text"]
    documents = _document_ids(path / "corpus.jsonl")
    found: dict[str, tuple[str, list[tuple[float, str]]]] = {}
    for file in sorted((path / "qrels").glob("*.tsv")):
        for line, query, document, score in _judgements(file):
            if query not in text:
                raise DataError(f"the query {query!r} is not in queries.jsonl", path=str(file), line=line)
            if document not in documents:
                raise DataError(f"the document {document!r} is not in corpus.jsonl", path=str(file), line=line)
            split, relevant = found.setdefault(query, (file.stem, []))
            if split != file.stem:
                raise DataError(f"the query {query!r} is in two splits ({split} too)", path=str(file), line=line)
            if score > 0:
                relevant.append((-score, document))
    if not found:
        raise DataError("no judgements in qrels/*.tsv", path=str(path))
    rows = [
        {"id": query, "text": text[query], "relevant": [d for _, d in sorted(relevant)], "split": split}
        for query, (split, relevant) in found.items()
    ]
    return Table(("id", "text", "relevant", "split"), rows, Source(path))


def _document_ids(path: Path) -> set[str]:
    table = read_jsonl(path)
    for index, row in enumerate(table.rows):
        if row.get("_id") is None:
            table.source.fail("a document needs '_id'", row=index)
    return {as_text(row["_id"]) for row in table.rows}


def _judgements(path: Path) -> Iterator[tuple[int, str, str, float]]:
    lines = read_bytes(path).decode().splitlines()
    for number, cells in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
        if not cells or (number == 1 and cells[0] == "query-id"):
            continue
        try:
            query, document, score = cells
            yield number, query, document, float(score)
        except ValueError:
            message = "a judgement is query-id, corpus-id and score, separated by tabs"
            raise DataError(message, path=str(path), line=number) from None
