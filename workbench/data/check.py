"""Checks: every way a data file can be wrong, told as the file, the line and what is wrong there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from workbench.data.spec import DatasetSpec
from workbench.errors import DataError


@dataclass(frozen=True)
class Source:
    """Where rows came from, so that a fault in one of them can be located.

    Attributes:
        path: the file or folder; None for a frame in memory.
        lines: the 1-based line on which each row starts; None where a row has no line (Parquet, frames).
    """

    path: Path | None = None
    lines: Sequence[int] | None = None

    def fail(self, message: str, *, row: int | None = None, hint: str | None = None) -> NoReturn:
        """Raise a DataError about row `row` (0-based), or about the whole file."""
        path = str(self.path) if self.path else None
        if row is not None and self.lines is not None:
            raise DataError(message, path=path, line=self.lines[row], hint=hint)
        raise DataError(message if row is None else f"row {row + 1}: {message}", path=path, hint=hint)

    def place(self, row: int) -> str:
        """ "line 7" or "row 7"."""
        return f"line {self.lines[row]}" if self.lines is not None else f"row {row + 1}"


def check_columns(present: Sequence[str], spec: DatasetSpec, source: Source) -> None:
    """Every column the spec names is there, and "id" means the id.

    Raises:
        DataError: a column is missing, or a column "id" is not the one that names the rows.
    """
    parts = {"id": [spec.id] if spec.id else [], "input": spec.input, "target": spec.target}
    parts |= {"group": [spec.group] if spec.group else [], "split": [spec.split_column] if spec.split_column else []}
    for part, names in parts.items():
        for name in names:
            if name not in present:
                hint = f"The columns are: {', '.join(present)}"
                if len(present) == 1 and any(mark in present[0] for mark in ";\t|"):
                    hint = "The cells look separated by another mark than a comma: name it with delimiter (--delimiter)"
                source.fail(f"no column {name!r} (named as {part})", hint=hint)
    if spec.id and spec.id != "id" and "id" in present:
        source.fail(
            f"the column 'id' is not the column that names the rows ({spec.id!r})",
            hint="Rename the column 'id', or use it as the id",
        )


def check_ids(ids: Iterable[str | None], source: Source) -> None:
    """Every row has an id, and no two share one.

    Raises:
        DataError: names both rows.
    """
    first: dict[str, int] = {}
    for row, key in enumerate(ids):
        if key is None or not key.strip():
            source.fail("the id is empty", row=row, hint="Give every row an id, or name no id column")
        if key in first:
            source.fail(f"the id {key!r} is already on {source.place(first[key])}", row=row, hint="Ids must be unique")
        first[key] = row


def check_row(row: Mapping[str, Any], spec: DatasetSpec, source: Source, index: int) -> None:
    """A decoded row has its target and its split.

    Raises:
        DataError: one of them is missing.
    """
    if spec.target and not spec.unlabelled and all(row.get(column) is None for column in spec.target):
        names = ", ".join(repr(column) for column in spec.target)
        hint = "Fill it in, remove the row, or allow rows without a target (unlabelled = true, --unlabelled)"
        source.fail(f"no target ({names} is empty)", row=index, hint=hint)
    if spec.split_column and row.get(spec.split_column) is None:
        source.fail(f"the split column {spec.split_column!r} is empty", row=index)


class SchemaCheck:
    """A JSON Schema for rows.

    A null cell is an absent one, except where the schema requires the column: there it stays null, so that a required
    column may be nullable.

    Raises:
        DataError: the file is not a JSON Schema.
    """

    def __init__(self, path: Path) -> None:
        from jsonschema import Draft202012Validator, SchemaError

        try:
            schema = json.loads(path.read_text("utf-8"))
            if not isinstance(schema, dict):
                raise DataError("a JSON Schema of rows is an object", path=str(path))
            Draft202012Validator.check_schema(schema)
        except json.JSONDecodeError as error:
            raise DataError(f"not JSON: {error.msg}", path=str(path), line=error.lineno) from None
        except UnicodeDecodeError:
            raise DataError("not UTF-8", path=str(path)) from None
        except SchemaError as error:
            raise DataError(f"not a JSON Schema: {error.message}", path=str(path)) from None
        self._path = path
        self._required = frozenset(schema.get("required", ()))
        self._validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)

    def check(self, row: Mapping[str, Any], source: Source, index: int) -> None:
        """Raise a DataError naming the first fault of a row, if there is one."""
        shown = {key: value for key, value in row.items() if value is not None or key in self._required}
        fault = min(self._validator.iter_errors(shown), key=lambda e: list(map(str, e.absolute_path)), default=None)
        if fault is not None:
            place = "".join(f"{part}: " for part in fault.absolute_path)
            message = fault.message if len(fault.message) <= 300 else fault.message[:299] + "…"
            source.fail(f"{place}{message}", row=index, hint=f"The rules are in {self._path}")
