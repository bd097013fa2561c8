"""Values: one form for the cells of a data set, so that equal data is equal whatever file it came from.

Two rules make formats agree. A number without a fraction is an integer (1.0 is 1, as in RFC 8785), and a null cell is
the same as an absent one. A column is kept in Polars' own type only where that loses nothing; any other (numbers beside
text, objects with differing keys) is kept as JSON text and decoded when rows are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from workbench.files import canonical_json

INT64_LIMIT = 2**63
EXACT_FLOAT_LIMIT = 2**53


def normalise(value: Any) -> Any:
    """`value` as JSON data: None, bool, int, float, str, list or dict.

    Raises:
        ValueError: it has no such form; says why (NaN, NUL, an integer over 64 bits, bytes, …).
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        if not -INT64_LIMIT <= value < INT64_LIMIT:
            raise ValueError(f"the integer {str(value)[:12]}… does not fit 64 bits; write it as text")
        return int(value)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{value} is not a JSON number; use null")
        return int(value) if value.is_integer() and abs(value) <= EXACT_FLOAT_LIMIT else float(value)
    if isinstance(value, Mapping):
        return {_key(key): normalise(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [normalise(item) for item in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):  # a numpy array or scalar, as pandas frames hold them
        return normalise(value.tolist())
    raise ValueError(f"a value of type {type(value).__name__} has no JSON form")


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("the text holds a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("the text holds half of a surrogate pair, which is not Unicode") from None
    return str(value)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"the key {key!r} of an object is not text")
    return _text(key)


def as_text(value: Any) -> str:
    """A cell as an id, a group or a split name: text as it is, anything else as its canonical JSON."""
    return value if isinstance(value, str) else canonical_json(value).decode()


def series(name: str, values: Sequence[Any]) -> tuple[pl.Series, bool]:
    """A column of normalised values, and whether it had to be kept as JSON text."""
    native = _native(name, values)
    if native is not None:
        return native, False
    return pl.Series(name, [None if v is None else canonical_json(v).decode() for v in values], dtype=pl.String), True


def _native(name: str, values: Sequence[Any]) -> pl.Series | None:
    kinds = {type(value) for value in values if value is not None}
    scalar: dict[frozenset[type], pl.DataType] = {
        frozenset(): pl.String(),
        frozenset({str}): pl.String(),
        frozenset({bool}): pl.Boolean(),
        frozenset({int}): pl.Int64(),
        frozenset({float}): pl.Float64(),
    }
    dtype = scalar.get(frozenset(kinds))
    if dtype is not None:
        return pl.Series(name, values, dtype=dtype)
    if kinds == {int, float}:
        exact = all(abs(value) <= EXACT_FLOAT_LIMIT for value in values if type(value) is int)
        return pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64) if exact else None
    if kinds not in ({list}, {dict}):
        return None
    try:
        column = pl.Series(name, values, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return None  # Polars has no one type for these; JSON text has
    same = not _hollow(column.dtype) and canonical_json(normalise(column.to_list())) == canonical_json(list(values))
    return column if same else None


def _hollow(dtype: Any) -> bool:
    """Whether a nested type has a part without a type of its own, which Parquet cannot keep."""
    if isinstance(dtype, pl.List | pl.Array):
        return _hollow(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return not dtype.fields or any(_hollow(field.dtype) for field in dtype.fields)
    return isinstance(dtype, pl.Null)


def plain(lazy: pl.LazyFrame) -> pl.LazyFrame:
    """A foreign frame with its scalar columns in the types a data set uses: text, 64-bit numbers, Booleans.

    Dates and times become ISO 8601 text, decimals and categories text. Nothing is read.

    Raises:
        ValueError: a column's type has no JSON form.
    """
    steps: list[pl.Expr] = []
    for name, dtype in lazy.collect_schema().items():
        column = pl.col(name)
        if dtype in (pl.String, pl.Boolean, pl.Int64, pl.Float64) or dtype.is_nested():
            continue
        if dtype.is_integer():
            steps.append(column.cast(pl.Int64, strict=True))
        elif dtype.is_float():
            steps.append(column.cast(pl.Float64))
        elif dtype in (pl.Date, pl.Datetime, pl.Time):
            steps.append(_iso(column, dtype))
        elif dtype.is_decimal() or dtype in (pl.Categorical, pl.Enum, pl.Null):
            steps.append(column.cast(pl.String))
        else:
            raise ValueError(f"the column {name!r} has the type {dtype}, which has no JSON form")
    return lazy.with_columns(steps)


def _iso(column: pl.Expr, dtype: Any) -> pl.Expr:
    """ISO 8601 as Python's `isoformat` writes it, so that a pandas frame and a Parquet file agree."""
    if dtype == pl.Date:
        return column.dt.strftime("%Y-%m-%d")
    head = "%H:%M:%S" if dtype == pl.Time else "%Y-%m-%dT%H:%M:%S"
    zone = "%:z" if isinstance(dtype, pl.Datetime) and dtype.time_zone else ""
    whole = column.dt.microsecond() == 0
    return pl.when(whole).then(column.dt.strftime(head + zone)).otherwise(column.dt.strftime(head + "%.6f" + zone))


def decode(row: Mapping[str, Any], json_columns: frozenset[str]) -> dict[str, Any]:
    """A row of a frame as JSON data, columns kept as JSON text decoded.

    Raises:
        ValueError: a cell has no JSON form.
    """
    out: dict[str, Any] = {}
    for name, value in row.items():
        try:
            out[name] = json.loads(value) if name in json_columns and value is not None else normalise(value)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from None
    return out
