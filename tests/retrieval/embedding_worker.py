"""A process that embeds texts slowly, with the cache, until it is killed: see test_embedding_cache.py."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.retrieval.counting_embedder import CountingEmbedder
from workbench.progress import Progress
from workbench.retrieval.embedding import Kind
from workbench.retrieval.embedding_cache import CachedEmbedder, EmbeddingCache

TEXTS = [f"text {number}" for number in range(60)]
PORTION = 4


class Slow(CountingEmbedder):
    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        time.sleep(0.05)
        return super().encode(texts, kind=kind, progress=progress)


if __name__ == "__main__":
    print("started", flush=True)
    CachedEmbedder(Slow(), EmbeddingCache(Path(sys.argv[1])), portion=PORTION).encode(TEXTS)
