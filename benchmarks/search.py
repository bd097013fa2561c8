"""Search: the index's hybrid search, word for word as a pipeline calls it, against Chroma's own dense query.

20,000 and 100,000 chunks of real text: the language reference, docstrings of the standard library, and copies of them in
which words were replaced. Questions are sentences of the same texts with half of their words. Both sides get a query's
vector from a table, so that the time of the embedder, the same for both, hides nothing. Chroma's graph is searched with the
smallest `ef_search` that finds 0.99 of the ten nearest; both return ten passages with their texts. Rounds alternate.

Vectors are kept in `.bench`; the first run embeds them, which takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Part
from benchmarks.texts import edited, library_corpus

CHUNKS, K, RECALL, QUERIES, ROUNDS = (20_000, 100_000), 10, 0.99, 200, 3
TOKENS = 48
EF_SEARCH = (50, 100, 150, 200, 300, 400, 800)


class Table:
    """An embedder that looks vectors up, and embeds no text."""

    def __init__(self, inner: Any, vectors: dict[str, Any]) -> None:
        self.name, self.digest, self.dimensions = inner.name, inner.digest, inner.dimensions
        self.max_tokens, self.tokenizer = inner.max_tokens, inner.tokenizer
        self.vectors = vectors

    def encode(self, texts: Sequence[str], *, kind: str = "passage", progress: Any = None) -> Any:
        import numpy as np

        return np.stack([self.vectors[text] for text in texts])


def measure(counts: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Milliseconds of each query, by number of chunks and by way of searching, and what the index chose."""
    from workbench.retrieval.chunking import ChunkerSettings, chunk_corpus
    from workbench.retrieval.embedding import get_embedder
    from workbench.retrieval.embedding_cache import CachedEmbedder, EmbeddingCache

    inner = get_embedder()
    cache = EmbeddingCache(harness.BENCH / "embeddings.sqlite")
    embedder = CachedEmbedder(inner, cache)
    chunks = chunk_corpus(library_corpus(1 << 40), ChunkerSettings(kind="auto", size=TOKENS), tokenizer=inner.tokenizer)
    texts = edited([chunk.text for chunk in chunks], max(counts))
    questions = _questions(texts, QUERIES)
    queries = dict(zip(questions, embedder.encode(questions, kind="query"), strict=True))
    found = {}
    for count in counts:
        part = texts[:count]
        vectors = dict(zip(part, embedder.encode(part), strict=True))
        found[count] = one_size(part, Table(inner, vectors | queries), questions)
    cache.close()
    return found


