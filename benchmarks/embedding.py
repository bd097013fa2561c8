"""Embeddings: texts per second on CPU, against `SentenceTransformer.encode` with its defaults.

Same process, same model (all-MiniLM-L6-v2, float32), same texts: pieces of Python's language reference, of mixed length or
all of a chunk's length. Rounds alternate between the two, so that what else the machine does meets both. The vectors of the
two are compared.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Part

GOAL, MOST_DIFFERENCE = 1.5, 1e-5
ROUNDS, QUERIES, SEED = 3, 30, 0
# Characters: from a title to more than the model reads, and about what a chunk has.
SHORTEST, LONGEST, CHUNK = 20, 1_600, 800
PEER_BATCH = 32


def draw_texts(count: int, shortest: int, longest: int) -> list[str]:
    """Pieces of the reference that CPython carries, of lengths that are uniform on a logarithmic scale."""
    from pydoc_data.topics import topics

    chance = random.Random(SEED)
    whole = "\n".join(topics[name] for name in sorted(topics))
    texts = []
    for _ in range(count):
        length = round(shortest * (longest / shortest) ** chance.random())
        start = chance.randrange(len(whole) - length)
        texts.append(whole[start : start + length])
    return texts


def measure(texts: int, chunks: int) -> dict[str, Any]:
    """Seconds of each round for ours and the peer, and the largest difference of two numbers in their vectors."""
    import numpy as np

    from workbench.retrieval.embedding_cache import CachedEmbedder, EmbeddingCache
    from workbench.retrieval.embedding_local import SentenceTransformerEmbedder

    ours = SentenceTransformerEmbedder(device="cpu")

    # Loaded after ours, so that both compute under the settings that ours makes for shared cores.
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    peer = SentenceTransformer(str(ours.model.path), device="cpu", local_files_only=True)
    mixed, alike = draw_texts(texts, SHORTEST, LONGEST), draw_texts(chunks, CHUNK, CHUNK)
    queries = draw_texts(QUERIES, 30, 120)

    def both(chosen: Sequence[str]) -> dict[str, list[float]]:
        warm = chosen[:PEER_BATCH]
        ours.encode(warm)
        peer.encode(warm)
        took: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(ROUNDS):
            took["ours"].append(harness.seconds(lambda: ours.encode(chosen)))
            took["peer"].append(harness.seconds(lambda: peer.encode(chosen)))
        return took

    def one_by_one(encode: Callable[[list[str]], object]) -> list[float]:
        return [harness.seconds(lambda text=text: encode([text])) for text in queries]  # type: ignore[misc]

    found: dict[str, Any] = {"mixed": both(mixed), "alike": both(alike)}
    found["one"] = {
        "ours": one_by_one(lambda text: ours.encode(text, kind="query")),
        "peer": one_by_one(peer.encode_query),
    }
    vectors = ours.encode(mixed)
    found["difference"] = float(np.abs(vectors - peer.encode(mixed, normalize_embeddings=True)).max())
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder, "embeddings.sqlite"))
        cached = CachedEmbedder(ours, cache)
        cached.encode(mixed)
        found["kept"] = harness.median_of(lambda: harness.seconds(lambda: cached.encode(mixed)), ROUNDS)
        cache.close()
    found["tokens"] = sum(
        min(ours.max_tokens or 1 << 30, len(encoding.ids)) for encoding in ours.tokenizer.encode_batch(mixed)
    )
    return found


def speed(name: str, took: dict[str, list[float]], count: int) -> Part:
    """Texts per second; the ratio is the median over rounds, whose two halves ran under like conditions."""
    ratio = statistics.median(peer / ours for ours, peer in zip(took["ours"], took["peer"], strict=True))
    return Part(
        name=name,
        ours=count / statistics.median(took["ours"]),
        peer=count / statistics.median(took["peer"]),
        ratio=ratio,
        unit="texts/s",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--texts", type=int, default=384, help="texts of mixed length")
    parser.add_argument("--chunks", type=int, default=96, help="texts of a chunk's length")
    options = parser.parse_args(arguments)
    found = measure(options.texts, options.chunks)
    if found["difference"] > MOST_DIFFERENCE:
        raise harness.BenchmarkError(f"vectors differ by {found['difference']:.2g}, more than {MOST_DIFFERENCE:g}")
    mixed = speed("mixed lengths", found["mixed"], options.texts)
    mixed |= Part(goal=f"at least {GOAL:g}×", met=(mixed["ratio"] or 0) >= GOAL)
    one = {side: 1000 * statistics.median(found["one"][side]) for side in ("ours", "peer")}
    parts = [
        mixed,
        speed(f"{CHUNK} characters each", found["alike"], options.chunks),
        Part(name="one question", ours=one["ours"], peer=one["peer"], ratio=one["peer"] / one["ours"], unit="ms"),
        Part(name="kept vectors", ours=options.texts / found["kept"], unit="texts/s"),
    ]
    harness.report(
        "embedding",
        ours=mixed["ours"],
        peer=mixed["peer"],
        ratio=mixed["ratio"],
        goal=mixed["goal"],
        met=mixed["met"],
        unit="texts/s",
        parts=parts,
        json_output=options.json,
        packages=["llmops-workbench", "sentence-transformers", "transformers", "tokenizers", "torch"],
        runs={f"{name}, {side}, s": found[name][side] for name in ("mixed", "alike") for side in ("ours", "peer")},
        notes=[
            f"all-MiniLM-L6-v2 on CPU, float32; peer: SentenceTransformer.encode, batch_size={PEER_BATCH}",
            f"{options.texts} texts of {SHORTEST} to {LONGEST} characters, {found['tokens']} tokens; {ROUNDS} rounds",
            f"largest difference between the vectors of the two: {found['difference']:.1e}",
        ],
    )


if __name__ == "__main__":
    main()
