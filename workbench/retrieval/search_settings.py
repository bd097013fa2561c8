"""How an index is asked."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mode = Literal["dense", "sparse", "hybrid"]


class SearchSettings(BaseModel):
    """How an index is asked; part of a pipeline.

    Attributes:
        mode: `dense` (meaning), `sparse` (words, BM25) or `hybrid` (both).
        fusion: how `hybrid` joins them: `rrf` by ranks, `weighted` by scores scaled to 0..1.
        rrf_k: damps the first ranks (Cormack, Clarke and Büttcher 2009).
        dense_weight: weight of the dense side in 0..1; the sparse side has the rest.
        candidates: how many of each side are looked at.
        mmr: None, or the weight of relevance against diversity in 0..1 (Carbonell and Goldstein 1998).
        reranker: name of a plug-in that orders the candidates anew; see `rerank.register_reranker`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    k: int = Field(default=5, ge=1)
    mode: Mode = "hybrid"
    fusion: Literal["rrf", "weighted"] = "rrf"
    rrf_k: int = Field(default=60, ge=1)
    dense_weight: float = Field(default=0.5, ge=0, le=1)
    candidates: int = Field(default=50, ge=1)
    mmr: float | None = Field(default=None, ge=0, le=1)
    reranker: str | None = None

    @model_validator(mode="after")
    def _enough_candidates(self) -> Self:
        if self.candidates < self.k:
            raise ValueError(f"candidates ({self.candidates}) must be at least k ({self.k})")
        return self

    def with_(self, **changes: Any) -> SearchSettings:
        """A copy with some fields replaced, checked like a new one."""
        return SearchSettings(**{**self.model_dump(), **changes})
