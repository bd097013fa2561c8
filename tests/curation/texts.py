"""Small data sets and an embedder that knows which texts mean the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from workbench.data.dataset import Dataset
from workbench.progress import Progress
from workbench.retrieval.embedding import Kind


class Meanings:
    """An embedder in which texts of one meaning have one vector, and any others are about at right angles.

    Args:
        meanings: a text to what it means; a text that is not named means itself.
    """

    name = "meanings"
    digest = "sha256:" + "0" * 64
    dimensions = 512
    tokenizer: Any = None

    def __init__(self, meanings: Mapping[str, str] | None = None, *, max_tokens: int | None = None) -> None:
        self._meanings = meanings or {}
        self.max_tokens = max_tokens

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dimensions), np.float32)
        for place, text in enumerate(texts):
            seed = hashlib.sha256(self._meanings.get(text, text).encode()).digest()
            vector = np.random.default_rng(list(seed)).standard_normal(self.dimensions)
            out[place] = vector / np.linalg.norm(vector)
        return out


def dataset(rows: Sequence[tuple[str, str, str | None]], **spec: Any) -> Dataset:
    """A data set of (split, text, label) rows with ids r0, r1, …"""
    frame = pl.DataFrame(
        {
            "id": [f"r{n}" for n in range(len(rows))],
            "part": [split for split, _, _ in rows],
            "text": [text for _, text, _ in rows],
            "label": pl.Series([label for *_, label in rows], dtype=pl.String),
        }
    )
    fields: dict[str, Any] = {
        "input": "text",
        "target": "label",
        "split_column": "part",
        "unlabelled": True,
        "name": "mine",
    } | spec
    return Dataset.from_frame(frame, **fields)