def _questions(texts: Sequence[str], count: int) -> list[str]:
    chance = random.Random(1)
    long = [text for text in texts if len(text.split()) >= 16]
    found = []
    for text in chance.sample(long, count):
        words = text.split()
        found.append(" ".join(words[place] for place in sorted(chance.sample(range(len(words)), len(words) // 2))))
    return found


def one_size(texts: Sequence[str], embedder: Table, questions: Sequence[str]) -> dict[str, Any]:
    """Build an index and measure it: milliseconds by way, recall and `ef_search` of Chroma, and the index's choice."""
    from workbench.retrieval.chunking import ChunkerSettings
    from workbench.retrieval.corpus import Corpus
    from workbench.retrieval.index import Index
    from workbench.retrieval.recipe import IndexRecipe
    from workbench.retrieval.search_settings import SearchSettings
    from workbench.retrieval.types import Document
    from workbench.workspace import Layout, Settings

    documents = tuple(Document(f"{place:06}", text) for place, text in enumerate(texts))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        layout = Layout(Path(folder), Settings())
        recipe = IndexRecipe(chunker=ChunkerSettings(kind="fixed", size=4 * TOKENS))
        made: list[Index] = []
        build_s = harness.seconds(
            lambda: made.append(
                Index.build(layout, Corpus("texts", documents), recipe, embedder=embedder, show_progress=False)
            )
        )
        [index] = made
        choose_s = harness.seconds(lambda: index.dense_choice)
        ef_search, recall, chroma = _chroma(
            index, [embedder.vectors[question] for question in questions], Path(folder) / "chroma"
        )
        ways: dict[str, Callable[[str], object]] = {
            mode: _way(index, SearchSettings(k=K, mode=mode)) for mode in ("hybrid", "dense", "sparse")
        }
        ways["chroma"] = lambda question: chroma(embedder.vectors[question])
        took: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way(questions[0])
        for _ in range(ROUNDS):
            for name, way in ways.items():
                for question in questions:
                    started = time.perf_counter()
                    way(question)
                    took[name].append(1000 * (time.perf_counter() - started))
    return {
        "ms": took,
        "choice": index.dense_choice,
        "ef_search": ef_search,
        "recall": recall,
        "build_s": build_s,
        "choose_s": choose_s,
        "chunks": index.manifest.chunks,
    }


def _way(index: Any, settings: Any) -> Callable[[str], object]:
    return lambda question: index.search(question, settings=settings)


def _chroma(index: Any, queries: Sequence[Any], folder: Path) -> tuple[int, float, Callable[[Any], object]]:
    """A Chroma collection with the texts, its smallest `ef_search` that finds enough, its recall, and its query."""
    import numpy as np

    from workbench.retrieval.dense import exact

    truth = [set(exact(index.vectors, query, K).places.tolist()) for query in queries]
    texts = [chunk.text for chunk in index.chunks]
    client = _client(folder)
    collection: Any = client.create_collection(
        "chunks", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    )
    step = client.get_max_batch_size()
    for start in range(0, len(texts), step):
        part = slice(start, start + step)
        ids = [str(place) for place in range(*part.indices(len(texts)))]
        collection.add(ids=ids, embeddings=index.vectors[part], documents=texts[part])
    for ef_search in EF_SEARCH:
        # What a loaded graph is told of `ef_search` it ignores; one that is opened again obeys.
        collection.modify(configuration={"hnsw": {"ef_search": ef_search}})
        opened = _client(folder).get_collection("chunks", embedding_function=None)

        def query(vector: Any, opened: Any = opened) -> Any:
            return opened.query(query_embeddings=[vector], n_results=K)

        hits = [set(map(int, query(vector)["ids"][0])) for vector in queries]
        recall = float(np.mean([len(found & right) for found, right in zip(hits, truth, strict=True)])) / K
        if recall >= RECALL:
            return ef_search, recall, query
        collection = opened
    raise harness.BenchmarkError(f"Chroma does not find {RECALL} of the ten nearest, whatever ef_search")


def _client(folder: Path) -> Any:
    """Chroma on a folder, as if by a new process."""
    import chromadb
    from chromadb.api.shared_system_client import SharedSystemClient
    from chromadb.config import Settings

    SharedSystemClient.clear_system_cache()
    return chromadb.PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))


def lines(count: int, found: dict[str, Any]) -> list[Part]:
    """The report of one size: hybrid search against Chroma is the goal, the others explain it."""
    middle = {name: statistics.median(took) for name, took in found["ms"].items()}
    peer = middle["chroma"]

    def line(way: str) -> Part:
        return Part(name=f"{count:,} chunks, {way}", ours=middle[way], peer=peer, ratio=peer / middle[way], unit="ms")

    first = line("hybrid")
    first |= Part(goal="at least 1×", met=middle["hybrid"] <= peer)
    return [first, line("dense"), line("sparse")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--chunks", type=int, nargs="+", default=list(CHUNKS), help="sizes of the index")
    options = parser.parse_args(arguments)
    found = measure(options.chunks)
    parts = [part for count, one in found.items() for part in lines(count, one)]
    [first, *_] = parts
    notes = ["a query's vector is given to both sides; both return ten passages with their texts"]
    for count, one in found.items():
        p95 = {name: statistics.quantiles(took, n=20)[-1] for name, took in one["ms"].items()}
        notes += [
            (
                f"{count:,}: Chroma finds {one['recall']:.3f} of the ten nearest with ef_search={one['ef_search']}; "
                f"p95 hybrid {p95['hybrid']:.2f} ms, Chroma {p95['chroma']:.2f} ms"
            ),
            f"{count:,}: the index chose {one['choice'].chosen}: {one['choice'].why} (chosen in {one['choose_s']:.0f} s)",
        ]
    harness.report(
        "search",
        ours=first["ours"],
        peer=first["peer"],
        ratio=first["ratio"],
        goal=first["goal"],
        met=all(part["met"] for part in parts if part.get("goal")),
        unit="ms",
        parts=parts[1:],
        json_output=options.json,
        packages=["llmops-workbench", "chromadb", "bm25s", "numpy"],
        runs={f"{count}, {name}, ms": took for count, one in found.items() for name, took in one["ms"].items()},
        notes=notes,
    )


if __name__ == "__main__":
    main()
