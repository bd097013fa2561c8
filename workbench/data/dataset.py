"""Dataset: named rows with a content digest, splits that stay put, and samples that anyone can draw again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from workbench.data.row import Row
from workbench.data.spec import DatasetSpec, columns, make_spec
from workbench.data.splits import shuffled, split_of, stratified
from workbench.data.values import as_text, decode
from workbench.errors import NotFoundError, UsageError
from workbench.files import canonical_json, short, write_atomic

Names = str | Sequence[str] | None
BATCH = 4096


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, or a part of one (a split, a sample).

    Attributes:
        spec: which column plays which part; its `id` is always "id" and its `input` is spelled out.
        lazy: the rows; a column "id" (text) first. Parquet is scanned only when rows are asked for.
        json_columns: columns kept as JSON text because Polars has no one type for their values.
        split_name: the split this is, if it is one.
        whole: the data set that this is a part of; None for a whole one.
    """

    spec: DatasetSpec
    lazy: pl.LazyFrame = field(repr=False)
    json_columns: frozenset[str] = frozenset()
    split_name: str | None = None
    whole: Dataset | None = field(default=None, repr=False)
    known_digest: str | None = field(default=None, repr=False)

    @staticmethod
    def read(
        path: str | Path,
        *,
        input: Names = None,
        target: Names = None,
        id: str | None = None,
        group: str | None = None,
        name: str | None = None,
        delimiter: str | None = None,
        **spec: Any,
    ) -> Dataset:
        """Read a file or folder, its form told by suffix (.jsonl, .ndjson, .csv, .tsv, .parquet) or contents.

        Args:
            input: what a prompt may use; default: every column that plays no other part.
            target: the column of the expected answer, or several.
            id: the column that names rows; default: "id" where there is one, else a digest of the inputs.
            group: the column of groups that must not be divided between splits.
            name: default: the name of the file.
            delimiter: of CSV; default: a comma, or a tab in .tsv.
            spec: other fields of `DatasetSpec`.

        Raises:
            DataError: the file, or a row in it, is malformed; names the line.
            UsageError: an argument is not allowed, or the form is not known.
        """
        from workbench.data.opening import read

        fields = {"input": columns(input), "target": columns(target), "id": id, "group": group, **spec}
        return read(Path(path), name, delimiter, fields)

    @classmethod
    def from_jsonl(cls, path: str | Path, **arguments: Any) -> Dataset:
        """Read JSON Lines; arguments and errors as in `read`."""
        from workbench.data.opening import read_as

        return read_as("jsonl", Path(path), arguments)

    @classmethod
    def from_csv(cls, path: str | Path, **arguments: Any) -> Dataset:
        """Read CSV with a header; arguments and errors as in `read`."""
        from workbench.data.opening import read_as

        return read_as("csv", Path(path), arguments)

    @classmethod
    def from_parquet(cls, path: str | Path, **arguments: Any) -> Dataset:
        """Scan a Parquet file, which must not change while the data set is used; arguments and errors as in `read`."""
        from workbench.data.opening import read_as

        return read_as("parquet", Path(path), arguments)

    @classmethod
    def from_hf(cls, path: str | Path, **arguments: Any) -> Dataset:
        """Read a folder that `datasets.save_to_disk` wrote, with its splits; arguments and errors as in `read`."""
        from workbench.data.opening import read_as

        return read_as("hf", Path(path), arguments)

    @classmethod
    def from_beir(cls, path: str | Path, **arguments: Any) -> Dataset:
        """Read a BEIR folder: a row a judged query, its target the ids of relevant documents, best first."""
        from workbench.data.opening import read_as

        return read_as("beir", Path(path), arguments)

    @staticmethod
    def from_frame(
        frame: Any,
        *,
        name: str = "frame",
        input: Names = None,
        target: Names = None,
        id: str | None = None,
        group: str | None = None,
        **spec: Any,
    ) -> Dataset:
        """A Polars frame (lazy or not) or a pandas frame; arguments and errors as in `read`."""
        from workbench.data.opening import from_frame

        fields = {"input": columns(input), "target": columns(target), "id": id, "group": group, **spec}
        return from_frame(frame, make_spec(name=name, **fields))

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def digest(self) -> str:
        """Digest of the rows and of the parts their columns play; storage order and file format don't matter."""
        return self.known_digest or content_digest(self.spec, (row_digest(row) for row in self.records()))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids, in storage order."""
        return tuple(self.lazy.select("id").collect().to_series().to_list())

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.lazy.collect_schema().names())

    def __len__(self) -> int:
        return len(self.ids)

    def frame(self) -> pl.DataFrame:
        """The rows as a Polars frame: "id" first, then every column. `json_columns` are JSON text."""
        return self.lazy.collect()

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows as JSON data with every column, in storage order, read in batches."""
        for batch in self.lazy.collect_batches(chunk_size=BATCH, maintain_order=True):
            for row in batch.iter_rows(named=True):
                yield decode(row, self.json_columns)

    def rows(self) -> list[Row]:
        """The rows as the rest of the workbench reads them, in storage order."""
        return [self._row(record) for record in self.records()]

    def _row(self, record: dict[str, Any]) -> Row:
        group = record.get(self.spec.group) if self.spec.group else None
        return Row(
            id=record["id"],
            inputs={column: record[column] for column in self.spec.input},
            target=target_of(self.spec, record),
            group=None if group is None else as_text(group),
        )

    def splits(self) -> dict[str, int]:
        """Rows by split: in the order the spec gives, or by name where a column gives the splits."""
        counts = dict.fromkeys(self.spec.splits, 0) if not self.spec.split_column else {}
        for split in self._split_of_rows():
            counts[split] = counts.get(split, 0) + 1
        return counts if not self.spec.split_column else dict(sorted(counts.items()))

    def split(self, name: str) -> Dataset:
        """The rows of one split.

        Raises:
            NotFoundError: there is no split of that name.
        """
        of_rows = self._split_of_rows()
        known = set(of_rows) | (set() if self.spec.split_column else set(self.spec.splits))
        if name not in known:
            raise NotFoundError(
                f"the data set {self.name!r} has no split {name!r}", hint=f"Its splits are: {', '.join(sorted(known))}"
            )
        part = self.take([key for key, split in zip(self.ids, of_rows, strict=True) if split == name])
        return dataclasses.replace(part, split_name=name)

    def _split_of_rows(self) -> list[str]:
        spec = self.spec
        if spec.split_column:
            return [as_text(split) for split in self._column(spec.split_column)]
        groups = self._column(spec.group) if spec.group else [None] * len(self)
        keys = (key if group is None else as_text(group) for key, group in zip(self.ids, groups, strict=True))
        return [split_of(key, spec.splits, spec.split_seed) for key in keys]

    def _column(self, name: str) -> list[Any]:
        frame = self.lazy.select(name).collect()
        return [decode(row, self.json_columns)[name] for row in frame.iter_rows(named=True)]

    def take(self, ids: Iterable[str]) -> Dataset:
        """The rows with these ids, in this order.

        Raises:
            NotFoundError: an id is not in the data set.
            UsageError: an id is given twice.
        """
        wanted = list(ids)
        absent = set(wanted) - set(self.ids)
        if absent:
            raise NotFoundError(f"the data set {self.name!r} has no row {min(absent)!r}")
        if len(set(wanted)) < len(wanted):
            raise UsageError("a row is named twice")
        order = pl.LazyFrame({"id": wanted}, schema={"id": pl.String})
        return self._part(order.join(self.lazy, on="id", how="left", maintain_order="left"))

    def head(self, n: int = 5) -> Dataset:
        """The first `n` rows in storage order."""
        return self._part(self.lazy.head(n))

    def sample(self, n: int, seed: int = 0, *, stratify: bool | str = False) -> Dataset:
        """`n` rows chosen by a hash of `seed` and the id: the same ones however the rows are stored.

        Args:
            stratify: take the values of the target in turn, so that each is there about as often; a text names one
                column to do so by.

        Raises:
            UsageError: there are fewer than `n` rows, or no such column.
        """
        if not 0 <= n <= len(self):
            raise UsageError(f"cannot sample {n} of {len(self)} rows")
        if not stratify:
            return self.take(shuffled(self.ids, seed)[:n])
        names = self.spec.target if stratify is True else (stratify,)
        if not names or any(name not in self.columns for name in names):
            raise UsageError(
                f"no column to stratify by: {stratify!r}", hint="Name a column, or give the data set a target"
            )
        labels = [(row["id"], as_text([row[name] for name in names])) for row in self.records()]
        return self.take(stratified(labels, n, seed))

    def filter(self, *predicates: pl.Expr) -> Dataset:
        """The rows for which every Polars expression holds."""
        return self._part(self.lazy.filter(*predicates))

    def _part(self, lazy: pl.LazyFrame) -> Dataset:
        return dataclasses.replace(self, lazy=lazy, whole=self.whole or self, known_digest=None)

    def save(self, folder: str | Path) -> Path:
        """Write `dataset.toml` and the rows as JSON Lines into `folder`, each file whole or not at all; returns it."""
        target = Path(folder)
        lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) for record in self.records()]
        write_atomic(target / self.spec.file, "".join(f"{line}\n" for line in lines))
        write_atomic(target / "dataset.toml", self.spec.to_toml())
        return target

    def __repr__(self) -> str:
        part = f".split({self.split_name!r})" if self.split_name else " (part)" if self.whole else ""
        return f"Dataset({self.name!r}){part}: {len(self)} rows, {short(self.digest)}"

    def _repr_html_(self) -> str:
        from workbench.data.show import dataset_html

        return dataset_html(self)


def target_of(spec: DatasetSpec, record: dict[str, Any]) -> Any:
    """The expected answer of a row: one column's value, an object of several columns, None without a target column."""
    if len(spec.target) == 1:
        return record[spec.target[0]]
    return {column: record[column] for column in spec.target} if spec.target else None


def row_digest(record: dict[str, Any]) -> bytes:
    """SHA-256 of a row's canonical JSON, in which a null cell is left out."""
    return hashlib.sha256(canonical_json({k: v for k, v in record.items() if v is not None})).digest()


def content_digest(spec: DatasetSpec, digests: Iterable[bytes]) -> str:
    """Digest of a data set from its rows' digests, sorted, and the parts of its columns."""
    parts = {
        "group": spec.group,
        "input": sorted(spec.input),
        "target": sorted(spec.target),
        "split": spec.split_column,
    }
    return "sha256:" + hashlib.sha256(canonical_json(parts) + b"".join(sorted(digests))).hexdigest()
