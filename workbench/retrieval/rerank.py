"""Rerankers: plug-ins that order the candidates of a search anew. What they take is part of the search's latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from workbench.errors import NotFoundError, require


class Reranker(Protocol):
    """Scores how well each text answers a query; higher is better."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str:
        """Of what decides its scores."""
        ...

    def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]: ...


_factories: dict[str, Callable[[], Reranker]] = {}
_made: dict[str, Reranker] = {}


def register_reranker(name: str, factory: Callable[[], Reranker]) -> None:
    """Let `factory()` make the reranker called `name`, on its first use."""
    _factories[name] = factory
    _made.pop(name, None)


def get_reranker(name: str) -> Reranker:
    """A registered reranker, or a cross-encoder of sentence-transformers in a folder or the Hugging Face cache.

    Raises:
        NotFoundError: neither.
    """
    if name not in _made:
        _made[name] = _factories[name]() if name in _factories else CrossEncoderReranker(name)
    return _made[name]


def reranked(name: str, query: str, texts: Sequence[str]) -> list[tuple[int, float]]:
    """Places of `texts` with the scores of the reranker called `name`, best first; ties keep their order."""
    if not texts:
        return []
    scores = get_reranker(name).scores(query, texts)
    order = sorted(range(len(texts)), key=lambda place: (-scores[place], place))
    return [(place, float(scores[place])) for place in order]


class CrossEncoderReranker:
    """A cross-encoder: reads query and text together, so it is slower and more exact than comparing vectors."""

    def __init__(self, name: str) -> None:
        library = require("sentence_transformers", extra="local")
        self.name = name
        try:
            self._model = library.CrossEncoder(name, local_files_only=True)
        except (OSError, ValueError) as error:
            raise NotFoundError(
                f"there is no reranker {name!r}: {str(error).splitlines()[0]}",
                hint="Register one with register_reranker, or name the folder of a cross-encoder.",
            ) from None

    @property
    def digest(self) -> str:
        from workbench.files import digest_json

        return digest_json(["cross-encoder", self.name])

    def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        found = self._model.predict([(query, text) for text in texts], show_progress_bar=False)
        return [float(score) for score in found]
