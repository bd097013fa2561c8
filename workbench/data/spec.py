"""DatasetSpec: which column plays which part, kept beside the rows as `dataset.toml`."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench.errors import DataError, UsageError
from workbench.files import toml_value
from workbench.validation import first_fault

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DEFAULT_SPLITS = {"train": 0.4, "dev": 0.2, "test": 0.4}


class DatasetSpec(BaseModel):
    """What the columns of a data set mean.

    Attributes:
        name: letters, digits, dot, dash and underscore; also the name of its folder.
        file: the rows, JSON Lines, relative to `dataset.toml`.
        id: the column that names a row; None: the column "id" where there is one, else a digest of the inputs.
        input: what a prompt may use; empty means every column that plays no other part.
        target: the expected answer; one column gives its value, several give an object.
        group: rows of one group are not independent: they share a split and are resampled together.
        split_column: a column that names each row's split; without one the split comes from a hash.
        splits: share of the rows by split name, in order, summing to 1; unused where there is a split column.
        split_seed: text mixed into that hash.
        unlabelled: rows without a target are allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: int = Field(default=1, ge=1, le=1)
    name: str
    description: str = ""
    file: str = "data.jsonl"
    id: str | None = None
    input: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    group: str | None = None
    split_column: str | None = None
    splits: dict[str, float] = Field(default_factory=lambda: dict(DEFAULT_SPLITS))
    split_seed: str = "0"
    unlabelled: bool = False

    @field_validator("name")
    @classmethod
    def _name_is_a_folder_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("a name is letters, digits, dot, dash and underscore, and starts with a letter or digit")
        return name

    @field_validator("splits")
    @classmethod
    def _splits_are_shares(cls, splits: dict[str, float]) -> dict[str, float]:
        if not splits or any(not 0 < share <= 1 for share in splits.values()):
            raise ValueError("each split needs a share above 0 and at most 1")
        if not math.isclose(sum(splits.values()), 1, abs_tol=1e-9):
            raise ValueError(f"the shares sum to {sum(splits.values()):g}, not to 1")
        return splits

    @field_validator("file")
    @classmethod
    def _file_stays_in_the_folder(cls, file: str) -> str:
        if not file or Path(file).is_absolute() or ".." in Path(file).parts:
            raise ValueError("the file must lie in the data set's own folder")
        return file

    @model_validator(mode="after")
    def _one_part_a_column(self) -> Self:
        named = [*self.input, *self.target, *(c for c in (self.group, self.split_column) if c)]
        twice = sorted({column for column in self.target if named.count(column) > 1})
        if twice:
            raise ValueError(f"the target column {twice[0]!r} plays another part too")
        if len(set(self.input)) < len(self.input):
            raise ValueError("an input column is named twice")
        return self

    def to_toml(self) -> str:
        """The text of `dataset.toml`; `from_toml` gives back an equal spec."""
        lines = [
            f"{key} = {toml_value(value)}"
            for key, value in self.model_dump(exclude={"splits"}).items()
            if value is not None
        ]
        shares = [f"{toml_value(name)} = {share!r}" for name, share in self.splits.items()]
        return "\n".join([*lines, "", "[splits]", *shares]) + "\n"

    @classmethod
    def from_toml(cls, path: Path) -> DatasetSpec:
        """Read a `dataset.toml`.

        Raises:
            DataError: not TOML, an unknown key or a value that is not allowed.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(str(error), path=str(path), hint="Mend the file; it must be TOML") from None
        except ValidationError as error:
            raise DataError(first_fault(error), path=str(path), hint="Mend or remove that key") from None


def make_spec(**fields: Any) -> DatasetSpec:
    """A spec from a caller's arguments.

    Raises:
        UsageError: an argument is not allowed.
    """
    try:
        return DatasetSpec(**fields)
    except ValidationError as error:
        raise UsageError(first_fault(error)) from None


def columns(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Column names given as one text, several or none, as a tuple."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)
