"""A process that builds an index, to be killed: python -m tests.retrieval.build_worker WORKSPACE DELAY"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tests.retrieval.test_index import RECIPE, corpus
from tests.retrieval.words_embedder import WordsEmbedder
from workbench.progress import Progress
from workbench.retrieval import embedding_cache
from workbench.retrieval.index import Index
from workbench.workspace import Layout


class TellingEmbedder(WordsEmbedder):
    """Says `kept` when it is asked again, by when what it embedded first was kept."""

    def encode(
        self, texts: Sequence[str], *, kind: Literal["passage", "query"] = "passage", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        if self.texts:
            print("kept", flush=True)
        return super().encode(texts, kind=kind, progress=progress)


def main(folder: str, delay: str) -> None:
    layout = Layout.find(folder)
    embedder = embedding_cache.CachedEmbedder(
        TellingEmbedder(delay=float(delay)), embedding_cache.EmbeddingCache(layout.embeddings), portion=16
    )
    print("started", flush=True)
    print(Index.build(layout, corpus(120), RECIPE, embedder=embedder, show_progress=False).digest, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
