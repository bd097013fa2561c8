"""Readers: JSON Lines and CSV as lists of rows with their line numbers.

Both are read whole, line by line: a fault must be found, and located, before anything is kept. Polars' own readers
would coerce a column that mixes types without saying so. Parquet, which is typed, is scanned lazily instead (see
opening.py).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.data.check import Source
from workbench.data.values import normalise
from workbench.errors import DataError
from workbench.files import canonical_json

CELL_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Table:
    """Rows of normalised values, by column, and where they came from. `columns` is in the file's order."""

    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    source: Source


def read_bytes(path: Path) -> bytes:
    """The bytes of a UTF-8 text file, without a byte order mark.

    Raises:
        DataError: there is no such file, it is empty, or it is not UTF-8 (names the line).
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError("no such file", path=str(path)) from None
    except IsADirectoryError:
        raise DataError("a folder, not a file", path=str(path)) from None
    except OSError as error:
        raise DataError(error.strerror or str(error), path=str(path)) from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("the file is UTF-16", path=str(path), line=1, hint="Save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise DataError("the file is empty", path=str(path))
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8 (byte 0x{data[error.start]:02x})"
        raise DataError(message, path=str(path), line=line, hint="Save it as UTF-8") from None
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise DataError("a NUL byte", path=str(path), line=line, hint="Is this a text file?")
    return data


def read_jsonl(path: Path) -> Table:
    """Read JSON Lines: one object a line; blank lines are skipped.

    Raises:
        DataError: names the line that is not a JSON object, names a key twice, or holds a value without a JSON form.
    """
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    columns: dict[str, None] = {}
    # Not splitlines(): JSON text may hold U+2028 and the like unescaped.
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _object(line.decode(), path, number)
        rows.append(row)
        lines.append(number)
        columns.update(dict.fromkeys(row))
    return Table(tuple(columns), rows, Source(path, lines))


def _object(text: str, path: Path, line: int) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
        if not isinstance(value, dict):
            raise ValueError(f"a line must be a JSON object, not {_kind(value)}")
        return {name: _cell(name, cell) for name, cell in normalise_keys(value).items()}
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg} at character {error.pos + 1}"
        raise DataError(message, path=str(path), line=line) from None
    except RecursionError:
        raise DataError("nested too deeply", path=str(path), line=line) from None
    except ValueError as error:
        raise DataError(str(error), path=str(path), line=line) from None


def normalise_keys(row: dict[Any, Any]) -> dict[str, Any]:
    """`row` with its column names checked.

    Raises:
        ValueError: a name is empty or not text.
    """
    for name in row:
        if not isinstance(name, str) or not name.strip():
            raise ValueError("a column has no name")
        normalise(name)
    return row


def _cell(name: str, value: Any) -> Any:
    try:
        return normalise(value)
    except ValueError as error:
        raise ValueError(f"column {name!r}: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} occurs twice")
    return out


def _integer(digits: str) -> int:
    # Python's own message for thousands of digits speaks of its limits, not of the data.
    if len(digits) > 40:
        raise ValueError(f"the integer {digits[:12]}… does not fit 64 bits; write it as text")
    return int(digits)


def _kind(value: Any) -> str:
    return {list: "an array", str: "a string", bool: "a Boolean", type(None): "null"}.get(type(value), "a number")


def read_csv(path: Path, delimiter: str = ",") -> Table:
    """Read CSV with a header. An empty cell is null.

    A column is numbers or Booleans only where each of its cells is exactly how JSON writes such a value, so "007" and
    "1.50" stay text and the same data has the same digest as CSV and as JSON Lines.

    Raises:
        DataError: names the line with the wrong number of cells, an unclosed quote or a bad header.
    """
    if len(delimiter) != 1:
        raise DataError(f"the delimiter must be one character, not {delimiter!r}", path=str(path))
    text = read_bytes(path).decode()
    limit = csv.field_size_limit(CELL_LIMIT)
    try:
        header, cells, lines = _records(text, path, delimiter)
    finally:
        csv.field_size_limit(limit)
    typed = [_typed([row[i] for row in cells]) for i in range(len(header))]
    rows = [dict(zip(header, values, strict=True)) for values in zip(*typed, strict=True)] if cells else []
    return Table(tuple(header), rows, Source(path, lines))


def _records(text: str, path: Path, delimiter: str) -> tuple[list[str], list[list[str]], list[int]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    cells: list[list[str]] = []
    lines: list[int] = []
    start = 1
    try:
        for record in reader:
            if not header:
                header = _header(record, path, start) if record else []
            elif record:
                if len(record) != len(header):
                    message = f"{len(record)} cells where the header has {len(header)}"
                    hint = "Quote cells that hold the delimiter or a line break"
                    raise DataError(message, path=str(path), line=start, hint=hint)
                cells.append(record)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"not CSV: {error}", path=str(path), line=start, hint="Is a quote left open?") from None
    return header, cells, lines


def _header(names: list[str], path: Path, line: int) -> list[str]:
    for index, name in enumerate(names):
        if not name.strip():
            hint = "Name it (from pandas, write with to_csv(index=False))"
            raise DataError(f"column {index + 1} has no name", path=str(path), line=line, hint=hint)
        if name in names[:index]:
            raise DataError(f"the column {name!r} occurs twice", path=str(path), line=line)
    return names


def _typed(cells: Iterable[str]) -> list[Any]:
    texts = [cell or None for cell in cells]
    values = [None if text is None else _literal(text) for text in texts]
    kinds = {type(value) for value in values if value is not None}
    return values if kinds in ({bool}, {int}, {float}, {int, float}) else list(texts)


def _literal(text: str) -> Any:
    """The number or Boolean that JSON writes exactly as `text`; else `text`.

    "2.0" counts, as CSV writers put it in a column of floats; like any number without a fraction it is then 2.
    """
    if text[0] not in "-0123456789tf" or len(text) > 32:
        return text
    try:
        read = json.loads(text)
        exact = isinstance(read, bool | int | float) and canonical_json(read).decode() == text
        return normalise(read) if exact else text
    except ValueError:
        return text
