"""Row: one example of a data set, in the form the rest of the workbench reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One example.

    Attributes:
        id: unique within the data set and stable when other rows are added.
        inputs: what a prompt may use, by column name.
        target: the expected answer (text, number, or an object for several target columns); None where there is none.
        group: rows of one group (a customer, a conversation) are not independent; None where none is named.
    """

    id: str
    inputs: Mapping[str, Any]
    target: Any = None
    group: str | None = None
