"""A process that builds an index, to be killed: python -m tests.retrieval.build_worker WORKSPACE DELAY"""

from __future__ import annotations

import sys

from tests.retrieval.test_index import RECIPE, corpus
from tests.retrieval.words_embedder import WordsEmbedder
from workbench.retrieval import embedding_cache
from workbench.retrieval.index import Index
from workbench.workspace import Layout


def main(folder: str, delay: str) -> None:
    layout = Layout.find(folder)
    embedding_cache.PORTION = 16
    embedder = embedding_cache.CachedEmbedder(
        WordsEmbedder(delay=float(delay)), embedding_cache.EmbeddingCache(layout.embeddings)
    )
    print("started", flush=True)
    print(Index.build(layout, corpus(120), RECIPE, embedder=embedder, show_progress=False).digest, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
