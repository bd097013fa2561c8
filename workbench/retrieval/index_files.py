"""The files of an index: its manifest, and its chunks with their vectors, in a folder that is named by its content."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.errors import IntegrityError
from workbench.files import canonical_json, digest_bytes, digest_json, publish_folder, write_atomic
from workbench.retrieval.ranking import Array
from workbench.retrieval.recipe import IndexRecipe
from workbench.retrieval.types import Chunk
from workbench.validation import first_fault
from workbench.workspace import Layout

MANIFEST = "manifest.json"
CHUNKS = "chunks.parquet"
COLUMNS = ("document", "number", "start", "end", "text", "title", "access", "metadata")


class IndexManifest(BaseModel):
    """What an index is, and what it was made from.

    Attributes:
        inputs: digest of recipe, corpus and embedder: by it a build finds that it was done before.
        chunks_digest: of `chunks.parquet`, verified whenever the index is opened.
        corpus_documents: digest of each document, by id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format_version: Literal[1] = 1
    name: str
    inputs: str
    recipe: IndexRecipe
    corpus: str
    corpus_digest: str
    corpus_documents: dict[str, str]
    embedder: str
    embedder_digest: str
    dimensions: int
    documents: int
    chunks: int
    characters: int
    rejected: dict[str, str]
    chunks_digest: str

    @property
    def digest(self) -> str:
        """What the index is known by: over everything but its name, which is only what people call it."""
        return digest_json(self.model_dump(mode="json", exclude={"name"}))


def pack(chunks: Sequence[Chunk], vectors: Array) -> bytes:
    """Chunks and vectors as Parquet; equal ones give equal bytes."""
    frame = pl.DataFrame(
        {
            "document": [chunk.document for chunk in chunks],
            "number": [chunk.number for chunk in chunks],
            "start": [chunk.start for chunk in chunks],
            "end": [chunk.end for chunk in chunks],
            "text": [chunk.text for chunk in chunks],
            "title": [chunk.title for chunk in chunks],
            "access": [chunk.access for chunk in chunks],
            "metadata": [canonical_json(dict(chunk.metadata)).decode() for chunk in chunks],
        }
    ).with_columns(pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, vectors.shape[1])))
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=3, statistics=False, row_group_size=65_536)
    return buffer.getvalue()


def store(layout: Layout, manifest: bytes, chunks: bytes) -> tuple[Path, IndexManifest]:
    """Put an index in its place, complete or not at all; where it is there already, that one stays.

    Raises:
        IntegrityError: the bytes are not those that the manifest names.
    """
    found = read_manifest(manifest, "the index")
    if digest_bytes(chunks) != found.chunks_digest:
        raise IntegrityError("the chunks are not those that the index names", hint="Verify the artifact.")
    # The name is part of the folder, so that one index may be called two things.
    tail = digest_json([found.digest, found.name])[7:15]
    folder = layout.built_indexes / f"{found.digest.removeprefix('sha256:')[:40]}-{tail}"

    def fill(temporary: Path) -> None:
        write_atomic(temporary / CHUNKS, chunks)
        write_atomic(temporary / MANIFEST, manifest)

    if not folder.exists():
        publish_folder(folder, fill)
    return folder, found


def read_manifest(data: bytes, where: str) -> IndexManifest:
    """A manifest from its bytes.

    Raises:
        IntegrityError: it is malformed; `where` says which.
    """
    try:
        return IndexManifest.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(f"{where}: {first_fault(error)}", hint="Build the index again.") from None


def list_folders(layout: Layout) -> list[Path]:
    """The folders of the indexes that are built, the newest first."""
    folders = layout.built_indexes.iterdir() if layout.built_indexes.is_dir() else []
    found = [folder for folder in folders if not folder.name.startswith(".") and (folder / MANIFEST).is_file()]
    return sorted(found, key=lambda folder: ((folder / MANIFEST).stat().st_mtime_ns, folder.name), reverse=True)
