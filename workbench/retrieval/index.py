"""Index: chunks of a corpus with their vectors, built once, addressed by content, and searched by one call.

A folder holds `manifest.json` and `chunks.parquet` (the chunks and their vectors: all that cannot be computed again from
them). What follows from these, the word index and Chroma's graph, lies in `derived/` and is built anew where it is
missing or was built by other versions of the libraries.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from workbench.errors import DataError, IntegrityError, NotFoundError
from workbench.files import canonical_json, digest_bytes, digest_file, digest_json, publish_folder, short, write_atomic
from workbench.progress import progress as progress_bar
from workbench.retrieval import dense
from workbench.retrieval.chunking import chunk_corpus
from workbench.retrieval.corpus import Corpus
from workbench.retrieval.embedding import Embedder, cached_embedder
from workbench.retrieval.index_files import (
    CHUNKS,
    COLUMNS,
    MANIFEST,
    IndexManifest,
    list_folders,
    pack,
    read_manifest,
    store,
)
from workbench.retrieval.projection import Projection
from workbench.retrieval.ranking import Array, Side, rank
from workbench.retrieval.recipe import IndexRecipe
from workbench.retrieval.rerank import reranked
from workbench.retrieval.search_settings import SearchSettings
from workbench.retrieval.sparse import SparseIndex, sparse_folder
from workbench.retrieval.types import PUBLIC, Chunk, Hit
from workbench.workspace import Layout

if TYPE_CHECKING:
    from workbench.retrieval.dense import DenseChoice


class Index:
    """An index that is published. `build` makes one, `open` finds one."""

    def __init__(self, folder: Path, manifest: IndexManifest, embedder: Embedder | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self._embedder = embedder
        self._masks: dict[bytes, npt.NDArray[np.bool_] | None] = {}

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @classmethod
    def build(
        cls,
        layout: Layout,
        corpus: Corpus,
        recipe: IndexRecipe | None = None,
        *,
        name: str = "",
        embedder: Embedder | None = None,
        show_progress: bool = True,
    ) -> Index:
        """Chunk, embed and publish; what was built before is found and not built again.

        Vectors are kept as they come, so that a build that was killed goes on where it stopped, and one of a corpus that
        has changed embeds only the chunks that are new.

        Raises:
            DataError: the corpus has no text.
        """
        recipe = recipe or IndexRecipe()
        embedder = embedder or cached_embedder(layout, recipe.embedder)
        inputs = digest_json([recipe.digest, corpus.digest, embedder.digest])
        for found in list_indexes(layout):
            if found.manifest.inputs == inputs and (not name or found.manifest.name == name):
                found._embedder = embedder
                return found
        with progress_bar(len(corpus), f"Chunking {corpus.name}", show=show_progress) as bar:
            chunks = chunk_corpus(corpus, recipe.chunker, tokenizer=embedder.tokenizer, embedder=embedder, progress=bar)
        if not chunks:
            raise DataError(f"the corpus {corpus.name} has no text to index", hint="Look at its rejected documents.")
        with progress_bar(len(chunks), f"Embedding {corpus.name}", show=show_progress) as bar:
            vectors = embedder.encode([chunk.text for chunk in chunks], progress=bar)
        packed = pack(chunks, vectors)
        manifest = IndexManifest(
            name=name or corpus.name,
            inputs=inputs,
            recipe=recipe,
            corpus=corpus.name,
            corpus_digest=corpus.digest,
            corpus_documents={document.id: document.digest for document in corpus.documents},
            embedder=recipe.embedder,
            embedder_digest=embedder.digest,
            dimensions=vectors.shape[1],
            documents=len(corpus.documents),
            chunks=len(chunks),
            characters=sum(len(document.text) for document in corpus.documents),
            rejected={entry.id: entry.reason for entry in corpus.rejected},
            chunks_digest=digest_bytes(packed),
        )
        return cls(*store(layout, f"{manifest.model_dump_json(indent=1)}\n".encode(), packed), embedder)

    @classmethod
    def open(cls, layout: Layout, name: str, *, embedder: Embedder | None = None) -> Index:
        """An index by its name (the newest build), its digest, or a unique beginning of the digest; verified.

        Raises:
            NotFoundError: there is none.
            IntegrityError: a byte of it has changed, or the embedder here is not the one it was built with.
        """
        found = find_index(layout, name)
        if digest_file(found.folder / CHUNKS) != found.manifest.chunks_digest:
            raise IntegrityError(
                f"{found.folder / CHUNKS} is not what was built", hint="Delete the folder and build the index again."
            )
        found._embedder = embedder
        if embedder is not None:
            found._check(embedder)
        return found

    @cached_property
    def embedder(self) -> Embedder:
        """What queries are embedded with.

        Raises:
            IntegrityError: it is not what the chunks were embedded with.
        """
        from workbench.retrieval.embedding import get_embedder

        return self._check(self._embedder or get_embedder(self.manifest.embedder))

    def _check(self, embedder: Embedder) -> Embedder:
        if embedder.digest != self.manifest.embedder_digest:
            raise IntegrityError(
                f"index {self.manifest.name} was built with embedder {short(self.manifest.embedder_digest)}, "
                f"and {embedder.name} is {short(embedder.digest)}: its vectors mean nothing to it",
                hint="Build the index again with this embedder.",
            )
        return embedder

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row a chunk, without its vector."""
        return pl.read_parquet(self.folder / CHUNKS, columns=list(COLUMNS), memory_map=False)

    @cached_property
    def chunks(self) -> list[Chunk]:
        """The chunks, in the order of their vectors."""
        return [Chunk(**{**row, "metadata": json.loads(row["metadata"])}) for row in self.frame.iter_rows(named=True)]

    @cached_property
    def vectors(self) -> Array:
        """Unit vectors, shape (chunks, dimensions), float32."""
        column = pl.read_parquet(self.folder / CHUNKS, columns=["vector"], memory_map=False).get_column("vector")
        return np.ascontiguousarray(column.to_numpy(), dtype=np.float32)

    @cached_property
    def sparse(self) -> SparseIndex:
        """The word index, built on first use."""
        settings = self.manifest.recipe.sparse
        folder = self.folder / "derived" / sparse_folder(settings)
        if not folder.exists():
            built = SparseIndex.build(self.frame.get_column("text").to_list(), settings)
            publish_folder(folder, built.save)
        return SparseIndex.load(folder)

    @cached_property
    def dense_choice(self) -> DenseChoice:
        """Exact or approximate, measured once and kept beside the index."""
        path = self.folder / "derived" / "dense.json"
        if path.exists():
            return dense.DenseChoice.model_validate_json(path.read_bytes())
        recipe = self.manifest.recipe
        folder = dense.graph_folder(self.folder, recipe.hnsw) if self._approximate else self.folder
        found = dense.choose(self.vectors, recipe, folder)
        write_atomic(path, found.model_dump_json(indent=1) + "\n")
        return found

    @property
    def _approximate(self) -> bool:
        """Whether another way than exact search is open."""
        ann = self.manifest.recipe.ann
        return ann in ("projected", "hnsw") or (ann == "auto" and self.manifest.chunks >= dense.EXACT_BELOW)

    @cached_property
    def projection(self) -> Projection:
        """Vectors for the first of two passes, computed on first use."""
        choice = self.dense_choice
        return Projection.of(self.vectors, choice.kept or dense.KEPT[-1], choice.pool or dense.POOLS[-1])

    @cached_property
    def graph(self) -> dense.Graph:
        """Chroma's graph, built on first use."""
        settings = self.manifest.recipe.hnsw
        return dense.Graph.build(dense.graph_folder(self.folder, settings), self.vectors, settings)

    def search(
        self,
        query: str,
        k: int | None = None,
        *,
        settings: SearchSettings | None = None,
        access: Collection[str] = (),
        where: Mapping[str, Any] | None = None,
    ) -> list[Hit]:
        """The chunks that answer `query`, best first: at most `k`, of those that the reader may see.

        Args:
            k: default: that of the settings.
            access: labels the reader holds; chunks labelled `public` need none.
            where: chunks whose metadata has these values, or one of several where a list is given.
        """
        return self.search_many([query], k, settings=settings, access=access, where=where)[0]

    def search_many(
        self,
        queries: Sequence[str],
        k: int | None = None,
        *,
        settings: SearchSettings | None = None,
        access: Collection[str] = (),
        where: Mapping[str, Any] | None = None,
    ) -> list[list[Hit]]:
        """`search` for many queries, which are embedded together."""
        settings = settings or SearchSettings()
        if k is not None and k != settings.k:
            settings = settings.with_(k=k, candidates=max(k, settings.candidates))
        allowed = self._allowed(frozenset(access), dict(where or {}))
        if allowed is not None and not allowed.any():
            return [[] for _ in queries]
        vectors: Sequence[Array | None] = [None] * len(queries)
        if settings.mode != "sparse" or settings.mmr is not None:
            vectors = list(self.embedder.encode(list(queries), kind="query"))
        return [self._search(query, vector, settings, allowed) for query, vector in zip(queries, vectors, strict=True)]

    def _search(
        self, query: str, vector: Array | None, settings: SearchSettings, allowed: npt.NDArray[np.bool_] | None
    ) -> list[Hit]:
        sides: dict[str, Side] = {}
        if settings.mode != "sparse" and vector is not None:
            sides["dense"] = self.dense_side(vector, settings.candidates, allowed)
        if settings.mode != "dense":
            places, scores = self.sparse.search(query, settings.candidates, allowed)
            sides["sparse"] = Side(places, scores)
        length = settings.candidates if settings.reranker else settings.k
        ranked = rank(
            sides,
            settings,
            query=vector,
            vectors=self.vectors if settings.mmr is not None else None,
            length=length,
        )
        hits = [Hit(self.chunks[found.place], found.score, found.ranks) for found in ranked]
        if settings.reranker:
            order = reranked(settings.reranker, query, [hit.chunk.text for hit in hits])
            hits = [Hit(hits[place].chunk, score, {**hits[place].ranks, "fused": place + 1}) for place, score in order]
        return hits[: settings.k]

    def dense_side(self, vector: Array, count: int, allowed: npt.NDArray[np.bool_] | None = None) -> Side:
        """The nearest chunks. Where some are out of bounds it is exact, since a graph would not reach all the others."""
        count = min(count, self.manifest.chunks)
        if allowed is None and self._approximate:
            chosen = self.dense_choice.chosen
            if chosen == "hnsw":
                return self.graph.search(vector, count)
            if chosen == "projected":
                return dense.projected(self.projection, self.vectors, vector, count)
        return dense.exact(self.vectors, vector, count, allowed)

    def _allowed(self, access: frozenset[str], where: dict[str, Any]) -> npt.NDArray[np.bool_] | None:
        """Which chunks a reader may see; None where that is all of them."""
        key = canonical_json([sorted(access), where])
        if key not in self._masks:
            readable = self.frame.get_column("access").is_in([PUBLIC, *sorted(access)]).to_numpy()
            if where:
                metadata = [json.loads(text) for text in self.frame.get_column("metadata")]
                readable = readable & np.array([_fits(entry, where) for entry in metadata], dtype=np.bool_)
            if len(self._masks) >= 64:
                self._masks.clear()
            self._masks[key] = None if bool(readable.all()) else readable
        return self._masks[key]

    def files(self) -> tuple[bytes, bytes]:
        """Manifest and chunks, from which `unpack` makes the index elsewhere."""
        return (self.folder / MANIFEST).read_bytes(), (self.folder / CHUNKS).read_bytes()

    def __str__(self) -> str:
        manifest = self.manifest
        return (
            f"index {manifest.name} {short(self.digest)}: {manifest.chunks:,} chunks of {manifest.documents:,} documents, "
            f"{manifest.embedder}, {manifest.dimensions} dimensions"
        )

    def _repr_html_(self) -> str:
        from workbench.html import table

        rows = [(key, str(value)) for key, value in describe(self).items()]
        return table(("", ""), rows)


