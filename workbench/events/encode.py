"""From a row that somebody records to a line of a journal: checked, completed and encoded in a few microseconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from workbench.errors import UsageError
from workbench.events.journal import line_of
from workbench.events.schema import SOURCES, TIME, Table

_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_LARGEST = 2**63

Encoder = Callable[[Mapping[str, Any]], bytes]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    raise TypeError("must be a text")


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and -_LARGEST <= value < _LARGEST:
        return int(value)
    raise TypeError("must be a whole number of 64 bits")


def _number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise TypeError("must be a finite number")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise TypeError("must be true or false")


def _time(value: Any) -> str:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        if at.tzinfo is not None:
            at = at.astimezone(UTC).replace(tzinfo=None)
        return str(at.isoformat(timespec="microseconds"))
    except (ValueError, AttributeError, TypeError, OverflowError):
        raise TypeError("must be a time, as ISO 8601 or a datetime") from None


def _kinds(table: Table) -> dict[str, Callable[[Any], Any]]:
    kinds = {pl.String: _text, pl.Int64: _whole, pl.Float64: _number, pl.Boolean: _truth}
    return {
        name: _time if kind == TIME else next(check for known, check in kinds.items() if kind == known)
        for name, kind in table.columns.items()
    }


def encoder(table: Table, now: Callable[[], str]) -> Encoder:
    """What makes a journal line of a row of `table`.

    A column that is not given is null, except for the time (`now`) and `source` (`served`).

    Raises:
        UsageError: (the encoder) an unknown or missing column, or a value that does not fit; names the column.
    """
    checks = _kinds(table)
    required = (*table.required,)

    def encode(row: Mapping[str, Any]) -> bytes:
        record: dict[str, Any] = {}
        for name, value in row.items():
            if value is None:
                continue
            check = checks.get(name)
            if check is None:
                raise UsageError(f"{table.name} have no column {name!r}", hint=f"There are: {', '.join(checks)}.")
            try:
                record[name] = check(value)
            except (TypeError, ValueError, OverflowError) as error:
                raise UsageError(f"{table.name}.{name} {error}, not {_shown(value)}") from None
        for name in required:
            if name not in record:
                raise UsageError(f"{table.name}: a row needs {name}")
        if table.time not in record:
            record[table.time] = now()
        if record.setdefault("source", SOURCES[0]) not in SOURCES:
            raise UsageError(f"{table.name}.source must be {' or '.join(SOURCES)}, not {record['source']!r}")
        # Half of a surrogate pair has no UTF-8; models that are cut off inside a character leave such.
        return line_of(_ENCODE(record).encode("utf-8", "replace"))

    return encode


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
