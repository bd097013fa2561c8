"""An embedder for tests: a vector that is a function of the text, and a record of what was asked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.progress import Progress
from workbench.retrieval.embedding import Kind


class CountingEmbedder:
    """Attributes: `asked` holds the texts of each call."""

    def __init__(self, digest: str = "sha256:one", dimensions: int = 8) -> None:
        self.name = "counting"
        self.digest = digest
        self.dimensions = dimensions
        self.max_tokens: int | None = None
        self.tokenizer: Any = None
        self.asked: list[list[str]] = []

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for place, text in enumerate(texts):
            seed = hashlib.sha256(f"{kind}{text}".encode()).digest()
            vectors[place] = np.random.default_rng(int.from_bytes(seed[:8], "big")).normal(size=self.dimensions)
            vectors[place] /= np.linalg.norm(vectors[place])
            if progress is not None:
                progress.update(place + 1)
        return vectors
