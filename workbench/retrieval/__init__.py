"""Retrieval: corpora, chunks, embeddings and the index that pipelines search."""
