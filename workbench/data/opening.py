"""Opening: from a file, a folder or a frame to a checked Dataset. One pass finds every fault and the digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from workbench.data import foreign
from workbench.data.check import SchemaCheck, Source, check_columns, check_ids, check_row
from workbench.data.dataset import BATCH, Dataset, content_digest, row_digest
from workbench.data.readers import Table, read_csv, read_jsonl
from workbench.data.spec import NAME, DatasetSpec, columns, make_spec
from workbench.data.values import as_text, decode, plain, series
from workbench.errors import DataError, UsageError
from workbench.files import canonical_json

FORMS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


def form_of(path: Path) -> str:
    """The form of a file or folder: "jsonl", "csv", "parquet", "hf" or "beir".

    Raises:
        DataError: there is nothing at `path`.
        UsageError: the form is not known.
    """
    if not path.exists():
        raise DataError("no such file", path=str(path))
    if path.is_dir():
        if foreign.is_hf(path):
            return "hf"
        if foreign.is_beir(path):
            return "beir"
    elif path.suffix.lower() in FORMS:
        return FORMS[path.suffix.lower()]
    hint = f"Known are files {', '.join(FORMS)} and folders of Hugging Face datasets or BEIR"
    raise UsageError(f"cannot tell the form of {path}", hint=hint)


def read(path: Path, name: str | None, delimiter: str | None, fields: Mapping[str, Any]) -> Dataset:
    """See `Dataset.read`."""
    return read_form(form_of(path), path, name, delimiter, fields)


def read_as(form: str, path: Path, arguments: Mapping[str, Any]) -> Dataset:
    """Read `path` as `form`, with the arguments of `Dataset.read`."""
    fields = dict(arguments)
    name, delimiter = fields.pop("name", None), fields.pop("delimiter", None)
    for key in ("input", "target"):
        fields[key] = columns(fields.get(key))
    return read_form(form, path, name, delimiter, fields)


def read_form(form: str, path: Path, name: str | None, delimiter: str | None, fields: Mapping[str, Any]) -> Dataset:
    """Read `path` as `form` with the fields of a spec."""
    return read_spec(form, path, make_spec(name=name or _name_from(path), **fields), delimiter)


def read_spec(
    form: str, path: Path, spec: DatasetSpec, delimiter: str | None = None, schema: SchemaCheck | None = None
) -> Dataset:
    """Read `path` as `form`, each row held to `schema` where there is one.

    Raises:
        DataError: the file, or a row in it, is malformed.
        UsageError: a delimiter is given for something else than CSV.
    """
    if delimiter is not None and form != "csv":
        raise UsageError("a delimiter is for CSV only")
    if form == "parquet":
        return scan_parquet(path, spec, schema=schema)
    if form == "jsonl":
        return from_table(read_jsonl(path), spec, schema)
    if form == "csv":
        return from_table(read_csv(path, delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")), spec, schema)
    if form == "hf":
        frame, has_splits = foreign.read_hf(path)
        chosen = {"split_column": "split"} if has_splits and not spec.split_column else {}
        return from_lazy(frame.lazy(), spec.model_copy(update=chosen), Source(path), schema=schema)
    ours = {"id": "id", "input": ("text",), "target": ("relevant",), "split_column": "split"}
    return from_table(foreign.read_beir(path), spec.model_copy(update=ours), schema)


def _name_from(path: Path) -> str:
    cleaned = "".join(mark if mark.isascii() and (mark.isalnum() or mark in "._-") else "-" for mark in path.stem)
    return cleaned if NAME.fullmatch(cleaned) else "data"


def from_frame(frame: Any, spec: DatasetSpec) -> Dataset:
    """See `Dataset.from_frame`."""
    if isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return from_lazy(frame.lazy(), spec, Source())
    if type(frame).__module__.split(".")[0] == "pandas":
        return from_table(foreign.read_pandas(frame), spec)
    raise UsageError(f"a frame is a Polars or a pandas one, not {type(frame).__name__}")


def scan_parquet(
    path: Path, spec: DatasetSpec, json_columns: frozenset[str] = frozenset(), schema: SchemaCheck | None = None
) -> Dataset:
    """A Parquet file, checked in one pass and scanned again for each use."""
    if not path.is_file():
        raise DataError("no such file", path=str(path))
    return from_lazy(pl.scan_parquet(path), spec, Source(path), json_columns, schema)


def from_table(table: Table, spec: DatasetSpec, schema: SchemaCheck | None = None) -> Dataset:
    """A data set of rows read by a reader."""
    check_columns(table.columns, spec, table.source)
    built = {name: series(name, [row.get(name) for row in table.rows]) for name in table.columns}
    lazy = pl.LazyFrame([column for column, _ in built.values()])
    json_columns = frozenset(name for name, (_, as_json) in built.items() if as_json)
    return _checked(lazy, spec, table.source, json_columns, schema)


def from_lazy(
    lazy: pl.LazyFrame,
    spec: DatasetSpec,
    source: Source,
    json_columns: frozenset[str] = frozenset(),
    schema: SchemaCheck | None = None,
) -> Dataset:
    """A data set of a foreign frame.

    Raises:
        DataError: a column's type has no JSON form, or the file cannot be read.
    """
    try:
        clean = plain(lazy)
        check_columns(clean.collect_schema().names(), spec, source)
        return _checked(clean, spec, source, json_columns, schema)
    except ValueError as error:
        source.fail(str(error))
    except (pl.exceptions.PolarsError, OSError) as error:
        source.fail(f"cannot be read: {str(error).splitlines()[0]}")


def _checked(
    lazy: pl.LazyFrame, spec: DatasetSpec, source: Source, json_columns: frozenset[str], schema: SchemaCheck | None
) -> Dataset:
    """Find the ids, check every row and take the digest, in one pass over `lazy`."""
    names = lazy.collect_schema().names()
    id_column = spec.id or ("id" if "id" in names else None)
    parts = {id_column, "id", *spec.target, spec.group, spec.split_column}
    inputs = spec.input or tuple(name for name in names if name not in parts)
    if not inputs:
        source.fail("no column is left as input", hint="Name the input column")
    full = spec.model_copy(update={"id": "id", "input": inputs})
    ids: list[str | None] = []
    digests: list[bytes] = []
    make_id = _maker(inputs)
    for batch in lazy.collect_batches(chunk_size=BATCH, maintain_order=True):
        for raw in batch.iter_rows(named=True):
            index = len(ids)
            try:
                row = decode(raw, json_columns)
            except ValueError as error:
                source.fail(str(error), row=index)
            value = row.pop(id_column) if id_column else make_id(row)
            ids.append(None if value is None else as_text(value))
            check_row(row, full, source, index)
            record = {"id": ids[-1], **row}
            if schema is not None:
                schema.check(record, source, index)
            digests.append(row_digest(record))
    if not ids:
        source.fail("there are no rows")
    check_ids(ids, source)
    rest = [name for name in names if name != id_column]
    if id_column == "id" and lazy.collect_schema()["id"] == pl.String and "id" not in json_columns:
        framed = lazy.select("id", *rest)
    else:
        framed = lazy.select(pl.Series("id", ids, dtype=pl.String), *rest)
    kept = json_columns - {id_column} if id_column else json_columns
    return Dataset(full, framed, kept, known_digest=content_digest(full, digests))


def _maker(inputs: tuple[str, ...]) -> Callable[[Mapping[str, Any]], str]:
    """Ids from inputs: 16 hexadecimal digits of their digest; "-2", "-3"… on the rows that repeat earlier inputs."""
    seen: dict[str, int] = {}

    def make(row: Mapping[str, Any]) -> str:
        shown = {name: row[name] for name in inputs if row[name] is not None}
        key = hashlib.sha256(canonical_json(shown)).hexdigest()[:16]
        seen[key] = seen.get(key, 0) + 1
        return key if seen[key] == 1 else f"{key}-{seen[key]}"

    return make
