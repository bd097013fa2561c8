"""Sources: folders that hold rows of their own (those of runs), which are read where they lie and copied into days later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import polars as pl


class Source(Protocol):
    """Folders of one kind. What a folder holds may change; then its identity does too."""

    @property
    def name(self) -> str:
        """In manifests: never changes."""
        ...

    @property
    def tables(self) -> Mapping[str, str]:
        """The tables it has rows of, each with the column that holds the folder's id."""
        ...

    @property
    def row_source(self) -> str:
        """What its rows have in the column `source`."""
        ...

    def identities(self) -> dict[str, str]:
        """Every folder's id and what it looks like now."""
        ...

    def read(self, table: str, ids: Sequence[str]) -> pl.LazyFrame:
        """Rows of folders, in today's form. Folders that are gone or damaged are left out; the latter are in `problems`."""
        ...

    def portions(self, ids: Sequence[str]) -> Iterator[list[str]]:
        """The same ids in groups, each of so few rows that they fit into memory."""
        ...

    def verify(self, ids: Sequence[str]) -> None:
        """Read folders whole, so that damage which their ends do not show is known from then on."""
        ...

    def problems(self) -> dict[str, str]:
        """What is damaged, by path."""
        ...
