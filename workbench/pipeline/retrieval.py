"""Retrieval as a part of a pipeline: passages of an index that the prompt sees as `{{ passages }}`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from workbench.errors import PromptError
from workbench.retrieval.search_settings import SearchSettings
from workbench.workspace import Layout, current_layout

if TYPE_CHECKING:
    from workbench.retrieval.index import Index
    from workbench.retrieval.types import Hit

VARIABLE = "passages"
_lock = threading.Lock()
_open: dict[tuple[Path, str], Index] = {}


class Retrieval(BaseModel):
    """Which index is searched, for what, and how.

    Attributes:
        index: digest of a built index.
        query: name of the input that is searched for.
        access: labels that the pipeline's readers hold; chunks labelled `public` need none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    index: str
    query: str = "question"
    search: SearchSettings = SearchSettings()
    access: tuple[str, ...] = ()

    def passages(self, rows: Sequence[Mapping[str, Any]], layout: Layout | None = None) -> list[Passages]:
        """The passages for each row, whose queries are embedded together.

        Raises:
            PromptError: a row has no such input.
            NotFoundError, IntegrityError: the index is not here, or not what it was.
        """
        for row in rows:
            if self.query not in row:
                raise PromptError(
                    f"retrieval searches for {self.query!r}, which the inputs do not have",
                    hint=f"The inputs have: {', '.join(sorted(row)) or 'nothing'}.",
                )
        found = self.open(layout).search_many(
            [str(row[self.query]) for row in rows], settings=self.search, access=self.access
        )
        return [Passages(tuple(hits)) for hits in found]

    def open(self, layout: Layout | None = None) -> Index:
        """The index, verified when it is opened first; a process opens each once."""
        from workbench.retrieval.index import Index

        layout = layout or current_layout()
        key = (layout.root, self.index)
        with _lock:
            if key not in _open:
                _open[key] = Index.open(layout, self.index)
            return _open[key]


@dataclass(frozen=True)
class Passage:
    """What the prompt sees of one chunk: `number` is what an answer cites."""

    number: int
    id: str
    title: str
    text: str

    def __str__(self) -> str:
        title = f"{self.title}: " if self.title else ""
        return f"[{self.number}] {title}{self.text.strip()}"


class Passages(Sequence[Passage]):
    """Passages as the prompt prints them, each with the number to cite it by; a template may also go through them."""

    def __init__(self, hits: tuple[Hit, ...]) -> None:
        self.hits = hits
        self._passages = tuple(
            Passage(number, hit.chunk.id, hit.chunk.title, hit.chunk.text) for number, hit in enumerate(hits, 1)
        )

    def __getitem__(self, place: Any) -> Any:
        return self._passages[place]

    def __len__(self) -> int:
        return len(self._passages)

    def __iter__(self) -> Iterator[Passage]:
        return iter(self._passages)

    def __str__(self) -> str:
        return "\n\n".join(map(str, self._passages)) or "(no passage was found)"
