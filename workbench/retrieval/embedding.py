"""Embedders: texts to unit vectors, by a model in this process or on a server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from workbench.models.engines import find_server
from workbench.models.store import EMBEDDER as MINILM
from workbench.workspace import SERVER_NAME, Layout, ServerSettings, Settings, current_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workbench.progress import Progress

__all__ = [
    "MINILM",
    "Embedder",
    "Kind",
    "cached_embedder",
    "close_embedders",
    "get_embedder",
    "register_embedder",
]

Kind = Literal["passage", "query"]


class Embedder(Protocol):
    """Texts to unit vectors, so that a dot product is a cosine. Safe to use from several threads."""

    @property
    def name(self) -> str:
        """What `get_embedder` knows it by."""
        ...

    @property
    def digest(self) -> str:
        """Of everything that decides the vectors: vectors of one digest can be compared with one another."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Longest text, in tokens; longer ones are cut or refused. None where it is not known."""
        ...

    @property
    def tokenizer(self) -> Any:
        """A `tokenizers.Tokenizer` without truncation and padding, to measure texts by; None where there is none here."""
        ...

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """The vectors of `texts`, shape (n, dimensions), in their order; shape (0, dimensions) for none.

        An empty text is embedded like any other.

        Args:
            kind: models that tell questions from what is searched embed both in one space, but not alike.
            progress: told how many texts are done.

        Raises:
            ModelError: the model cannot be run, or its server cannot be asked.
        """
        ...


Factory = Callable[[str], Embedder]

_factories: dict[str, Factory] = {}
_loaded: dict[tuple[str, ServerSettings | None], Embedder] = {}
_lock = threading.RLock()


def register_embedder(name: str, factory: Factory) -> None:
    """Give an embedder of one's own a name; `factory` is called with it, once a process."""
    with _lock:
        _factories[name] = factory
        _loaded.pop((name, None), None)


def get_embedder(name: str = MINILM, settings: Settings | None = None) -> Embedder:
    """The embedder called `name`, loaded once a process.

    Args:
        name: "minilm", a registered one, `SERVER:MODEL` of a server in `settings`, a folder, or the id of a model that
            was pulled or is in the Hugging Face cache. Nothing is downloaded.
        settings: None takes those of the workspace last opened in this process, else of the nearest one.

    Raises:
        ModelError: no such model or server here; the hint says what to do.
        MissingExtraError: what it needs is not installed.
    """
    with _lock:
        prefix, colon, model = name.partition(":")
        if name in _factories or not colon or not SERVER_NAME.fullmatch(prefix):
            key: tuple[str, ServerSettings | None] = (name, None)
            if key not in _loaded:
                _loaded[key] = _factories.get(name, _local)(name)
            return _loaded[key]
        server = find_server(prefix, settings or current_settings())
        key = (name, server)
        if key not in _loaded:
            from workbench.retrieval.embedding_openai import OpenAIEmbedder

            _loaded[key] = OpenAIEmbedder(prefix, model, server)
        return _loaded[key]


def cached_embedder(layout: Layout, name: str = MINILM) -> Embedder:
    """The embedder called `name`, whose vectors are kept in the workspace for the next time."""
    from workbench.retrieval.embedding_cache import CachedEmbedder, EmbeddingCache

    cache = EmbeddingCache(layout.embeddings, most_bytes=layout.settings.cache.embeddings_mb << 20)
    cache.trim()
    return CachedEmbedder(get_embedder(name, layout.settings), cache)


def close_embedders() -> None:
    """Free every loaded model."""
    with _lock:
        while _loaded:
            embedder = _loaded.popitem()[1]
            if hasattr(embedder, "close"):
                embedder.close()


def _local(name: str) -> Embedder:
    from workbench.retrieval.embedding_local import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(name)
