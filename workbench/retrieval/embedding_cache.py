"""Embedding cache: vectors that were computed before, shared by all configurations and processes of a workspace.

What decides a vector is its key: the text, whether it is a passage or a query, and the embedder's digest. So a chunk that
two configurations cut alike is embedded once, and a build that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError
from workbench.models.sqlite_cache import SqliteCache
from workbench.retrieval.embedding import Embedder, Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workbench.progress import Progress

FORMAT = 1
# Texts that are embedded and then written together: so many are lost when the process is killed.
PORTION = 512


class EmbeddingCache:
    """The vectors kept in one file. Whatever happens to it is a miss, never an error.

    Args:
        most_bytes: when the file passes this size, `trim` drops the oldest vectors.
    """

    def __init__(self, path: Path, *, most_bytes: int = 4 << 30) -> None:
        self._file = SqliteCache(path, table="vectors", title="embedding cache", most_bytes=most_bytes)

    @property
    def path(self) -> Path:
        return self._file.path

    def get(self, keys: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The intact vectors among `keys`, bit for bit as they were put."""
        import numpy as np

        found = self._file.get(keys)
        return {key: np.frombuffer(body, "<f4") for key, body in found.items() if body and not len(body) % 4}

    def put(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep vectors, in one transaction."""
        import numpy as np

        self._file.put((key, np.ascontiguousarray(vector, "<f4").tobytes()) for key, vector in vectors.items())

    def trim(self) -> None:
        self._file.trim()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()


class CachedEmbedder:
    """An embedder whose vectors are looked up first. Each distinct text is embedded once."""

    def __init__(self, embedder: Embedder, cache: EmbeddingCache, *, portion: int = PORTION) -> None:
        self.embedder = embedder
        self.cache = cache
        self._portion = portion
        self._dimensions: int | None = None

    @property
    def name(self) -> str:
        return self.embedder.name

    @property
    def digest(self) -> str:
        return self.embedder.digest

    @property
    def dimensions(self) -> int:
        # A server is not asked for what a kept vector tells.
        return self.embedder.dimensions if self._dimensions is None else self._dimensions

    @property
    def max_tokens(self) -> int | None:
        return self.embedder.max_tokens

    @property
    def tokenizer(self) -> Any:
        return self.embedder.tokenizer

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """The vectors of `texts`, kept ones and new ones; new ones are written every few hundred.

        Raises:
            ModelError: as its embedder does; or kept vectors have another length than new ones.
        """
        import numpy as np

        keys = [vector_key(self.digest, kind, text) for text in texts]
        times = Counter(keys)
        known = self.cache.get(list(times))
        done = sum(times[key] for key in known)
        if progress is not None and done:
            progress.update(done)
        missing = [(key, text) for key, text in dict(zip(keys, texts, strict=True)).items() if key not in known]
        for start in range(0, len(missing), self._portion):
            part = missing[start : start + self._portion]
            inner = _Part(progress, done, [times[key] for key, _ in part]) if progress is not None else None
            vectors = self.embedder.encode([text for _, text in part], kind=kind, progress=inner)
            fresh = {key: vector for (key, _), vector in zip(part, vectors, strict=True)}
            self.cache.put(fresh)
            known |= fresh
            done += sum(times[key] for key in fresh)
            if progress is not None:
                progress.update(done)
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        sizes = sorted({len(vector) for vector in known.values()})
        if len(sizes) > 1:
            raise ModelError(
                f"vectors of {self.name} have {' and '.join(map(str, sizes))} numbers: its server has changed the model",
                hint=f"Remove {self.cache.path}, and build again what was built with the model before.",
            )
        self._dimensions = sizes[0]
        return np.stack([known[key] for key in keys]).astype(np.float32, copy=False)

    def __repr__(self) -> str:
        return f"CachedEmbedder({self.embedder!r})"


class _Part:
    """Tells the progress of one portion as that of the whole; a text that comes several times counts as often."""

    def __init__(self, whole: Progress, before: int, times: Sequence[int]) -> None:
        self._whole = whole
        self._before = before
        self._times = times

    def update(self, done: int, note: str = "") -> None:
        # Which of them are done is not known, so each counts like the average one.
        share = sum(self._times) * done // len(self._times)
        self._whole.update(self._before + share, note)


def vector_key(digest: str, kind: Kind, text: str) -> str:
    """The key of a text's vector."""
    data = f"{FORMAT}\0{digest}\0{kind}\0{text}"
    return "sha256:" + hashlib.sha256(data.encode("utf-8", "surrogatepass")).hexdigest()
