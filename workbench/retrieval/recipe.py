"""What an index is made of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.files import digest_json
from workbench.retrieval.chunking import ChunkerSettings
from workbench.retrieval.sparse import SparseSettings


class HnswSettings(BaseModel):
    """The graph for approximate search (Malkov and Yashunin 2018), as Chroma builds it.

    Attributes:
        max_neighbors: edges of a node (M). ef_construction: candidates while building. ef_search: while searching.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_neighbors: int = Field(default=16, ge=2, le=256)
    ef_construction: int = Field(default=100, ge=4)
    ef_search: int = Field(default=100, ge=1)


class IndexRecipe(BaseModel):
    """What an index is built with. Two builds of one recipe from one corpus and one embedder are the same index.

    Attributes:
        embedder: `minilm`, a folder, a model that is already in the Hugging Face cache, or `SERVER:MODEL`.
        ann: how dense vectors are searched: `exact` is one matrix product, `projected` a product in fewer dimensions and an
            exact one over what is left, `hnsw` a graph; `auto` measures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    chunker: ChunkerSettings = ChunkerSettings()
    embedder: str = "minilm"
    sparse: SparseSettings = SparseSettings()
    hnsw: HnswSettings = HnswSettings()
    ann: Literal["auto", "exact", "projected", "hnsw"] = "auto"

    @property
    def digest(self) -> str:
        return digest_json(self.model_dump(mode="json"))
