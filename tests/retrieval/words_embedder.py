"""An embedder without a model: a text is the sum of fixed random directions of its words, so that shared words are near."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workbench.files import digest_json
from workbench.progress import Progress

DIMENSIONS = 48


class WordsEmbedder:
    """Counts what it embeds in `texts`; `delay` is seconds a text."""

    name = "words"
    dimensions = DIMENSIONS
    max_tokens: int | None = None
    tokenizer: Any = None

    def __init__(self, seed: int = 0, delay: float = 0.0) -> None:
        self.seed = seed
        self.delay = delay
        self.texts: list[str] = []

    @property
    def digest(self) -> str:
        return digest_json(["words", self.seed])

    def encode(
        self, texts: Sequence[str], *, kind: Literal["passage", "query"] = "passage", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        self.texts += texts
        time.sleep(self.delay * len(texts))
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()) or ["?"]:
                vectors[row] += self._direction(word)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-9)).astype(np.float32)
        return unit

    def _direction(self, word: str) -> NDArray[np.float64]:
        seed = hashlib.sha256(f"{self.seed}:{word}".encode()).digest()[:8]
        return np.random.default_rng(int.from_bytes(seed, "big")).normal(size=DIMENSIONS)