def _fits(metadata: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(
        metadata.get(key) in wanted if isinstance(wanted, (list, tuple)) else metadata.get(key) == wanted
        for key, wanted in where.items()
    )


def describe(index: Index) -> dict[str, Any]:
    """The facts of an index, for any display."""
    manifest = index.manifest
    size = sum(path.stat().st_size for path in index.folder.rglob("*") if path.is_file())
    return {
        "name": manifest.name,
        "digest": index.digest,
        "corpus": manifest.corpus,
        "corpus_digest": manifest.corpus_digest,
        "documents": manifest.documents,
        "rejected": len(manifest.rejected),
        "chunks": manifest.chunks,
        "characters": manifest.characters,
        "chunker": manifest.recipe.chunker.model_dump(mode="json"),
        "embedder": manifest.embedder,
        "embedder_digest": manifest.embedder_digest,
        "dimensions": manifest.dimensions,
        "megabytes": round(size / 1e6, 2),
    }


def diff_indexes(before: Index, after: Index) -> dict[str, Any]:
    """What differs: settings as (old, new) by name, and the ids of documents added, removed and changed."""
    old, new = before.manifest, after.manifest
    settings = {}
    for name in ("corpus", "embedder", "embedder_digest", "dimensions", "chunks"):
        if getattr(old, name) != getattr(new, name):
            settings[name] = (getattr(old, name), getattr(new, name))
    ours, theirs = (manifest.recipe.model_dump(mode="json") for manifest in (old, new))
    for part in ours:
        if ours[part] != theirs[part] and part != "embedder":
            settings[part] = (ours[part], theirs[part])
    was, is_ = old.corpus_documents, new.corpus_documents
    return {
        "settings": settings,
        "added": sorted(set(is_) - set(was)),
        "removed": sorted(set(was) - set(is_)),
        "changed": sorted(name for name in set(was) & set(is_) if was[name] != is_[name]),
    }


def unpack(layout: Layout, manifest: bytes, chunks: bytes) -> Index:
    """Publish an index that comes from elsewhere, such as an artifact: the inverse of `Index.files`.

    Raises:
        IntegrityError: the bytes are not those that the manifest names.
    """
    return Index(*store(layout, manifest, chunks))


def list_indexes(layout: Layout) -> list[Index]:
    """Every index that is built, the newest first."""
    return [
        Index(folder, read_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST)))
        for folder in list_folders(layout)
    ]


def find_index(layout: Layout, name: str) -> Index:
    """An index by name or digest, not verified.

    Raises:
        NotFoundError: none or several fit.
    """
    indexes = list_indexes(layout)
    for index in indexes:
        if name in (index.manifest.name, index.digest):
            return index
    wanted = name.removeprefix("sha256:")
    found = [index for index in indexes if len(wanted) >= 6 and index.digest.removeprefix("sha256:").startswith(wanted)]
    if len(found) != 1:
        what = f"{len(found)} indexes begin with {name!r}" if found else f"no index {name!r}"
        raise NotFoundError(what, hint="List them with: workbench index ls")
    return found[0]
